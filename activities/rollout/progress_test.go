package rollout

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"github.com/school-sms/sms/internal/target"
)

// slow is a target whose one instance is not ready, and then does not stay up.
type slow struct {
	target.Target
	told chan struct{} // closed once that was told
}

var digest = "sha256:b"

func (s slow) Status(context.Context, string, string) (target.Observed, error) {
	i := target.Instance{Name: "student-service-2", Release: digest, Failure: "its port is not open"}
	select {
	case <-s.told:
		i.Restarts, i.Failure = 2, "exit status 3"
	default:
	}
	return target.Observed{Instances: []target.Instance{i}}, nil
}

func TestHeartbeatsTellInstances(t *testing.T) {
	t.Parallel()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	acts := &Activities{Target: slow{told: make(chan struct{})}}
	var told []Progress
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var p Progress
		if err := details.Get(&p); err != nil {
			t.Error(err)
		}
		if told = append(told, p); len(told) == 1 {
			close(acts.Target.(slow).told)
		}
	})
	env.RegisterActivity(acts)
	_, err := env.ExecuteActivity(acts.AwaitReady, AwaitInput{Release: digest, Replicas: 1, Within: time.Minute})
	if err == nil {
		t.Error("a release that does not stay up is ready")
	}
	want := Progress{WaitingFor: "0 of 1 instances are ready; student-service-2: its port is not open",
		Instances: []target.Instance{{Name: "student-service-2", Release: digest, Failure: "its port is not open"}}}
	if len(told) == 0 {
		t.Fatal("nothing was told")
	}
	if diff := cmp.Diff(want, told[0]); diff != "" {
		t.Error(diff)
	}
}
