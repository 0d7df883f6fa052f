package ops

import (
	"context"
	"fmt"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient"
)

// cancel asks the workflow of an operation to end. It does so in its own time: what it has begun is cleaned up first.
func (s *Service) cancel(ctx context.Context, id string, kinds ...operation.Kind) (*operationOutput, error) {
	record, activity, err := s.read(ctx, id, kinds...)
	if err != nil {
		return nil, err
	}
	if record.Ended() {
		return nil, server.Conflict(fmt.Sprintf("%s %s has ended already: %s", record.Kind, record.ID, record.State))
	}
	callCtx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	err = s.temporal.CancelWorkflow(callCtx, record.WorkflowID, record.RunID)
	if temporalclient.NotFound(err) {
		return nil, server.Conflict(fmt.Sprintf("%s %s has just ended", record.Kind, record.ID))
	}
	if err != nil {
		return nil, temporalProblem(fmt.Errorf("cancel %s: %w", record.WorkflowID, err))
	}
	out := &operationOutput{Body: present(record)}
	out.Body.Activity = activity
	return out, nil
}
