package ops

import (
	"context"
	"encoding/json"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/workflows/progress"
	flow "github.com/school-sms/sms/workflows/rollout"
)

// queryTimeout is how long a worker has to say where an operation stands; then its record answers.
const queryTimeout = 2 * time.Second

// read returns where an operation stands: what its workflow says while it runs, else its record. A record that says
// that a workflow runs which does not is corrected.
func (s *Service) read(ctx context.Context, id string, kinds ...operation.Kind) (operation.Record, *Activity, error) {
	record, err := s.find(ctx, id, kinds...)
	if err != nil || record.Ended() {
		return record, nil, err
	}
	callCtx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	described, err := s.temporal.DescribeWorkflowExecution(callCtx, record.WorkflowID, record.RunID)
	gone := temporalclient.NotFound(err)
	if err != nil && !gone {
		return record, nil, nil // Temporal is away: the record is what is known
	}
	if !gone && described.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
		if live, err := s.ask(ctx, record); err == nil && live.Revision >= record.Revision {
			record = live
		}
		if record.Ended() { // what ran before it ended
			return record, nil, nil
		}
		return record, s.runningPart(callCtx, described), nil
	}
	record, err = s.settle(ctx, record, gone)
	return record, nil, err
}

// one is an operation as it stands, with what runs of it.
func (s *Service) one(ctx context.Context, id string, kinds ...operation.Kind) (Operation, error) {
	record, activity, err := s.read(ctx, id, kinds...)
	if err != nil {
		return Operation{}, err
	}
	o := present(record)
	o.Activity = activity
	var plan flow.PlanOutcome
	if record.Kind != operation.Rollout || record.Ended() || json.Unmarshal(o.Outcome, &plan) != nil {
		return o, nil
	}
	for _, r := range plan.Rollouts {
		if r.State != operation.Running {
			continue
		}
		if part, err := s.one(ctx, r.ID, operation.Rollout); err == nil { // else its record is not there yet
			o.Parts = append(o.Parts, part)
		}
	}
	return o, nil
}

// settle corrects the record of a workflow that has ended.
func (s *Service) settle(ctx context.Context, record operation.Record, gone bool) (operation.Record, error) {
	again, err := s.store.Get(ctx, record.ID, record.Kind)
	if err != nil || again.Ended() { // it ended between two looks
		return again, err
	}
	if !gone {
		if last, err := s.ask(ctx, record); err == nil && last.Ended() {
			return last, s.store.Record(ctx, last)
		} else if err != nil && !temporalclient.NotFound(err) {
			return record, nil // no worker to ask for now
		}
	}
	if err := s.store.Abandon(ctx, record.ID, operation.Lost); err != nil {
		return record, err
	}
	return s.store.Get(ctx, record.ID, record.Kind)
}

// ask asks the workflow itself.
func (s *Service) ask(ctx context.Context, record operation.Record) (operation.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	value, err := s.temporal.QueryWorkflow(ctx, record.WorkflowID, record.RunID, progress.StatusQuery)
	if err != nil {
		return operation.Record{}, err
	}
	var live operation.Record
	return live, value.Get(&live)
}

// runningPart is what an operation does at this moment, itself or by a child workflow such as a backup's drill.
func (s *Service) runningPart(ctx context.Context, described *workflowservice.DescribeWorkflowExecutionResponse) *Activity {
	if activity := activityOf(described); activity != nil {
		return activity
	}
	for _, child := range described.GetPendingChildren() {
		described, err := s.temporal.DescribeWorkflowExecution(ctx, child.GetWorkflowId(), child.GetRunId())
		if err == nil {
			if activity := activityOf(described); activity != nil {
				return activity
			}
		}
	}
	return nil
}

// activityOf is the longest-running activity that is more than a record being written.
func activityOf(described *workflowservice.DescribeWorkflowExecutionResponse) *Activity {
	for _, pending := range described.GetPendingActivities() {
		name := pending.GetActivityType().GetName()
		if name == "RecordOperation" {
			continue
		}
		activity := &Activity{Name: name, Attempt: pending.GetAttempt(), LastFailure: pending.GetLastFailure().GetMessage()}
		var progress map[string]any
		if details := pending.GetHeartbeatDetails(); details != nil && converter.GetDefaultDataConverter().FromPayloads(details, &progress) == nil {
			activity.Progress, _ = json.Marshal(progress)
		}
		return activity
	}
	return nil
}
