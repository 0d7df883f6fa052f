// Package rollout is the workflow that replaces the release of a service while it serves.
package rollout

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	smoke "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/progress"
	"github.com/school-sms/sms/workflows/smoketest"
)

// States in which a rollout may end, besides succeeded and failed (which changed nothing).
const (
	RolledBack = "rolled-back"
	Aborted    = "aborted"
	Superseded = "superseded"
)

var (
	// The target and the registry answer at once or are away; a rollout waits for them as long as it takes.
	callTimeout = 30 * time.Second
	callRetry   = temporal.RetryPolicy{InitialInterval: 500 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second}
	// Waiting activities report within this time, or their worker has died.
	waitHeartbeat = 10 * time.Second
	goneTimeout   = 10 * time.Minute
	// The janitor comes again, and need not wait long for who is away.
	janitorPatience = time.Minute
	// settle is how long gateways take at most to learn of an instance and to probe it: a watch, and one probe each second.
	settle = 3 * time.Second
)

var acts *activities.Activities

// Outcome is what a rollout reports of itself.
type Outcome struct {
	// From and To are the digests of the releases.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Weight is the percentage of traffic that the new release has now.
	Weight int           `json:"weight"`
	Reason string        `json:"reason,omitempty"`
	Smoke  *smoke.Report `json:"smokeTest,omitempty"`
	// Decisions are what people decided while it ran.
	Decisions []Decision `json:"decisions,omitempty"`
	// Backups are the verified ones that it has taken before it migrated.
	Backups []string `json:"backups,omitempty"`
}

// Rollout replaces the release of one service in one environment. Every end but the good one is an error that says which
// end it is and why; the outcome then says how far it had come.
func Rollout(ctx workflow.Context, in rollout.Request) (Outcome, error) {
	in = in.WithDefaults()
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.Rollout, Environment: in.Environment, Subject: in.Service, StartedBy: in.RequestedBy, Input: in,
		Summary: "Begins.",
	})
	if err != nil {
		return Outcome{}, p.EndFailed(err, nil)
	}
	if err := in.Err(); err != nil {
		return Outcome{}, first(p.End(operation.Failed, err.Error(), nil), refused(err))
	}
	r := &run{Request: in, Progress: p, service: activities.Service{Environment: in.Environment, Service: in.Service}}
	if in.Converge {
		return r.outcome, r.converge(ctx)
	}
	forward, cancel := workflow.WithCancel(ctx)
	if err := r.listen(ctx, cancel); err != nil {
		return r.outcome, r.EndFailed(err, nil)
	}
	err = r.forward(forward)
	if err == nil {
		err = forward.Err() // an abort that came with the last step
	}
	if err != nil {
		return r.outcome, r.back(ctx, err)
	}
	return r.outcome, r.finish(ctx)
}

// run is one rollout.
type run struct {
	rollout.Request
	*progress.Progress
	service activities.Service
	stable  target.Deployment
	beside  int // how many new instances there are to be
	outcome Outcome
	fence   int64
	// touched is set once there is something to put back.
	touched bool
	// contracts says that contract steps wait for the end of the stable release.
	contracts bool
	control
}

// forward goes up to the point where the new release has all traffic and has proven itself.
func (r *run) forward(ctx workflow.Context) error {
	// 1. Know the release by its content, and what runs, to come back to it.
	resolve := r.resolve
	if r.Rollback {
		resolve = r.resolveLastGood
	}
	if err := resolve(ctx); err != nil {
		return err
	}
	if r.stable.Release == r.outcome.To {
		return nil
	}

	if err := r.prove(ctx); err != nil {
		return err
	}
	if err := r.thaw(ctx); err != nil {
		return err
	}
	if err := r.expand(ctx); err != nil {
		return err
	}

	// 2. Hold traffic where it is, and start the new instances beside it: all of them, or the first.
	r.touched, r.beside = true, r.stable.Replicas
	if r.rolling(ctx) {
		r.beside = 1
	}
	r.Step(fmt.Sprintf("Start %d × %s without traffic", r.beside, short(r.outcome.To)))
	if err := r.shift(ctx, 0); err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	r.Done("ready and registered")

	if r.Rollback {
		r.Step("Give it all traffic")
		return r.shift(ctx, 100)
	}

	// 3. Prove it before it gets traffic, unless its instances share a door: then they have it already.
	if rollout.SharesDoor(r.Service) {
		r.Skip("Smoke test before traffic, and move traffic in steps", "its instances share one door from their start")
	} else {
		in := smoke.Input{Environment: r.Environment, Service: r.Service, Release: r.outcome.To}
		if err := r.smoke(ctx, "Smoke test before traffic", in); err != nil {
			return err
		}
	}
	// 4. Move traffic over.
	if err := r.move(ctx); err != nil {
		return err
	}

	// 5. Prove it through the door.
	return r.smoke(ctx, "Smoke test through the gateway", smoke.Input{Environment: r.Environment})
}

