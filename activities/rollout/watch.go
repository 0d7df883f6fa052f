package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// BrokenType: the release breaks a rule. The message says which, and by how much.
const BrokenType = "RuleBroken"

// JudgeRelease fails with NotReadyType when a release that was ready no longer is. Rollouts use it that began before there was an
// analysis.
func (a *Activities) JudgeRelease(ctx context.Context, in AwaitInput) error {
	observed, err := a.Target.Status(ctx, in.Environment, in.Service.Service)
	if err != nil {
		return err
	}
	if why := rollout.Soured(observed, in.Release, in.Replicas); why != "" {
		return notReady(why)
	}
	return nil
}

// WatchInput says which release to watch, by what rules, and since when.
type WatchInput struct {
	AwaitInput
	Stable string
	Rules  []rollout.Rule
	// Minimum is how many requests the release must have answered before it can pass.
	Minimum int
	// From is what gateways had counted when the release got its present share of the traffic.
	From rollout.Reading
	// Since is when that was, by Temporal's clock.
	Since time.Time
}

// Analysis is how a release does.
type Analysis struct {
	Verdict  rollout.Verdict   `json:"verdict"`
	Findings []rollout.Finding `json:"findings,omitempty"`
	// Unread says why there is nothing to judge by.
	Unread string `json:"unread,omitempty"`
}

// String says it in one line.
func (a Analysis) String() string {
	if a.Unread != "" {
		return a.Unread
	}
	var b strings.Builder
	for i, f := range a.Findings {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s %s", f.Rule, f.Detail)
	}
	return b.String()
}

// AnalyseRelease judges a release by what gateways have counted of it since the window began. What cannot be read is inconclusive.
// It fails, and cannot be mended by trying again, when an instance is no longer well or a rule is broken. While the target does not
// answer it fails too, to be tried again: only a broken rule is known then.
func (a *Activities) AnalyseRelease(ctx context.Context, in WatchInput) (Analysis, error) {
	analysis, _, err := a.look(ctx, in, in.age(ctx)())
	return analysis, err
}

// age tells how long ago the window began. It compares times of Temporal's clock, and what has passed since an activity began: this
// machine's clock may be wrong.
func (in WatchInput) age(ctx context.Context) func() time.Duration {
	began, before := time.Now(), activity.GetInfo(ctx).StartedTime.Sub(in.Since)
	return func() time.Duration { return before + time.Since(began) }
}

// look is AnalyseRelease, and tells which instances it has seen.
func (a *Activities) look(ctx context.Context, in WatchInput, window time.Duration) (Analysis, []target.Instance, error) {
	observed, away := a.observe(ctx, in.Service)
	if away == nil {
		if why := rollout.Soured(observed, in.Release, in.Replicas); why != "" {
			return Analysis{Verdict: rollout.Broken}, observed.Instances, notReady(why)
		}
	}
	analysis, err := a.judge(ctx, in, window)
	if err == nil {
		err = away
	}
	return analysis, observed.Instances, err
}

// judge is AnalyseRelease by what gateways have counted alone.
func (a *Activities) judge(ctx context.Context, in WatchInput, window time.Duration) (Analysis, error) {
	var now rollout.Reading
	var memory map[string]float64
	var queried map[string]map[string]rollout.Queried
	var reading errgroup.Group // at once: a look takes no longer than the longest
	reading.Go(func() (err error) { now, err = a.readTraffic(ctx, in.Service, a.Prometheus.MinWindow); return err })
	reading.Go(func() (err error) {
		memory, err = a.readMemory(ctx, in.Service, in.Release, a.Prometheus.MinWindow)
		return err
	})
	reading.Go(func() error { queried = a.Prometheus.Query(ctx, in, window); return nil })
	if err := reading.Wait(); err != nil {
		return Analysis{Verdict: rollout.Inconclusive, Unread: err.Error()}, nil
	}
	of := func(release string) rollout.Sample {
		return rollout.Sample{Counts: rollout.Window(in.From, now, release), Memory: memory[release], Queried: queried[release]}
	}
	verdict, findings := rollout.Analyse(in.Rules, of(in.Release), of(in.Stable), in.Minimum)
	analysis := Analysis{Verdict: verdict, Findings: findings}
	if verdict == rollout.Broken {
		return analysis, broken(findings)
	}
	return analysis, nil
}

// watchInterval is the pause between two looks at the metrics.
const watchInterval = time.Second

// WatchRelease analyses a release again and again while it has traffic, and sends it requests of its own. It returns when it is
// cancelled, which is its good end, or fails as AnalyseRelease does. With conclusive it returns once the analysis has passed.
func (a *Activities) WatchRelease(ctx context.Context, in WatchInput, conclusive bool) (Analysis, error) {
	stop := a.Probes.start(ctx, in, a.doors(ctx, in))
	defer stop()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	age := in.age(ctx)
	activity.RecordHeartbeat(ctx, Progress{Watching: "the first look"})
	for {
		analysis, instances, err := a.look(ctx, in, age())
		now := Progress{Watching: analysis.String(), Instances: instances, Analysis: &analysis}
		_, verdict := errors.AsType[*temporal.ApplicationError](err)
		if err != nil && !verdict { // somebody is away
			now.Watching = err.Error()
		}
		activity.RecordHeartbeat(ctx, now)
		if verdict || err == nil && conclusive && analysis.Verdict == rollout.Passed {
			return analysis, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return analysis, ctx.Err()
		}
	}
}
