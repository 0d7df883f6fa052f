package rollout

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

// planWorld is where plans begin rollouts, which do nothing but take ten seconds and end as a test says.
type planWorld struct {
	mu      sync.Mutex
	begun   []string
	fails   string // which of begun
	runs    string // the service whose release runs already
	records []operation.Record
}

func (w *planWorld) environment() *testsuite.TestWorkflowEnvironment {
	env := temporaltest.Workflow()
	register := func(name string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name}) }
	keep := func(r operation.Record) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.records = append(w.records, r)
		return nil
	}
	register("BeginOperation", keep)
	register("RecordOperation", keep)
	register("ImportRelease", func(in activities.ImportInput) (target.Release, error) {
		return target.Release{Digest: "sha256:" + strings.Repeat(map[string]string{"student-service": "a", "configuration-service": "c", rollout.Registry: "d"}[in.Service], 64)}, nil
	})
	register("FindFreeze", func(in activities.FreezeInput) (activities.Frozen, error) {
		until, reason := rollout.Frozen(in.Freezes, in.Environment, in.At)
		return activities.Frozen{Until: until, Reason: reason}, nil
	})
	env.RegisterWorkflowWithOptions(func(ctx workflow.Context, in rollout.Request) (Outcome, error) {
		what := in.Environment + " " + in.Service
		if in.Rollback {
			what += " back"
		} else if !rollout.IsDigest(in.Release) {
			return Outcome{}, errors.New("not by its content: " + in.Release)
		}
		w.begun = append(w.begun, what)
		if err := workflow.Sleep(ctx, 10*time.Second); err != nil {
			return Outcome{}, ended(Aborted, "cancelled")
		}
		if what == w.fails {
			return Outcome{}, ended(RolledBack, "error rate 12 %")
		}
		if in.Service == w.runs {
			return Outcome{From: in.Release, To: in.Release}, nil
		}
		return Outcome{From: "sha256:before", To: in.Release}, nil
	}, workflow.RegisterOptions{Name: "Rollout"})
	return env
}

func (w *planWorld) last() operation.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.MaxFunc(w.records, func(a, b operation.Record) int { return int(a.Revision - b.Revision) })
}

func plan() rollout.Plan {
	return rollout.Plan{Environments: []string{"staging", "production"}, Gate: true, RequestedBy: "arjun", Services: []rollout.Part{
		{Service: "student-service", Release: "/srv/student-service"}, {Service: "configuration-service", Release: "/srv/configuration-service"},
	}}
}

// hash is the plan's, once its releases are known.
func (w *planWorld) hash() string {
	_, rest, _ := strings.Cut(string(w.last().Result), `"hash":"`)
	hash, _, _ := strings.Cut(rest, `"`)
	return hash
}

// approve approves after a time, by a user.
func (w *planWorld) approve(env *testsuite.TestWorkflowEnvironment, after time.Duration, user string, hash func() string) *updateResult {
	result := &updateResult{}
	env.RegisterDelayedCallback(func() {
		env.UpdateWorkflow(ApproveUpdate, user+after.String(), result, Approval{Decision: Decision{User: user, Reason: "seen"}, Hash: hash()})
	}, after)
	return result
}

