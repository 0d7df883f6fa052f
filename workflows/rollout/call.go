package rollout

import (
	"errors"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/school-sms/sms/workflows/progress"
)

// Types of the errors that end the workflow as failed, for the Temporal UI and for callers that wait on it.
const (
	refusedType = "RolloutRefused"
	endedType   = "RolloutEnded"
)

// call runs an activity that answers at once, and waits for a target that is away.
func call(ctx workflow.Context, activity, in, out any) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: callTimeout, RetryPolicy: &callRetry})
	return workflow.ExecuteActivity(ctx, activity, in).Get(ctx, out)
}

// callWithin is call for what may stay away only for a time.
func callWithin(ctx workflow.Context, within time.Duration, activity, in, out any) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: callTimeout, ScheduleToCloseTimeout: within, RetryPolicy: &callRetry})
	return workflow.ExecuteActivity(ctx, activity, in).Get(ctx, out)
}

// await runs an activity that waits for up to about within on each attempt.
func await(ctx workflow.Context, activity, in any, within time.Duration) error {
	return workflow.ExecuteActivity(lasting(ctx, within), activity, in).Get(ctx, nil)
}

// lasting are the options of an activity that runs for up to about within on each attempt.
func lasting(ctx workflow.Context, within time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: within + callTimeout, HeartbeatTimeout: waitHeartbeat, RetryPolicy: &callRetry, WaitForCancellation: true,
	})
}

// has reports whether a rollout began with a change of its workflow, which has this name in its history. Those that began before go on without.
func has(ctx workflow.Context, change string) bool {
	return workflow.GetVersion(ctx, change, workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

// runsAlready reports whether a child was not begun because another workflow has its id.
func runsAlready(err error) bool {
	_, runs := errors.AsType[*temporal.ChildWorkflowExecutionAlreadyStartedError](err)
	return runs
}

func refused(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), refusedType, nil)
}

func ended(state, reason string) error {
	return temporal.NewNonRetryableApplicationError(state+": "+reason, endedType, nil)
}

// first is the first error that is one: that an end could not be recorded matters more than the end.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// why is the cause of an error, to go on a sentence with.
func why(err error) string { return strings.TrimSuffix(progress.Reason(err), ".") }

// short is enough of a digest to tell releases apart.
func short(digest string) string {
	const enough = 12
	hash := strings.TrimPrefix(digest, "sha256:")
	return hash[:min(enough, len(hash))]
}
