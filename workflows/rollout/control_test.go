package rollout

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
)

// decide sends a decision after a time, and keeps what came of it.
func decide(env *testsuite.TestWorkflowEnvironment, after time.Duration, update string) *updateResult {
	result := &updateResult{}
	env.RegisterDelayedCallback(func() {
		env.UpdateWorkflow(update, update+after.String(), result, Decision{User: "meera", Reason: "because"})
	}, after)
	return result
}

// first10 is when a rollout has just given the new release its first traffic.
var first10 = settle + time.Second

func TestPauseHoldsTheTrafficUntilItIsResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	began := env.Now()
	const pause = time.Hour
	results := []*updateResult{decide(env, first10, PauseUpdate), decide(env, first10+pause, ResumeUpdate)}
	env.RegisterDelayedCallback(func() {
		if last := w.last(); w.split[newRelease] != 10 || last.State != operation.Waiting || !strings.Contains(last.Summary, "Paused by meera: because") {
			t.Errorf("in the pause it has %d %%: %s, %s", w.split[newRelease], last.State, last.Summary)
		}
	}, first10+pause-time.Second)
	env.RegisterDelayedCallback(func() {
		if last := w.last(); last.State != operation.Running {
			t.Errorf("after the pause it is %s: %s", last.State, last.Summary)
		}
	}, first10+pause+time.Second)
	env.ExecuteWorkflow(Rollout, request())
	if err := env.GetWorkflowError(); err != nil || w.last().State != operation.Succeeded {
		t.Fatalf("%v, recorded %s", err, w.last().State)
	}
	for _, r := range results {
		if r.rejected != nil {
			t.Error(r.rejected)
		}
	}
	if took, want := env.Now().Sub(began), settle+3*rollout.DefaultSoak+pause; took < want || took > want+time.Second {
		t.Errorf("took %s, want %s: a pause takes nothing off a soak", took, want)
	}
	if !strings.Contains(string(w.last().Result), `"what":"pause"`) {
		t.Errorf("the decisions are not on record: %s", w.last().Result)
	}
}

func TestSkipEndsOneSoakAndPromoteAll(t *testing.T) {
	t.Parallel()
	for update, want := range map[string]time.Duration{SkipUpdate: first10 + 2*time.Hour, PromoteUpdate: first10} {
		t.Run(update, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.verdict = rollout.Inconclusive // people may overrule what cannot be judged
			if update == SkipUpdate {
				w.verdict = rollout.Passed
			}
			env := w.environment()
			began := env.Now()
			result := decide(env, first10, update)
			in := request()
			in.Soak = time.Hour
			env.ExecuteWorkflow(Rollout, in)
			if err := env.GetWorkflowError(); err != nil || result.rejected != nil || w.last().State != operation.Succeeded {
				t.Fatalf("%v, %v, recorded %s: %s", err, result.rejected, w.last().State, w.last().Summary)
			}
			if took := env.Now().Sub(began); took < want || took > want+time.Second {
				t.Errorf("took %s, want %s", took, want)
			}
			if !slices.Contains(w.log, "new=50% old=50%") {
				t.Errorf("did %v", w.log)
			}
		})
	}
}

func TestAReleaseThatTurnsBadIsPutBackThoughPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	var token []byte
	env.RegisterActivityWithOptions(func(ctx context.Context, _ activities.WatchInput, _ bool) (activities.Analysis, error) {
		token = activity.GetInfo(ctx).TaskToken
		return activities.Analysis{}, activity.ErrResultPending
	}, activity.RegisterOptions{Name: "WatchRelease", DisableAlreadyRegisteredCheck: true})
	decide(env, first10, PauseUpdate)
	env.RegisterDelayedCallback(func() {
		bad := temporal.NewNonRetryableApplicationError("error rate 12 % of 80 requests", activities.BrokenType, nil)
		if err := env.CompleteActivity(token, nil, bad); err != nil {
			t.Error(err)
		}
	}, first10+time.Minute)
	env.ExecuteWorkflow(Rollout, request())
	w.restored()
	if last := w.last(); last.State != RolledBack || !strings.Contains(last.Summary, "error rate 12 % of 80 requests") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestDecisionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for update, why := range map[string]string{ResumeUpdate: "it is not paused", SkipUpdate: "no traffic is being watched"} {
		t.Run(update, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := w.environment()
			result := decide(env, time.Second, update) // before it has traffic
			env.ExecuteWorkflow(Rollout, request())
			if result.rejected == nil || !strings.Contains(result.rejected.Error(), why) || w.last().State != operation.Succeeded {
				t.Errorf("%v, recorded %s", result.rejected, w.last().State)
			}
		})
	}
}

// Whenever a promotion and an abort meet, the end is wholly the new release or wholly the old one, and the abort was refused or not
// accordingly.
func TestPromoteAndAbortRace(t *testing.T) {
	t.Parallel()
	const races = 1000
	whole := settle + 3*rollout.DefaultSoak + time.Second
	var promoted, aborted int
	for n := range races {
		random := rand.New(rand.NewPCG(7, uint64(n)))
		w := newWorld(t)
		env := w.environment()
		at := time.Duration(random.Int64N(int64(whole)))
		decide(env, at, PromoteUpdate)
		abort := decide(env, at+time.Duration(random.Int64N(int64(20*time.Millisecond))), AbortUpdate)
		env.ExecuteWorkflow(Rollout, request())
		if !env.IsWorkflowCompleted() {
			t.Fatalf("race %d has no end", n)
		}
		switch last := w.last(); {
		case last.State == Aborted && abort.accepted:
			aborted++
			w.restored()
		case last.State == operation.Succeeded && !abort.accepted:
			promoted++
			if len(w.split) != 0 || len(w.tracks) != 1 || w.tracks["stable"].Release != newRelease {
				t.Errorf("race %d: split %v, tracks %v", n, w.split, w.tracks)
			}
		default:
			t.Errorf("race %d: recorded %s, the abort: %v", n, last.State, abort.rejected)
		}
	}
	if promoted == 0 || aborted == 0 {
		t.Errorf("%d promoted, %d aborted: the race is none", promoted, aborted)
	}
	t.Logf("%d races: %d promoted, %d aborted", races, promoted, aborted)
}

func TestRollbackGoesToTheLastGoodReleaseAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	in := rollout.Request{Environment: "production", Service: "student-service", RequestedBy: "meera", Rollback: true}
	env.ExecuteWorkflow(Rollout, in)
	if err := env.GetWorkflowError(); err != nil || w.last().State != operation.Succeeded {
		t.Fatalf("%v, recorded %s: %s", err, w.last().State, w.last().Summary)
	}
	want := []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×2", "new=100% old=0%", "stable=bbbbbbbbbbbb×2", "remove canary", "gone aaaaaaaaaaaa",
		"promoted bbbbbbbbbbbb over aaaaaaaaaaaa", "new=0% old=0%"}
	slices.Sort(want)
	did := slices.Sorted(slices.Values(w.log))
	if !slices.Equal(did, want) {
		t.Errorf("did %v", w.log)
	}
}
