package rollout

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// move gives the new release its traffic, and watches it at each step.
func (r *run) move(ctx workflow.Context) error {
	switch {
	case r.rolling(ctx):
		return r.roll(ctx)
	case rollout.SharesDoor(r.Service):
		if !has(ctx, "analysis") {
			return nil
		}
		r.Step(fmt.Sprintf("Watch it for %s", r.Soak))
		return r.watched(r.soak(ctx, func() error { return nil }))
	}
	for _, weight := range r.Weights {
		r.Step(fmt.Sprintf("Give it %d %% of the traffic for %s", weight, r.Soak))
		if !has(ctx, "analysis") {
			if err := r.soakUnmeasured(ctx, weight); err != nil {
				return err
			}
			r.Done("the new instances are well")
			continue
		}
		if err := r.watched(r.soak(ctx, func() error { return r.shift(ctx, weight) })); err != nil {
			return err
		}
	}
	return nil
}

// watched ends a step by what its soak has shown.
func (r *run) watched(analysis activities.Analysis, err error) error {
	if err == nil {
		r.Done(analysis.String())
	}
	return err
}

// rolling is false for rollouts that began before there was a strategy.
func (r *run) rolling(ctx workflow.Context) bool {
	return r.Strategy == rollout.Rolling && !r.Rollback && has(ctx, "strategy")
}

// roll gives the first new instance its share, then starts the next. The old ones stay: there is no way back that would have to wait for
// one to start.
func (r *run) roll(ctx workflow.Context) error {
	for {
		weight := 100 * r.beside / r.stable.Replicas
		r.Step(fmt.Sprintf("Give %d of %d instances their share of the traffic for %s", r.beside, r.stable.Replicas, r.Soak))
		err := r.watched(r.soak(ctx, func() error {
			if rollout.SharesDoor(r.Service) {
				return nil // has it since its start
			}
			return r.shift(ctx, weight)
		}))
		if err != nil || r.beside == r.stable.Replicas {
			return err
		}
		r.beside++
		r.Step(fmt.Sprintf("Start the next, %d × %s", r.beside, short(r.outcome.To)))
		if err := r.begin(ctx); err != nil {
			return err
		}
		r.Done("ready and registered")
	}
}

// begin starts new instances, until there are as many as are to be beside the old ones and gateways know them.
func (r *run) begin(ctx workflow.Context) error {
	if err := r.ensure(ctx, target.Canary, r.outcome.To, r.beside); err != nil {
		return err
	}
	if err := await(ctx, acts.AwaitReady, r.instances(r.outcome.To), r.ReadyWithin); err != nil {
		return err
	}
	return workflow.Sleep(ctx, settle)
}

// soakUnmeasured is how rollouts go that began before there was an analysis.
func (r *run) soakUnmeasured(ctx workflow.Context, weight int) error {
	if err := r.shift(ctx, weight); err != nil {
		return err
	}
	if err := workflow.Sleep(ctx, r.Soak); err != nil {
		return err
	}
	return call(ctx, acts.JudgeRelease, r.instances(r.outcome.To), nil)
}
