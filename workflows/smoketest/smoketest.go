// Package smoketest is the workflow that asks whether an environment works.
package smoketest

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/progress"
)

// FailedType is the type of the error of a SmokeTest with a failed check.
const FailedType = "SmokeTestFailed"

var runOptions = workflow.ActivityOptions{
	StartToCloseTimeout: 3 * time.Minute, // a report is there by then, or the worker has died
	HeartbeatTimeout:    20 * time.Second,
	WaitForCancellation: true,
	// Only the loss of a worker repeats a run: a check that fails is a report.
	RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second, MaximumAttempts: 5},
}

var acts *activities.Activities

// Input says what to test, and for whom.
type Input struct {
	activities.Input
	StartedBy string `json:"startedBy"`
}

// SmokeTest makes every check once and reports. It fails when a check did.
func SmokeTest(ctx workflow.Context, in Input) (activities.Report, error) {
	// 1. Begin the record.
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.SmokeTest, Environment: in.Environment, Subject: in.Target(), StartedBy: in.StartedBy, Input: in,
		Summary: "Waiting to test " + in.Target(),
	})
	if err != nil {
		return activities.Report{}, p.EndFailed(err, nil)
	}

	// 2. Make the checks.
	p.Step("Test " + in.Target())
	report, err := Run(ctx, in.Input)
	if err != nil {
		return report, p.EndFailed(err, nil)
	}

	// 3. Report.
	if !report.Passed {
		return report, p.EndFailed(checkFailed(report), report)
	}
	return report, p.End(operation.Succeeded, report.Summary(), report)
}

// Run makes the checks, as a step of any workflow. A report with failed checks is no error.
func Run(ctx workflow.Context, in activities.Input) (activities.Report, error) {
	options := runOptions
	options.Summary = "smoke test of " + in.Target()
	var report activities.Report
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.RunSmokeTest, in).Get(ctx, &report)
	return report, err
}

func checkFailed(report activities.Report) error {
	return temporal.NewNonRetryableApplicationError(report.Summary(), FailedType, nil)
}

// WorkflowID is the id of a smoke test that is started at a time.
func WorkflowID(target string, at time.Time) string {
	return "smoke-test/" + target + "/" + at.UTC().Format(time.RFC3339)
}

// ScheduledWorkflowID is what a schedule calls the smoke tests of an environment, before the time, which Temporal appends.
func ScheduledWorkflowID(environment string) string { return "smoke-test/" + environment + "/hourly" }

// ScheduleID names the schedule that tests an environment every hour.
func ScheduleID(environment string) string { return "smoke-" + environment + "-hourly" }
