package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/temporalclient"
)

// catchUp is how late a missed run still happens: a backup missed overnight runs in the morning.
const catchUp = 12 * time.Hour

// Definition is a schedule as the platform makes it.
type Definition struct {
	ID   string
	Cron Cron
	Zone string
	// WorkflowID is what the runs are called; Temporal appends the time.
	WorkflowID string
	// Workflow is its function or name, Input its argument.
	Workflow, Input any
	// Summary is one line for the Temporal UI.
	Summary string
}

// Ensure creates a schedule that is missing. One that is there is left as it is: an operator may have changed it.
func Ensure(ctx context.Context, c client.Client, d Definition) (created bool, err error) {
	_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: d.ID, Spec: d.Cron.Spec(d.Zone), Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchUp,
		Action: &client.ScheduleWorkflowAction{
			ID: d.WorkflowID, Workflow: d.Workflow, Args: []any{d.Input}, TaskQueue: temporalclient.TaskQueue, StaticSummary: d.Summary,
		},
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create schedule %s: %w", d.ID, err)
	}
	return true, nil
}
