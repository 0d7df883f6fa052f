package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	activities "github.com/school-sms/sms/activities/rollout"
	smoke "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

const (
	oldRelease = "sha256:aaaaaaaaaaaa1111"
	newRelease = "sha256:bbbbbbbbbbbb2222"
)

// world stands for a target, a registry and ops_db. It fails where a test says so, and keeps what was done to it.
type world struct {
	mu     sync.Mutex
	t      *testing.T
	tracks map[string]target.Deployment
	// instances are what the target shows; tests that do not look at them have none.
	instances []target.Instance
	split     map[string]int
	fence     int64
	log       []string
	records   []operation.Record
	// fail makes the nth call (from 1) of an activity fail.
	fail map[string]int
	// passed answers the nth smoke test; nil passes all.
	passed func(n int, in smoke.Input) bool
	calls  map[string]int
	// verdict is what every analysis says; clear makes it pass when a rollout waits for that.
	verdict rollout.Verdict
	clear   bool
	// plans are what releases say of their migrations; one that is not here has no database.
	plans map[string]activities.Migrations
	// backup is what becomes of the nth backup; nil: it is verified.
	backup func(n int) error
}

func newWorld(t *testing.T) *world {
	return &world{t: t, verdict: rollout.Passed, calls: map[string]int{}, fail: map[string]int{}, tracks: map[string]target.Deployment{
		target.Stable: {Environment: "production", Service: "student-service", Track: target.Stable, Release: oldRelease, Replicas: 2},
	}}
}

func (w *world) call(name, what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counted(name, what)
}

func (w *world) counted(name, what string) error {
	w.calls[name]++
	if w.calls[name] == w.fail[name] {
		return temporal.NewNonRetryableApplicationError(name+" broke", activities.NotReadyType, nil)
	}
	if what != "" {
		w.log = append(w.log, what)
	}
	return nil
}

// write refuses a fence that does not rise, as targets and registries do: an activity that was cancelled may come late.
func (w *world) write(name string, fence int64, what string, do func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fence <= w.fence {
		return temporal.NewNonRetryableApplicationError("fence", activities.TakenOverType, nil)
	}
	if err := w.counted(name, what); err != nil {
		return err
	}
	w.fence = fence
	do()
	return nil
}

func (w *world) environment() *testsuite.TestWorkflowEnvironment {
	env := temporaltest.Workflow()
	register := func(name string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name}) }
	register("BeginOperation", w.record)
	register("RecordOperation", w.record)
	register("ImportRelease", func(activities.ImportInput) (target.Release, error) {
		return target.Release{Digest: newRelease}, w.call("ImportRelease", "")
	})
	register("ObserveTarget", func(activities.Service) (target.Observed, error) {
		return target.Observed{Tracks: w.tracks, Instances: w.instances}, w.call("ObserveTarget", "")
	})
	register("EnsureDeployment", func(d target.Deployment) error {
		return w.write("EnsureDeployment", d.Fence, fmt.Sprintf("%s=%s×%d", d.Track, short(d.Release), d.Replicas), func() { w.tracks[d.Track] = d })
	})
	register("RemoveTrack", func(in activities.RemoveInput) error {
		return w.write("RemoveTrack", in.Fence, "remove "+in.Track, func() { delete(w.tracks, in.Track) })
	})
	register("SetTraffic", func(in activities.TrafficInput) error {
		return w.write("SetTraffic", in.Fence, fmt.Sprintf("new=%d%% old=%d%%", in.Split[newRelease], in.Split[oldRelease]), func() { w.split = in.Split })
	})
	register("AwaitReady", func(activities.AwaitInput) error { return w.call("AwaitReady", "") })
	register("AwaitGone", func(in activities.AwaitInput) error { return w.call("AwaitGone", "gone "+short(in.Release)) })
	register("ReadTraffic", func(activities.Service) (rollout.Reading, error) { return rollout.Reading{}, w.call("ReadTraffic", "") })
	register("WatchRelease", func(_ activities.WatchInput, conclusive bool) (activities.Analysis, error) {
		if err := w.call("WatchRelease", ""); err != nil {
			return activities.Analysis{}, err
		}
		if conclusive && w.clear {
			w.verdict = rollout.Passed
			return activities.Analysis{Verdict: rollout.Passed}, nil
		}
		return activities.Analysis{}, activity.ErrResultPending
	})
	register("AnalyseRelease", func(in activities.WatchInput) (activities.Analysis, error) {
		if in.Since.IsZero() {
			w.t.Error("it is not said since when the release has had its share")
		}
		analysis := activities.Analysis{Verdict: w.verdict}
		if w.verdict != rollout.Passed {
			analysis.Unread = "no gateway is registered"
		}
		return analysis, w.call("AnalyseRelease", "")
	})
	register("ProveRelease", func(activities.CurrentInput) (string, error) { return "rollout x", w.call("ProveRelease", "") })
	register("FindFreeze", func(in activities.FreezeInput) (activities.Frozen, error) {
		until, reason := rollout.Frozen(in.Freezes, in.Environment, in.At)
		return activities.Frozen{Until: until, Reason: reason}, w.call("FindFreeze", "")
	})
	register("FindLastGood", func(activities.CurrentInput) (string, error) { return newRelease, w.call("FindLastGood", "") })
	register("PromoteRelease", func(p rollout.Promotion) error {
		return w.call("PromoteRelease", "promoted "+short(p.Release)+" over "+short(p.Replaced))
	})
	w.registerMigrations(env)
	register("RunSmokeTest", func(in smoke.Input) (smoke.Report, error) {
		if err := w.call("RunSmokeTest", "smoke "+short(in.Release)); err != nil {
			return smoke.Report{}, err
		}
		n := w.calls["RunSmokeTest"]
		report := smoke.Report{Passed: w.passed == nil || w.passed(n, in)}
		report.Checks = []smoke.Check{{Name: "create a student", OK: report.Passed, Expected: "201", Found: "500"}}
		return report, nil
	})
	return env
}