// resolve imports the release that was asked for, and reads what runs.
func (r *run) resolve(ctx workflow.Context) error {
	r.Step("Import the release")
	var release target.Release
	if err := call(ctx, acts.ImportRelease, activities.ImportInput{Service: r.Service, Release: r.Release}, &release); err != nil {
		return err
	}
	r.outcome.To = release.Digest
	r.Done(short(release.Digest))
	return r.observe(ctx)
}

// resolveLastGood reads what runs, and looks up what was good before it.
func (r *run) resolveLastGood(ctx workflow.Context) error {
	if err := r.observe(ctx); err != nil {
		return err
	}
	r.Step("Look up the last good release")
	if err := call(ctx, acts.FindLastGood, activities.CurrentInput{Service: r.service, Release: r.stable.Release}, &r.outcome.To); err != nil {
		return err
	}
	r.Done(short(r.outcome.To))
	return nil
}

func (r *run) observe(ctx workflow.Context) error {
	r.Step("Read what runs")
	var observed target.Observed
	if err := call(ctx, acts.ObserveTarget, r.service, &observed); err != nil {
		return err
	}
	r.stable = observed.Tracks[target.Stable]
	r.outcome.From = r.stable.Release
	if r.stable.Replicas == 0 {
		return fmt.Errorf("%s does not run in %s: there is nothing to replace", r.Service, r.Environment)
	}
	r.Done(fmt.Sprintf("%d × %s", r.stable.Replicas, short(r.stable.Release)))
	return nil
}

// finish makes the new release the stable one and drains the old. There is no way back from here, so it is not
// cancelled, and waits for a target that is away.
func (r *run) finish(ctx workflow.Context) error {
	r.settled = true
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if r.touched {
		// 6. The new release is stable now; the old instances drain.
		r.Step(fmt.Sprintf("Drain %s", short(r.outcome.From)))
		if err := r.ensure(ctx, target.Stable, r.outcome.To, r.stable.Replicas); err != nil {
			return r.lost(err)
		}
		if err := r.removeCanary(ctx); err != nil {
			return r.lost(err)
		}
		if err := await(ctx, acts.AwaitGone, r.instances(r.outcome.From), goneTimeout); err != nil {
			return r.lost(err)
		}
		if err := r.clear(ctx); err != nil {
			return r.lost(err)
		}
		r.Done("gone")
		r.outcome.Weight = 100
		if err := r.promote(ctx); err != nil {
			return r.lost(err)
		}
		migrated := r.contract(ctx)
		return r.End(operation.Succeeded, fmt.Sprintf("%s runs %s.%s", r.Service, short(r.outcome.To), migrated), r.outcome)
	}
	migrated := r.contract(ctx)
	return r.End(operation.Succeeded, fmt.Sprintf("%s runs %s already: nothing to do.%s", r.Service, short(r.outcome.To), migrated), r.outcome)
}

// promote remembers that the new release is known to be good.
func (r *run) promote(ctx workflow.Context) error {
	if !has(ctx, "promotion") {
		return nil // the rollout began before that was remembered
	}
	return call(ctx, acts.PromoteRelease, rollout.Promotion{Operation: r.ID(), Environment: r.Environment, Service: r.Service,
		Release: r.outcome.To, Replaced: r.outcome.From, Rollback: r.Rollback, PromotedBy: r.RequestedBy}, nil)
}

