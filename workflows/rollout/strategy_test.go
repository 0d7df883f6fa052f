package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

func TestStrategies(t *testing.T) {
	t.Parallel()
	end := []string{"smoke ", "stable=bbbbbbbbbbbb×2", "remove canary", "gone aaaaaaaaaaaa", "new=0% old=0%", "promoted bbbbbbbbbbbb over aaaaaaaaaaaa"}
	for name, c := range map[string]struct {
		strategy, service string
		want              []string
	}{
		"blue-green": {rollout.BlueGreen, "student-service", []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×2", "smoke bbbbbbbbbbbb", "new=100% old=0%"}},
		"rolling": {rollout.Rolling, "student-service", []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×1", "smoke bbbbbbbbbbbb", "new=50% old=50%",
			"canary=bbbbbbbbbbbb×2", "new=100% old=0%"}},
		"of a gateway":                {"", rollout.Gateway, []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×1", "canary=bbbbbbbbbbbb×2"}},
		"of a registry":               {"", rollout.Registry, []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×1", "canary=bbbbbbbbbbbb×2"}},
		"of a gateway, all instances": {rollout.BlueGreen, rollout.Gateway, []string{"new=0% old=100%", "canary=bbbbbbbbbbbb×2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := w.environment()
			in := request()
			in.Strategy, in.Service = c.strategy, c.service
			env.ExecuteWorkflow(Rollout, in)
			if err := env.GetWorkflowError(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(slices.Concat(c.want, end), w.log); diff != "" {
				t.Errorf("what was done (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRollingPutsBackWhatTheSecondInstanceSpoils(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fail["AwaitReady"] = 2
	env := w.environment()
	in := request()
	in.Strategy = rollout.Rolling
	env.ExecuteWorkflow(Rollout, in)
	w.restored()
	if last := w.last(); last.State != RolledBack || !strings.Contains(last.Summary, "AwaitReady broke") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

// friday is a time in the freeze of a weekend.
var (
	friday  = time.Date(2026, 11, 27, 19, 0, 0, 0, time.UTC)
	weekend = []rollout.Freeze{{From: "0 18 * * 5", Until: "0 6 * * 1", Zone: "UTC", Reason: "nobody is there", Environments: []string{"production"}}}
)

func TestAFreezeHoldsWhatIsNewAndNeverARollback(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*rollout.Request)
		state  string
		says   string
	}{
		"begun in it": {func(*rollout.Request) {}, operation.Failed, "Nothing was changed: nothing new until Mon 2026-11-30 06:00 UTC: nobody is there"},
		"with a word": {func(r *rollout.Request) { r.Thaw = "pupils cannot log in" }, operation.Succeeded, ""},
		"a rollback":  {func(r *rollout.Request) { r.Rollback, r.Release = true, "" }, operation.Succeeded, ""},
		"elsewhere":   {func(r *rollout.Request) { r.Environment = "staging" }, operation.Succeeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := w.environment()
			env.SetStartTime(friday)
			in := request()
			in.Freezes = weekend
			c.change(&in)
			env.ExecuteWorkflow(Rollout, in)
			last := w.last()
			if last.State != c.state || !strings.Contains(last.Summary, c.says) {
				t.Errorf("recorded %s: %s", last.State, last.Summary)
			}
			if c.state == operation.Failed && len(w.log) > 0 {
				t.Errorf("changed %v", w.log)
			}
			if in.Thaw != "" && !strings.Contains(string(last.Result), in.Thaw) {
				t.Errorf("the reason is not on record: %s", last.Result)
			}
		})
	}
}

func TestAPlanWaitsForTheEndOfAFreeze(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		thaw bool
		want time.Time
	}{
		"to its end":             {false, time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)},
		"until somebody objects": {true, friday.Add(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &planWorld{}
			env := w.environment()
			env.SetStartTime(friday)
			in := plan()
			in.Gate, in.Each.Freezes = false, weekend
			if c.thaw {
				decide(env, time.Hour, ThawUpdate)
			}
			early := decide(env, time.Second, ThawUpdate) // in staging, which is not frozen
			env.RegisterDelayedCallback(func() {
				if last := w.last(); last.State != operation.Waiting || !strings.Contains(last.Summary, "nobody is there") {
					t.Errorf("while it waits it is %s: %s", last.State, last.Summary)
				}
			}, time.Hour-time.Second)
			env.ExecuteWorkflow(RolloutPlan, in)
			if last := w.last(); last.State != operation.Succeeded || len(w.begun) != 4 {
				t.Fatalf("began %v, recorded %s: %s", w.begun, last.State, last.Summary)
			}
			if ended, want := env.Now(), c.want.Add(20*time.Second); ended.Before(want) || ended.After(want.Add(time.Second)) {
				t.Errorf("ended at %s, want %s", ended, want)
			}
			if early.rejected == nil {
				t.Error("a thaw of what is not frozen was taken")
			}
		})
	}
}

func TestAWaveIsRolledOutAtOnceAndPutBackTogether(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]string{"all well": "", "one fails": "production student-service"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &planWorld{fails: fails}
			env := w.environment()
			began := env.Now()
			in := plan()
			in.Gate = false
			for i := range in.Services {
				in.Services[i].Wave = 1
			}
			env.ExecuteWorkflow(RolloutPlan, in)
			last := w.last()
			if fails == "" {
				if took := env.Now().Sub(began); last.State != operation.Succeeded || took > 21*time.Second {
					t.Errorf("took %s, recorded %s: %s", took, last.State, last.Summary)
				}
				return
			}
			// The other ended well in the same moment: it is rolled back.
			if last.State != RolledBack || !slices.Contains(w.begun, "production configuration-service back") || !strings.Contains(last.Summary, "Error rate 12 %") {
				t.Errorf("began %v, recorded %s: %s", w.begun, last.State, last.Summary)
			}
		})
	}
}

func TestASupersededRolloutPutsEverythingBackAndSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := w.environment()
	decide(env, first10, SupersedeUpdate)
	env.ExecuteWorkflow(Rollout, request())
	w.restored()
	if last := w.last(); last.State != Superseded || !strings.Contains(last.Summary, "superseded by because") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestPreviewSaysWhatWouldBeDoneAndDoesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world, *PreviewInput)
		waits  string
		stops  string
		to     string
	}{
		"all well":            {func(*world, *PreviewInput) {}, "", "", newRelease},
		"alone, in a freeze":  {func(_ *world, in *PreviewInput) { in.Alone, in.Each.Freezes = true, weekend }, "", "nobody is there", newRelease},
		"a plan, in a freeze": {func(_ *world, in *PreviewInput) { in.Each.Freezes = weekend }, "nobody is there", "", newRelease},
		"unproven":            {func(w *world, _ *PreviewInput) { w.fail["ProveRelease"] = 1 }, "", "ProveRelease broke", newRelease},
		"beside another":      {func(w *world, _ *PreviewInput) { w.tracks["canary"] = target.Deployment{Replicas: 1} }, "", "another rollout is under way", newRelease},
		"instead of another": {func(w *world, in *PreviewInput) {
			w.tracks["canary"], in.Supersede = target.Deployment{Replicas: 1}, true
		}, "another rollout", "", newRelease},
		"a rollback":             {func(_ *world, in *PreviewInput) { in.Alone, in.Each.Rollback, in.Each.Freezes = true, true, weekend }, "", "", newRelease},
		"a rollback to nowhere":  {func(w *world, in *PreviewInput) { in.Alone, in.Each.Rollback, w.fail["FindLastGood"] = true, true, 1 }, "", "FindLastGood broke", ""},
		"of what does not exist": {func(w *world, _ *PreviewInput) { delete(w.tracks, target.Stable) }, "", "nothing to replace", newRelease},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			env := w.environment()
			env.SetStartTime(friday)
			in := PreviewInput{Plan: rollout.Plan{Environments: []string{"production"}, Services: []rollout.Part{{Service: "student-service", Release: "/x"}}}}
			if c.change(w, &in); in.Each.Rollback {
				in.Services[0].Release = ""
			}
			env.ExecuteWorkflow(Preview, in)
			var out Previewed
			if err := env.GetWorkflowResult(&out); err != nil || len(out.Steps) != 1 || len(w.log) > 0 || len(w.records) > 0 {
				t.Fatalf("%v, steps %v, done %v, recorded %v", err, out.Steps, w.log, w.records)
			}
			step := out.Steps[0]
			for want, said := range map[string][]string{"waits " + c.waits: step.Waits, "stops " + c.stops: step.Stops} {
				kind, why, _ := strings.Cut(want, " ")
				if joined := strings.Join(said, "; "); (joined == "") != (why == "") || !strings.Contains(joined, why) {
					t.Errorf("%s %q, want %q", kind, joined, why)
				}
			}
			if step.To != c.to {
				t.Errorf("to %s, want %s", step.To, c.to)
			}
		})
	}
}
