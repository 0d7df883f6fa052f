package rollout

import (
	"context"
	"fmt"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/temporalclient"
)

// SupersedeInput says whose rollout takes the place of the one under way.
type SupersedeInput struct {
	Service
	// Update and Decision are what the one under way is told.
	Update   string
	Decision any
}

// SupersedeRollout tells the rollout of a service that is under way to end, and returns when it has ended: its release has no traffic and no
// instances any more. One that has gone too far to be put back is let end as it does.
func (a *Activities) SupersedeRollout(ctx context.Context, in SupersedeInput) error {
	id, told := rollout.WorkflowID(in.Environment, in.Service.Service), ""
	return repeat(ctx, 0, func() (now Progress, err error) {
		described, err := a.Temporal.DescribeWorkflowExecution(ctx, id, "")
		if temporalclient.NotFound(err) {
			return now, nil
		}
		if err != nil {
			return now, awayError{fmt.Errorf("no answer from Temporal: %w", err)}
		}
		execution := described.GetWorkflowExecutionInfo()
		if execution.GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return now, nil
		}
		if run := execution.GetExecution().GetRunId(); told != run {
			handle, err := a.Temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: id, RunID: run, UpdateName: in.Update,
				Args: []any{in.Decision}, WaitForStage: client.WorkflowUpdateStageCompleted})
			if err == nil {
				err = handle.Get(ctx, nil)
			}
			if err != nil && temporalclient.Unavailable(err) {
				return now, awayError{fmt.Errorf("no answer from Temporal: %w", err)}
			}
			told = run // a refusal says that it ends by itself
		}
		now.WaitingFor = fmt.Sprintf("the rollout of %s in %s that was under way puts everything back", in.Service.Service, in.Environment)
		return now, nil
	})
}
