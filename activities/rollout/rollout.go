// Package rollout is what a rollout does to its target and to traffic. Every activity states what should be, so that
// one that runs twice, or late, changes nothing wrong.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// Types of the errors that a retry does not mend.
const (
	// ReleaseUnusableType: the target cannot take the release.
	ReleaseUnusableType = "ReleaseUnusable"
	// TakenOverType: a newer operation acts on the service, this one must stop.
	TakenOverType = "TakenOver"
	// NotReadyType: the release did not become, or stay, ready. The message says why.
	NotReadyType = "NotReady"
)

// broken says which rule is.
func broken(findings []rollout.Finding) error {
	for _, f := range findings {
		if f.Verdict == rollout.Broken {
			return temporal.NewNonRetryableApplicationError(f.Rule+" "+f.Detail, BrokenType, nil)
		}
	}
	return nil
}

// pollInterval is the pause between two looks at the target.
const pollInterval = 250 * time.Millisecond

// Activities act on one target and on the registry's splits.
type Activities struct {
	Target  target.Target
	Traffic *discovery.Client
	// User is who the registry knows the rollouts as.
	User string
	// HTTP reads the gateways' metrics.
	HTTP       *http.Client
	Probes     Probes
	Promotions Promotions
	// Temporal reaches the other rollouts.
	Temporal client.Client
	Freezes  FreezesFile
	// Prometheus answers the queries of rules.
	Prometheus Prometheus
	// ProveIn is the environment that must run a release before production may. Empty: none.
	ProveIn string
	// BackedUp are the databases of which backups can be taken.
	BackedUp []string
	Backups  Backups
	Liveness Liveness
}

// ImportInput names a release as the operator did.
type ImportInput struct{ Service, Release string }

// ImportRelease makes a release known to the target by its content. One that is named by that is known, or the target will say so.
func (a *Activities) ImportRelease(ctx context.Context, in ImportInput) (target.Release, error) {
	if rollout.IsDigest(in.Release) {
		return target.Release{Digest: in.Release}, nil
	}
	release, err := a.Target.Import(ctx, in.Service, in.Release)
	if errors.Is(err, target.ErrNotFound) {
		return release, unusable(err)
	}
	return release, err
}

// Service names a service of an environment.
type Service struct{ Environment, Service string }

// ObserveTarget reads what runs.
func (a *Activities) ObserveTarget(ctx context.Context, in Service) (target.Observed, error) {
	observed, err := a.Target.Status(ctx, in.Environment, in.Service)
	if errors.Is(err, target.ErrNotFound) {
		return observed, unusable(err)
	}
	return observed, err
}

// EnsureDeployment asks the target for a deployment.
func (a *Activities) EnsureDeployment(ctx context.Context, d target.Deployment) error {
	err := a.Target.Ensure(ctx, d)
	if errors.Is(err, target.ErrNotFound) {
		return unusable(err)
	}
	return fenced(err)
}

// RemoveInput names a track to end.
type RemoveInput struct {
	Service
	Track string
	Fence int64
}

// RemoveTrack ends a track.
func (a *Activities) RemoveTrack(ctx context.Context, in RemoveInput) error {
	return fenced(a.Target.Remove(ctx, in.Environment, in.Service.Service, in.Track, in.Fence))
}

// AwaitInput says which instances to wait for.
type AwaitInput struct {
	Service
	Release  string
	Replicas int
	// Within bounds the wait of one attempt. It is measured by the worker's monotonic clock, and begins anew when the target or the
	// registry comes back: that one of them was away says nothing of the release.
	Within time.Duration
}

// AwaitReady returns when all instances are ready and registered. It fails with NotReadyType as soon as it is clear
// that they will not be, or after Within.
func (a *Activities) AwaitReady(ctx context.Context, in AwaitInput) error {
	return a.poll(ctx, in.Service, in.Within, func(observed target.Observed) (waiting string, err error) {
		ready, waiting, failed := rollout.Judge(observed, in.Release, in.Replicas)
		if failed != "" {
			return "", notReady(failed)
		}
		if !ready {
			return waiting, nil
		}
		up, err := a.up(ctx, in.Service, in.Release)
		if err != nil {
			return "", err
		}
		if len(up) < in.Replicas {
			return fmt.Sprintf("%d of %d instances are registered", len(up), in.Replicas), nil
		}
		return "", nil
	})
}

