package rollout

import (
	"errors"

	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/rollout"
)

// thaw refuses to begin in a freeze. A rollback never asks.
func (r *run) thaw(ctx workflow.Context) error {
	if r.Rollback || !has(ctx, "freeze") {
		return nil
	}
	frozen, err := findFreeze(ctx, r.Request)
	if err != nil || frozen.Until.IsZero() {
		return err
	}
	if r.Thaw == "" {
		return refused(errors.New(frozen.String() + "; --thaw \"why\" overrides that"))
	}
	r.Skip("Wait for the end of a freeze: "+frozen.String(), r.Thaw)
	return nil
}

// findFreeze is the freeze that holds for a rollout now, if one does.
func findFreeze(ctx workflow.Context, of rollout.Request) (frozen activities.Frozen, err error) {
	err = call(ctx, acts.FindFreeze, activities.FreezeInput{Environment: of.Environment, Freezes: of.Freezes, At: workflow.Now(ctx)}, &frozen)
	return frozen, err
}

// prove lets into production only what staging runs, at the end of a rollout that went well.
func (r *run) prove(ctx workflow.Context) error {
	if r.Environment != rollout.Production || r.Rollback || !has(ctx, "prove") {
		return nil
	}
	const step = "Look for it in staging"
	if r.Unproven != "" {
		r.Skip(step, r.Unproven)
		return nil
	}
	r.Step(step)
	var proof string
	if err := call(ctx, acts.ProveRelease, activities.CurrentInput{Service: r.service, Release: r.outcome.To}, &proof); err != nil {
		return err
	}
	r.Done(proof)
	return nil
}
