package rollout

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/rollout"
)

// longestWatch bounds one attempt of a watch, which its heartbeats guard; a pause may last long.
const longestWatch = 24 * time.Hour

// soak gives the release its share of the traffic by shift and watches it there for the soak time. When that does not show enough to
// judge by, it waits on, for at most SureWithin, and fails when it still cannot be said that the release is good.
func (r *run) soak(ctx workflow.Context, shift func() error) (activities.Analysis, error) {
	instances := r.instances(r.outcome.To)
	in := activities.WatchInput{AwaitInput: instances, Stable: r.stable.Release, Rules: r.Rules, Minimum: r.Minimum}
	// What was counted before: nothing is moved that could not be watched.
	if err := callWithin(ctx, r.SureWithin, acts.ReadTraffic, r.service, &in.From); err != nil {
		return activities.Analysis{}, err
	}
	if err := shift(); err != nil {
		return activities.Analysis{}, err
	}
	in.Since = workflow.Now(ctx)
	r.soaking, r.skip = true, false
	defer func() { r.soaking = false }()
	if err := r.watch(ctx, in, false, r.Soak); err != nil {
		return activities.Analysis{}, err
	}
	analysis, err := r.analyse(ctx, in)
	if err != nil || analysis.Verdict == rollout.Passed || r.hurried() {
		return analysis, err
	}
	r.Wait("Paused, because it cannot be said that the release is good: "+analysis.String(),
		fmt.Sprintf("`sms rollout skip-step %s --reason …` lets it go on all the same.", r.ID()), nil)
	if err := r.watch(ctx, in, true, r.SureWithin); err != nil {
		return analysis, err
	}
	if analysis, err = r.analyse(ctx, in); err == nil && analysis.Verdict != rollout.Passed && !r.hurried() {
		err = fmt.Errorf("it could not be said within %s that the release is good: %s", r.SureWithin, analysis)
	}
	return analysis, err
}

// watch looks after the release for a time in which it is not paused, or until it is conclusive that it is good, or somebody is in a
// hurry. It fails as soon as the release is not good.
func (r *run) watch(ctx workflow.Context, in activities.WatchInput, conclusive bool, within time.Duration) error {
	watching, stop := workflow.WithCancel(ctx)
	defer stop()
	watched := workflow.ExecuteActivity(lasting(watching, longestWatch), acts.WatchRelease, in, conclusive)
	for left, over := within, false; !over && !watched.IsReady() && !r.hurried(); {
		if r.paused {
			if err := workflow.Await(ctx, func() bool { return watched.IsReady() || !r.paused }); err != nil {
				return err
			}
			continue
		}
		began := workflow.Now(ctx)
		woken, err := workflow.AwaitWithTimeout(ctx, left, func() bool { return watched.IsReady() || r.paused || r.hurried() })
		if err != nil {
			return err
		}
		left -= workflow.Now(ctx).Sub(began)
		over = !woken || left <= 0
	}
	stop()
	err := watched.Get(ctx, nil)
	if err == nil || judged(err) || !temporal.IsCanceledError(err) && !has(ctx, "watch") {
		return err
	}
	return ctx.Err()
}

// judged reports whether a watch failed because of the release. One that was told to end may as well fail because its worker is gone, or
// too busy to be heard, and is then not tried again; that says nothing of the release.
func judged(err error) bool {
	verdict, ok := errors.AsType[*temporal.ApplicationError](err)
	return ok && verdict.NonRetryable()
}

// analyse judges once.
func (r *run) analyse(ctx workflow.Context, in activities.WatchInput) (activities.Analysis, error) {
	var analysis activities.Analysis
	err := call(ctx, acts.AnalyseRelease, in, &analysis)
	return analysis, err
}
