// Package operation keeps the records of operations, on behalf of their workflows.
package operation

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/operation"
)

// HeldType is the type of the error that refuses an operation because another has its lock. Its detail is the
// holder's operation.Record.
const HeldType = "OperationHeld"

// Liveness tells whether a workflow still runs.
type Liveness interface {
	// Running reports whether the run is open. A workflow that nobody knows does not run; that is no error.
	Running(ctx context.Context, workflowID, runID string) (bool, error)
}

// Activities write operation records.
type Activities struct {
	Store    *operation.Store
	Liveness Liveness
}

// BeginOperation records a new operation and takes its lock. A holder whose workflow no longer runs is recorded as
// failed and replaced. A holder that runs is a HeldType error, which is not retried.
func (a *Activities) BeginOperation(ctx context.Context, r operation.Record) error {
	if err := a.Store.AbandonBefore(ctx, r, operation.Lost); err != nil {
		return err
	}
	for {
		err := a.Store.Begin(ctx, r)
		held, ok := errors.AsType[*operation.HeldError](err)
		if !ok {
			return err
		}
		running, err := a.Liveness.Running(ctx, held.Holder.WorkflowID, held.Holder.RunID)
		if err != nil {
			return fmt.Errorf("ask whether %s %s still runs: %w", held.Holder.Kind, held.Holder.ID, err)
		}
		if running {
			return refused(held)
		}
		if err := a.Store.Abandon(ctx, held.Holder.ID, operation.Lost); err != nil {
			return err
		}
	}
}

// RecordOperation writes what an operation has come to.
func (a *Activities) RecordOperation(ctx context.Context, r operation.Record) error {
	return a.Store.Record(ctx, r)
}

// Amendment is what was found out about an operation after it had ended.
type Amendment struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Summary string `json:"summary"`
}

// AmendOperation changes the outcome of an operation that has ended.
func (a *Activities) AmendOperation(ctx context.Context, in Amendment) error {
	return a.Store.Amend(ctx, in.ID, in.State, in.Summary)
}

func refused(held *operation.HeldError) error {
	return temporal.NewApplicationErrorWithOptions("refused: "+held.Error(), HeldType,
		temporal.ApplicationErrorOptions{NonRetryable: true, Cause: held, Details: []any{held.Holder}})
}