func TestPlanGoesThroughItsEnvironmentsAndItsGate(t *testing.T) {
	t.Parallel()
	w := &planWorld{}
	env := w.environment()
	early := w.approve(env, 5*time.Second, "meera", w.hash)
	wrong := w.approve(env, time.Hour, "meera", func() string { return "another" })
	right := w.approve(env, 2*time.Hour, "meera", w.hash)
	for after, want := range map[time.Duration]string{time.Hour: operation.Waiting, 2*time.Hour + time.Second: operation.Running} {
		env.RegisterDelayedCallback(func() {
			if last := w.last(); last.State != want {
				t.Errorf("after %s it is %s, want %s: %s", after, last.State, want, last.Summary)
			}
		}, after)
	}
	env.ExecuteWorkflow(RolloutPlan, plan())
	if err := env.GetWorkflowError(); err != nil || w.last().State != operation.Succeeded {
		t.Fatalf("%v, recorded %s: %s", err, w.last().State, w.last().Summary)
	}
	want := []string{"staging configuration-service", "staging student-service", "production configuration-service", "production student-service"}
	if diff := cmp.Diff(want, w.begun); diff != "" {
		t.Errorf("rollouts (-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct {
		result *updateResult
		says   string
	}{"early": {early, "does not wait"}, "of another plan": {wrong, "is not this plan"}} {
		if c.result.rejected == nil || !strings.Contains(c.result.rejected.Error(), c.says) {
			t.Errorf("an approval %s: %v", name, c.result.rejected)
		}
	}
	if !right.accepted || !strings.Contains(string(w.last().Result), `"approved by meera: seen"`) {
		t.Errorf("the approval is not on record: %s", w.last().Result)
	}
}

func TestPlanThatNobodyApprovesLeavesProductionAlone(t *testing.T) {
	t.Parallel()
	w := &planWorld{}
	env := w.environment()
	in := plan()
	in.OtherApprover = true
	own := w.approve(env, time.Hour, "arjun", w.hash)
	env.ExecuteWorkflow(RolloutPlan, in)
	if own.rejected == nil || !strings.Contains(own.rejected.Error(), "somebody else must approve") {
		t.Errorf("the approval of who asked for it: %v", own.rejected)
	}
	if last := w.last(); len(w.begun) != 2 || last.State != RolledBack || !strings.Contains(last.Summary, "Nobody approved it within 24h0m0s") {
		t.Errorf("began %v, recorded %s: %s", w.begun, last.State, last.Summary)
	}
}

func TestPlanRollsBackWhatWentWellBesideWhatFailed(t *testing.T) {
	t.Parallel()
	w := &planWorld{fails: "production student-service"}
	env := w.environment()
	in := plan()
	in.Gate = false
	env.ExecuteWorkflow(RolloutPlan, in)
	want := []string{"staging configuration-service", "staging student-service", "production configuration-service", "production student-service",
		"production configuration-service back"}
	if diff := cmp.Diff(want, w.begun); diff != "" {
		t.Errorf("rollouts (-want +got):\n%s", diff)
	}
	if last := w.last(); last.State != RolledBack || !strings.Contains(last.Summary, "Error rate 12 %") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestPlanLeavesAloneWhatItHasNotChanged(t *testing.T) {
	t.Parallel()
	w := &planWorld{fails: "production student-service", runs: "configuration-service"}
	env := w.environment()
	in := plan()
	in.Gate = false
	env.ExecuteWorkflow(RolloutPlan, in)
	if last := w.last(); len(w.begun) != 4 || last.State != RolledBack {
		t.Errorf("began %v, recorded %s: %s", w.begun, last.State, last.Summary)
	}
}

func TestAbortOfAPlan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after time.Duration
		begun int
	}{"in staging": {15 * time.Second, 3}, "at the gate": {time.Hour, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &planWorld{}
			env := w.environment()
			env.RegisterDelayedCallback(func() {
				env.UpdateWorkflowNoRejection(AbortUpdate, "1", t, Decision{User: "meera", Reason: "wrong build"})
			}, c.after)
			env.ExecuteWorkflow(RolloutPlan, plan())
			if last := w.last(); last.State != Aborted || !strings.Contains(last.Summary, "Aborted by meera: wrong build") || len(w.begun) != c.begun {
				t.Errorf("began %v, recorded %s: %s", w.begun, last.State, last.Summary)
			}
		})
	}
}

func TestPlanLeavesOutWhatAnEnvironmentDoesNotRun(t *testing.T) {
	t.Parallel()
	w := &planWorld{}
	env := w.environment()
	in := plan()
	in.Gate, in.Services = false, append(in.Services[:1], rollout.Part{Service: rollout.Registry, Release: "/srv/eureka-server"})
	env.ExecuteWorkflow(RolloutPlan, in)
	want := []string{"staging student-service", "production eureka-server", "production student-service"}
	if diff := cmp.Diff(want, w.begun); diff != "" || env.GetWorkflowError() != nil {
		t.Errorf("%v, began (-want +got):\n%s", env.GetWorkflowError(), diff)
	}
	if record := string(w.last().Result); !strings.Contains(record, "eureka-server in staging") {
		t.Errorf("the record does not say what was left out: %s", record)
	}
}