// record may be called for several words at once: what is said in between is not waited for.
func (w *world) record(r operation.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
	return nil
}

func (w *world) last() operation.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.MaxFunc(w.records, func(a, b operation.Record) int { return int(a.Revision - b.Revision) })
}

// restored fails the test unless everything is as it was before the rollout.
func (w *world) restored() {
	w.t.Helper()
	if len(w.split) != 0 {
		w.t.Errorf("a split is left: %v", w.split)
	}
	if len(w.tracks) != 1 || w.tracks[target.Stable].Release != oldRelease {
		w.t.Errorf("the tracks are not as before: %v", w.tracks)
	}
}

func request() rollout.Request {
	return rollout.Request{Environment: "production", Service: "student-service", Release: "/tmp/student-service", RequestedBy: "meera"}
}

func TestRolloutMovesTrafficStepByStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	env.ExecuteWorkflow(Rollout, request())
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"new=0% old=100%", "canary=bbbbbbbbbbbb×2", "smoke bbbbbbbbbbbb", "new=10% old=90%", "new=50% old=50%", "new=100% old=0%", "smoke ",
		"stable=bbbbbbbbbbbb×2", "remove canary", "gone aaaaaaaaaaaa", "new=0% old=0%", "promoted bbbbbbbbbbbb over aaaaaaaaaaaa",
	}
	if diff := cmp.Diff(want, w.log); diff != "" {
		t.Errorf("what was done (-want +got):\n%s", diff)
	}
	if w.tracks[target.Stable].Release != newRelease || len(w.split) != 0 {
		t.Errorf("tracks %v, split %v", w.tracks, w.split)
	}
	if last := w.last(); last.State != operation.Succeeded || !last.Ended() {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestRolloutPutsEverythingBackWhateverFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		activity string
		nth      int
	}{
		{"SetTraffic", 1}, {"EnsureDeployment", 1}, {"AwaitReady", 1}, {"RunSmokeTest", 1}, {"ReadTraffic", 1}, {"SetTraffic", 2}, {"WatchRelease", 1},
		{"AnalyseRelease", 1}, {"ReadTraffic", 2}, {"SetTraffic", 3}, {"WatchRelease", 2}, {"SetTraffic", 4}, {"AnalyseRelease", 3}, {"RunSmokeTest", 2},
	} {
		t.Run(fmt.Sprintf("%s %d", c.activity, c.nth), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fail[c.activity] = c.nth
			env := w.environment()
			env.ExecuteWorkflow(Rollout, request())
			if err := env.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), c.activity+" broke") {
				t.Errorf("the error does not say why: %v", err)
			}
			w.restored()
			last := w.last()
			if last.State != RolledBack || !strings.Contains(last.Summary, c.activity+" broke") {
				t.Errorf("recorded %s: %s", last.State, last.Summary)
			}
			back := slices.Index(w.log, "new=0% old=100%")
			if removed := slices.Index(w.log, "remove canary"); back < 0 || removed < back {
				t.Errorf("instances went before traffic: %v", w.log)
			}
		})
	}
}

func TestRolloutThatCannotBeginChangesNothing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ImportRelease", "ObserveTarget", "ProveRelease"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fail[name] = 1
			env := w.environment()
			env.ExecuteWorkflow(Rollout, request())
			if len(w.log) > 0 || w.last().State != operation.Failed {
				t.Errorf("did %v, recorded %s", w.log, w.last().State)
			}
		})
	}
}