// back puts everything as it was: traffic first, then the instances; it ends once that was read back.
func (r *run) back(ctx workflow.Context, cause error) error {
	r.settled, r.failed = true, true
	state, reason := RolledBack, why(cause)
	if temporal.IsCanceledError(cause) {
		state, reason = Aborted, "cancelled"
		switch {
		case r.superseded:
			state, reason = Superseded, fmt.Sprintf("superseded by %s", r.abort.Reason)
		case r.abort != nil:
			reason = fmt.Sprintf("aborted by %s: %s", r.abort.User, r.abort.Reason)
		}
	}
	r.outcome.Reason = reason
	r.Fail(reason)
	if !r.touched {
		if state == RolledBack {
			state = operation.Failed
		}
		return first(r.End(state, fmt.Sprintf("Nothing was changed: %s.", reason), r.outcome), ended(state, reason))
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	r.Step("Put traffic back to " + short(r.stable.Release))
	if err := r.shift(ctx, 0); err != nil {
		return r.lost(err)
	}
	r.Step("Remove " + short(r.outcome.To))
	if err := r.removeCanary(ctx); err != nil {
		return r.lost(err)
	}
	if err := await(ctx, acts.AwaitGone, r.instances(r.outcome.To), goneTimeout); err != nil {
		return r.lost(err)
	}
	if err := r.clear(ctx); err != nil {
		return r.lost(err)
	}
	r.Done("gone")
	summary := fmt.Sprintf("%s stays on %s: %s.", r.Service, short(r.stable.Release), reason)
	return first(r.End(state, summary, r.outcome), ended(state, reason))
}

// lost ends a rollout that may not act any more.
func (r *run) lost(err error) error {
	r.Fail(why(err))
	summary := fmt.Sprintf("Ended half way: %s.", why(err))
	return first(r.End(operation.Failed, summary, r.outcome), ended(operation.Failed, why(err)))
}

// next is the fence of the next write: higher than all before, in this rollout and in those before it.
func (r *run) next(ctx workflow.Context) int64 {
	r.fence = max(r.fence+1, workflow.Now(ctx).UnixNano())
	return r.fence
}

func (r *run) shift(ctx workflow.Context, weight int) error {
	in := activities.TrafficInput{Service: r.service, Split: rollout.Split(r.stable.Release, r.outcome.To, weight), Fence: r.next(ctx)}
	if err := call(ctx, acts.SetTraffic, in, nil); err != nil {
		return err
	}
	r.outcome.Weight = weight
	r.Say(r.standing(), r.Record().Summary, r.outcome)
	return nil
}

func (r *run) clear(ctx workflow.Context) error {
	return call(ctx, acts.SetTraffic, activities.TrafficInput{Service: r.service, Fence: r.next(ctx)}, nil)
}

func (r *run) ensure(ctx workflow.Context, track, digest string, replicas int) error {
	return call(ctx, acts.EnsureDeployment, target.Deployment{Environment: r.Environment, Service: r.Service, Track: track,
		Release: digest, Replicas: replicas, Fence: r.next(ctx)}, nil)
}

func (r *run) removeCanary(ctx workflow.Context) error {
	return call(ctx, acts.RemoveTrack, activities.RemoveInput{Service: r.service, Track: target.Canary, Fence: r.next(ctx)}, nil)
}

func (r *run) instances(digest string) activities.AwaitInput {
	return activities.AwaitInput{Service: r.service, Release: digest, Replicas: r.beside, Within: r.ReadyWithin}
}

func (r *run) smoke(ctx workflow.Context, step string, in smoke.Input) error {
	r.Step(step)
	report, err := smoketest.Run(ctx, in)
	if err != nil {
		return err
	}
	r.outcome.Smoke = &report
	if !report.Passed {
		return errors.New(report.Summary())
	}
	r.Done(report.Summary())
	return nil
}