// AwaitGone returns when no instance of the release is left, on the target and in the registry. What is registered although the target
// runs nothing of the release has died without a farewell, and is taken out: its lease may last for minutes.
func (a *Activities) AwaitGone(ctx context.Context, in AwaitInput) error {
	return a.poll(ctx, in.Service, 0, func(observed target.Observed) (waiting string, err error) {
		if n := len(observed.Of(in.Release)); n > 0 {
			return fmt.Sprintf("%d instances still drain", n), nil
		}
		left, err := a.up(ctx, in.Service, in.Release)
		if err != nil || len(left) == 0 {
			return "", err
		}
		for _, i := range left {
			if err := a.Traffic.Deregister(ctx, discovery.App(in.Service.Service, in.Environment), i.id); err != nil {
				return "", awayError{err}
			}
		}
		return fmt.Sprintf("%d instances are still registered", len(left)), nil
	})
}

// TrafficInput is a split to put in force.
type TrafficInput struct {
	Service
	// Split by digest; empty: all instances count alike.
	Split discovery.Split
	Fence int64
}

// SetTraffic stores a split with the registry, from where it reaches every gateway within a second.
func (a *Activities) SetTraffic(ctx context.Context, in TrafficInput) error {
	app := discovery.App(in.Service.Service, in.Environment)
	if len(in.Split) == 0 {
		return fenced(a.Traffic.ClearSplit(ctx, app, in.Fence))
	}
	return fenced(a.Traffic.SetSplit(ctx, app, in.Split, in.Fence))
}

// observe is ObserveTarget for those who wait or watch: a target that cannot be asked is away.
func (a *Activities) observe(ctx context.Context, of Service) (target.Observed, error) {
	observed, err := a.Target.Status(ctx, of.Environment, of.Service)
	if err != nil {
		err = awayError{fmt.Errorf("the target does not answer: %w", err)}
	}
	return observed, err
}

// Progress is what an activity that waits or watches tells with its heartbeats.
type Progress struct {
	// WaitingFor and Watching say it in words, one of them.
	WaitingFor string `json:"waitingFor,omitempty"`
	Watching   string `json:"watching,omitempty"`
	// Instances are those of the service, of whichever release.
	Instances []target.Instance `json:"instances,omitempty"`
	Analysis  *Analysis         `json:"analysis,omitempty"`
}

// awayError says that somebody who is asked does not answer, which says nothing of the release.
type awayError struct{ error }

// poll looks at a service until nothing is to be waited for, as repeat does.
func (a *Activities) poll(ctx context.Context, of Service, within time.Duration, look func(target.Observed) (waiting string, err error)) error {
	return repeat(ctx, within, func() (Progress, error) {
		observed, err := a.observe(ctx, of)
		if err != nil {
			return Progress{}, err
		}
		waiting, err := look(observed)
		return Progress{WaitingFor: waiting, Instances: observed.Instances}, err
	})
}

// repeat looks until nothing is to be waited for, and tells what it waits for. It fails with NotReadyType when that takes longer than within,
// unless that is 0. The time does not run while somebody who is asked is away.
func repeat(ctx context.Context, within time.Duration, look func() (Progress, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	deadline := &time.Timer{}
	if within > 0 {
		deadline = time.NewTimer(within)
		defer deadline.Stop()
	}
	for {
		now, err := look()
		if away, is := errors.AsType[awayError](err); is {
			now.WaitingFor = away.Error()
			if within > 0 {
				deadline.Reset(within)
			}
		} else if now.WaitingFor == "" || err != nil {
			return err
		}
		activity.RecordHeartbeat(ctx, now)
		select {
		case <-tick.C:
		case <-deadline.C:
			return notReady("not ready in time: " + now.WaitingFor)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func unusable(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), ReleaseUnusableType, nil)
}

func notReady(why string) error {
	return temporal.NewNonRetryableApplicationError(why, NotReadyType, nil)
}

func fenced(err error) error {
	if errors.Is(err, target.ErrFenced) || errors.Is(err, discovery.ErrFenced) {
		return temporal.NewNonRetryableApplicationError("a newer operation has taken over this service", TakenOverType, nil)
	}
	return err
}
