package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	common "go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

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

// action is what a schedule does. It is the platform's, not the operator's.
func (d Definition) action() *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{ID: d.WorkflowID, Workflow: d.Workflow, Args: []any{d.Input}, TaskQueue: temporalclient.TaskQueue, StaticSummary: d.Summary}
}

// does reports whether an action, as Temporal describes it, has the definition's input.
func (d Definition) does(described client.ScheduleAction) bool {
	action, ok := described.(*client.ScheduleWorkflowAction)
	if !ok || len(action.Args) != 1 {
		return false
	}
	has, ok := action.Args[0].(*common.Payload)
	wants, err := converter.GetDefaultDataConverter().ToPayload(d.Input)
	return ok && err == nil && proto.Equal(has, wants)
}

// Ensure creates a schedule that is missing. One that is there is left as it is: an operator may have changed it.
func Ensure(ctx context.Context, c client.Client, d Definition) (created bool, err error) {
	_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: d.ID, Spec: d.Cron.Spec(d.Zone, time.Now()), Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchUp, Action: d.action(),
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create schedule %s: %w", d.ID, err)
	}
	return true, nil
}

// Refresh sees to the changes of the zone's clock that have come near since a schedule was made or refreshed, and that it does what this
// version of the platform means by it. Expression, zone and all else stay as an operator has set them. A schedule that is not
// there, or that was changed elsewhere to what Spec does not make, is left alone.
func Refresh(ctx context.Context, c client.Client, d Definition) (changed bool, err error) {
	handle := c.ScheduleClient().GetHandle(ctx, d.ID)
	err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(current client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		next := current.Description.Schedule
		expression, zone := Read(next.Spec)
		cron, err := ParseCron(expression)
		if err != nil || CheckZone(zone) != nil {
			return nil, temporal.ErrSkipScheduleUpdate
		}
		wanted := cron.Spec(zone, time.Now())
		has, _ := corrections(next.Spec)
		if needs, _ := corrections(&wanted); slices.Equal(has, needs) && d.does(next.Action) {
			return nil, temporal.ErrSkipScheduleUpdate
		}
		wanted.StartAt, wanted.EndAt, wanted.Jitter = next.Spec.StartAt, next.Spec.EndAt, next.Spec.Jitter
		next.Spec, next.Action, changed = &wanted, d.action(), true
		return &client.ScheduleUpdate{Schedule: &next}, nil
	}})
	if err != nil && !temporalclient.NotFound(err) {
		return false, fmt.Errorf("refresh schedule %s: %w", d.ID, err)
	}
	return changed, nil
}
