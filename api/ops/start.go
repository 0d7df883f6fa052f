package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient"
)

// request is an operation to start.
type request struct {
	kind operation.Kind
	// workflowID is the lock of kinds that have one: Temporal refuses a second running workflow of the same id.
	workflowID string
	// workflow is its function, input its argument.
	workflow, input any
	// summary is one line for the Temporal UI.
	summary                         string
	environment, subject, startedBy string
}

// start starts a workflow and records that, so that it is listed, and its lock held, even before a worker takes it up.
// A conflict names who holds the lock.
func (s *Service) start(ctx context.Context, r request, collection string) (*startedOutput, error) {
	run, err := s.startWorkflow(ctx, r)
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(r.input)
	if err != nil {
		return nil, fmt.Errorf("encode the input of %s: %w", r.workflowID, err)
	}
	record := operation.Record{
		ID: operation.ID(r.workflowID, run.GetRunID()), Kind: r.kind, WorkflowID: r.workflowID, RunID: run.GetRunID(),
		Environment: r.environment, Subject: r.subject, State: operation.Running, Summary: "Waiting for a worker.",
		StartedBy: r.startedBy, StartedAt: s.now().UTC().Truncate(time.Microsecond), UpdatedAt: s.now().UTC(), Input: input,
	}
	err = s.store.Begin(ctx, record)
	if held, ok := errors.AsType[*operation.HeldError](err); ok {
		if conflict := s.refuse(ctx, held.Holder); conflict != nil {
			return nil, conflict // and the workflow ends itself for the same reason
		}
	} else if err != nil {
		s.log.Warn("an operation is not listed until its worker records it", "operation", record.ID, "error", err.Error())
	}
	return &startedOutput{Location: collection + "/" + record.ID, Body: present(record)}, nil
}

// startWorkflow starts the workflow, or returns the problem to answer.
func (s *Service) startWorkflow(ctx context.Context, r request) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	for {
		run, err := s.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
			ID: r.workflowID, TaskQueue: temporalclient.TaskQueue, StaticSummary: r.summary,
			WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL, WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			WorkflowExecutionErrorWhenAlreadyStarted: true,
		}, r.workflow, r.input)
		started, running := errors.AsType[*serviceerror.WorkflowExecutionAlreadyStarted](err)
		switch {
		case err == nil:
			return run, nil
		case !running:
			return nil, temporalProblem(fmt.Errorf("start workflow %s: %w", r.workflowID, err))
		}
		holder, err := s.store.Get(ctx, operation.ID(r.workflowID, started.RunId), r.kind)
		if err != nil {
			holder = operation.Record{ID: operation.ID(r.workflowID, started.RunId), Kind: r.kind, Subject: r.subject}
		}
		if !holder.Ended() {
			return nil, conflict(holder)
		}
		// Its end is on record and its workflow about to close: not a conflict that anybody would understand.
		_ = s.temporal.GetWorkflow(ctx, r.workflowID, started.RunId).Get(ctx, nil)
		if ctx.Err() != nil {
			return nil, conflict(holder)
		}
	}
}

// refuse is the conflict with a holder whose workflow still runs; nil when it does not, or when that cannot be said: then
// the new workflow decides.
func (s *Service) refuse(ctx context.Context, holder operation.Record) error {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	running, err := temporalclient.Liveness{Client: s.temporal}.Running(ctx, holder.WorkflowID, holder.RunID)
	if err != nil || !running {
		return nil
	}
	return conflict(holder)
}

func conflict(holder operation.Record) error {
	since := ""
	if !holder.StartedAt.IsZero() {
		since = " since " + holder.StartedAt.UTC().Format(time.RFC3339) + ", started by " + holder.StartedBy
	}
	instead := "wait for it to end"
	if holder.Kind == operation.Rollout {
		instead += ", or supersede it"
	}
	return server.Conflict(fmt.Sprintf("%s %s of %s runs already%s: %s", holder.Kind, holder.ID, holder.Subject, since, instead))
}
