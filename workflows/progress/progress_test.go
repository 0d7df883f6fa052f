package progress

import (
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/workflow"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

func TestDetailsSayWhatSomebodyCanDo(t *testing.T) {
	t.Parallel()
	env := temporaltest.Workflow()
	for _, name := range []string{"BeginOperation", "RecordOperation"} {
		env.RegisterActivityWithOptions(func(operation.Record) error { return nil }, activity.RegisterOptions{Name: name})
	}
	var waiting, after string
	var noted operation.Record
	env.ExecuteWorkflow(func(ctx workflow.Context) error {
		p, err := Start(ctx, Operation{Kind: operation.Rollout, Subject: "student-service", StartedBy: "meera", Summary: "Begins."})
		if err != nil {
			return err
		}
		p.Step("Wait for an approval")
		p.Wait("Waits until noon.", "To let it go on: `sms rollout approve`.", nil)
		waiting = p.markdown()
		before := p.Record().Revision
		p.Note(map[string]int{"weight": 10})
		noted = p.Record()
		if noted.Revision <= before {
			t.Error("what was noted is not newer")
		}
		if err := workflow.Sleep(ctx, time.Second); err != nil {
			return err
		}
		p.Done("approved by meera")
		after = p.markdown()
		return p.End(operation.Succeeded, "Done.", nil)
	})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"**waiting** · Waits until noon.", "To let it go on: `sms rollout approve`.", "1. ▶ Wait for an approval", "started by meera"} {
		if !strings.Contains(waiting, words) {
			t.Errorf("%q does not say %q", waiting, words)
		}
	}
	if strings.Contains(after, "To let it go on") || !strings.Contains(after, "1. ✔ Wait for an approval (1.0 s): approved by meera") {
		t.Errorf("after the step: %q", after)
	}
	if !strings.Contains(string(noted.Result), `"outcome":{"weight":10}`) {
		t.Errorf("noted: %s", noted.Result)
	}
}