func TestRolloutStopsAtAFailedSmokeTest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.passed = func(n int, _ smoke.Input) bool { return n != 1 }
	env := w.environment()
	env.ExecuteWorkflow(Rollout, request())
	w.restored()
	if last := w.last(); last.State != RolledBack || !strings.Contains(last.Summary, "create a student: expected 201, found 500") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
	if slices.Contains(w.log, "new=10% old=90%") {
		t.Error("the release got traffic before it had passed")
	}
}

func TestWhatCannotBeSaidToBeGoodIsPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.verdict = rollout.Inconclusive
	env := w.environment()
	began := env.Now()
	env.ExecuteWorkflow(Rollout, request())
	w.restored()
	paused := slices.ContainsFunc(w.records, func(r operation.Record) bool {
		return r.State == operation.Waiting && strings.Contains(r.Summary, "Paused, because") && strings.Contains(r.Summary, "no gateway is registered")
	})
	last := w.last()
	if last.State != RolledBack || !strings.Contains(last.Summary, "could not be said within 5m0s that the release is good: no gateway is registered") || !paused {
		t.Errorf("paused %v, recorded %s: %s", paused, last.State, last.Summary)
	}
	if took, want := env.Now().Sub(began), settle+rollout.DefaultSoak+rollout.DefaultSureWithin; took < want || took > want+time.Second {
		t.Errorf("took %s, want %s", took, want)
	}
	if slices.Contains(w.log, "new=50% old=50%") {
		t.Error("it got more traffic")
	}
}

func TestAPauseEndsWhenItIsClearThatTheReleaseIsGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.verdict, w.clear = rollout.Inconclusive, true
	env := w.environment()
	env.ExecuteWorkflow(Rollout, request())
	if err := env.GetWorkflowError(); err != nil || w.last().State != operation.Succeeded {
		t.Errorf("%v, recorded %s", err, w.last().State)
	}
}

func TestAGatewayIsWatchedThoughItsTrafficCannotBeSplit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fail["WatchRelease"] = 1
	env := w.environment()
	in := request()
	in.Service = rollout.Gateway
	env.ExecuteWorkflow(Rollout, in)
	w.restored()
	if last := w.last(); last.State != RolledBack || !strings.Contains(last.Summary, "WatchRelease broke") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestAbortAndCancelRollBack(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*testsuite.TestWorkflowEnvironment){
		"abort": func(env *testsuite.TestWorkflowEnvironment) {
			env.UpdateWorkflowNoRejection(AbortUpdate, "1", t, Decision{User: "arjun", Reason: "wrong build"})
		},
		"cancel": func(env *testsuite.TestWorkflowEnvironment) { env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := w.environment()
			env.RegisterDelayedCallback(func() { stop(env) }, settle+rollout.DefaultSoak+time.Second)
			env.ExecuteWorkflow(Rollout, request())
			w.restored()
			last := w.last()
			if last.State != Aborted || name == "abort" && !strings.Contains(last.Summary, "aborted by arjun: wrong build") {
				t.Errorf("recorded %s: %s", last.State, last.Summary)
			}
		})
	}
}

// updateResult keeps what came of an update.
type updateResult struct {
	accepted bool
	rejected error
}

func (u *updateResult) Accept()                 { u.accepted = true }
func (u *updateResult) Reject(err error)        { u.rejected = err }
func (u *updateResult) Complete(_ any, _ error) {}

func TestAbortIsRefusedOnceTheNewReleaseIsStable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	var result updateResult
	env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		if info.ActivityType.Name == "AwaitGone" {
			env.UpdateWorkflow(AbortUpdate, "late", &result, Decision{User: "arjun"})
		}
	})
	env.ExecuteWorkflow(Rollout, request())
	if result.rejected == nil || !strings.Contains(result.rejected.Error(), "already the stable one") {
		t.Errorf("a late abort: %v", result.rejected)
	}
	if w.last().State != operation.Succeeded {
		t.Errorf("recorded %s", w.last().State)
	}
}

func TestSameReleaseChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stable := w.tracks[target.Stable]
	stable.Release = newRelease
	w.tracks[target.Stable] = stable
	env := w.environment()
	env.ExecuteWorkflow(Rollout, request())
	if err := env.GetWorkflowError(); err != nil || len(w.log) > 0 {
		t.Errorf("did %v, %v", w.log, err)
	}
}

func TestBadRequestIsRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	env.ExecuteWorkflow(Rollout, rollout.Request{Environment: "moon", Service: "the cafeteria", Release: "relative", Weights: []int{50, 10}})
	err := env.GetWorkflowError()
	for _, want := range []string{"moon", "cafeteria", "relative", "[50 10]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if app, ok := errors.AsType[*temporal.ApplicationError](err); !ok || app.Type() != refusedType {
		t.Errorf("got %v", err)
	}
}
