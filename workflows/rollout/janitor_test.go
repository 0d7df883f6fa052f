package rollout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/target"
)

// looks is where the janitor looks in the tests.
var looks = JanitorInput{Environments: []string{"production"}, Services: []string{"student-service"}}

func TestTheJanitorPutsBackWhatATerminatedRolloutHasLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tracks[target.Canary] = target.Deployment{Environment: "production", Service: "student-service", Track: target.Canary, Release: newRelease, Replicas: 2}
	w.split = map[string]int{oldRelease: 90, newRelease: 10}
	w.instances = []target.Instance{{Name: "1", Release: oldRelease}, {Name: "2", Release: newRelease}, {Name: "3", Release: newRelease}}
	env := w.environment()
	env.RegisterWorkflow(Rollout)
	env.RegisterActivityWithOptions(func(activities.Service) (bool, error) { return len(w.tracks) > 1, nil }, activity.RegisterOptions{Name: "FindLeftovers"})
	env.ExecuteWorkflow(Janitor, looks)
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	w.restored()
	want := []string{"new=0% old=100%", "remove canary", "gone bbbbbbbbbbbb", "new=0% old=0%"}
	if diff := cmp.Diff(want, w.log); diff != "" {
		t.Errorf("what was done (-want +got):\n%s", diff)
	}
	if last := w.last(); last.State != operation.Succeeded || last.StartedBy != JanitorID {
		t.Errorf("recorded %s of %s: %s", last.State, last.StartedBy, last.Summary)
	}
}

func TestTheJanitorLeavesAloneWhatIsInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	env.RegisterWorkflow(Rollout)
	env.RegisterActivityWithOptions(func(activities.Service) (bool, error) { return false, nil }, activity.RegisterOptions{Name: "FindLeftovers"})
	env.ExecuteWorkflow(Janitor, looks)
	if err := env.GetWorkflowError(); err != nil || len(w.log) > 0 || len(w.records) > 0 {
		t.Errorf("%v, did %v, recorded %v", err, w.log, w.records)
	}
}
