package smoketest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"

	operations "github.com/school-sms/sms/activities/operation"
	activities "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/smoketest"
)

func TestASmokeTestReports(t *testing.T) {
	t.Parallel()
	passed := activities.Report{Environment: "production", Passed: true, Checks: []activities.Check{{Name: "the gateway is up", OK: true}}}
	failed := activities.Report{Environment: "production", Checks: []activities.Check{{Name: "the gateway is up", Expected: "an answer", Found: "none"}}}
	for name, test := range map[string]struct {
		report  activities.Report
		err     error
		state   string
		summary string
	}{
		"passed":            {passed, nil, operation.Succeeded, "All 1 checks passed"},
		"failed":            {failed, nil, operation.Failed, "1 of 1 checks failed. the gateway is up: expected an answer, found none."},
		"could not be made": {activities.Report{}, errors.New("read the token"), operation.Failed, "Read the token."},
		"unknown": {activities.Report{}, temporal.NewNonRetryableApplicationError("no gateway", activities.UnknownEnvironmentType, nil),
			operation.Failed, "No gateway."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := temporaltest.Workflow()
			env.RegisterWorkflow(smoketest.SmokeTest)
			env.RegisterActivity(&activities.Activities{})
			env.RegisterActivity(&operations.Activities{})
			var mu sync.Mutex
			var last operation.Record
			env.OnActivity("BeginOperation", mock.Anything, mock.Anything).Return(nil)
			env.OnActivity("RecordOperation", mock.Anything, mock.Anything).Return(func(_ context.Context, r operation.Record) error {
				mu.Lock()
				defer mu.Unlock()
				if r.Revision > last.Revision {
					last = r
				}
				return nil
			})
			env.OnActivity("RunSmokeTest", mock.Anything, mock.Anything).Return(test.report, test.err)
			env.ExecuteWorkflow(smoketest.SmokeTest, smoketest.Input{Input: activities.Input{Environment: "production"}, StartedBy: "meera"})
			if err := env.GetWorkflowError(); (err == nil) != (test.state == operation.Succeeded) {
				t.Errorf("ended with %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if last.State != test.state || !strings.HasPrefix(last.Summary, test.summary) || !last.Ended() || last.Environment != "production" {
				t.Errorf("recorded %s: %q, want %s: %q", last.State, last.Summary, test.state, test.summary)
			}
		})
	}
}
