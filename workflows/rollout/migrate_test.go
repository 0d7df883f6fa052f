package rollout

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	operations "github.com/school-sms/sms/activities/operation"
	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/backup"
)

func (w *world) registerMigrations(env *testsuite.TestWorkflowEnvironment) {
	register := func(name string, f any) { env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name}) }
	register("ReadMigrations", func(in activities.CurrentInput) (activities.Migrations, error) {
		err := w.call("ReadMigrations", "")
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.plans[in.Release], err
	})
	register("AwaitBackup", func(string) error { return w.call("AwaitBackup", "") })
	register("ApplyMigrations", func(m target.Migration) (migration.Plan, error) {
		return migration.Plan{}, w.write("ApplyMigrations", m.Fence, "migrate "+string(m.Kind)+" by "+short(m.Release), func() {
			plan := w.plans[m.Release]
			plan.Version += int32(len(plan.Next(m.Kind)))
			plan.Pending = plan.Pending[len(plan.Next(m.Kind)):]
			w.plans[m.Release] = plan
		})
	})
	env.RegisterWorkflowWithOptions(func(_ workflow.Context, in backup.Input) (backup.Outcome, error) {
		err := w.call("Backup", "back up "+in.Database)
		if err == nil && w.backup != nil {
			err = w.backup(w.calls["Backup"])
		}
		return backup.Outcome{}, err
	}, workflow.RegisterOptions{Name: "Backup"})
}

var (
	expandStep   = migration.Migration{Number: 7, Name: "007_house.sql", Kind: migration.Expand}
	contractStep = migration.Migration{Number: 8, Name: "008_no_moles.sql", Kind: migration.Contract, Findings: []string{"line 2: drops column student.moles"}}
	refusedStep  = migration.Migration{Number: 7, Name: "007_drop.sql", Kind: migration.Refused, Findings: []string{"line 1: drops column student.moles", "line 2: renames"}}
)

// pending gives the new release a database in version 6.
func (w *world) pending(steps ...migration.Migration) *world {
	plan := migration.Plan{Database: "student_db", Version: 6, Known: 6 + int32(len(steps)), Pending: steps}
	w.plans = map[string]activities.Migrations{newRelease: {Plan: plan, Backup: true},
		oldRelease: {Plan: migration.Plan{Database: "student_db", Version: 6, Known: 6}, Backup: true}}
	return w
}

// run is a rollout from beginning to end; the log is without the steps of every rollout.
func (w *world) run(in rollout.Request) (log []string, last operation.Record) {
	env := w.environment()
	env.ExecuteWorkflow(Rollout, in)
	for _, line := range w.log {
		if strings.HasPrefix(line, "migrate") || strings.HasPrefix(line, "back up") || strings.HasPrefix(line, "canary") || strings.HasPrefix(line, "gone") || strings.HasPrefix(line, "promoted") {
			log = append(log, line)
		}
	}
	return log, w.last()
}

func same(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was done (-want +got):\n%s", diff)
	}
}

const (
	started  = "canary=bbbbbbbbbbbb×2"
	gone     = "gone aaaaaaaaaaaa"
	promoted = "promoted bbbbbbbbbbbb over aaaaaaaaaaaa"
	expanded = "migrate expand by bbbbbbbbbbbb"
	dropped  = "migrate contract by bbbbbbbbbbbb"
	backedUp = "back up student_db"
)

func TestMigrationsRunAfterAVerifiedBackup(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps []migration.Migration
		want  []string
		says  string
	}{
		"none":     {nil, []string{started, gone, promoted}, ""},
		"expand":   {[]migration.Migration{expandStep}, []string{backedUp, expanded, started, gone, promoted}, "007_house.sql"},
		"contract": {[]migration.Migration{contractStep}, []string{started, gone, promoted, backedUp, dropped}, "Contract steps have run: 008_no_moles.sql"},
		"both": {[]migration.Migration{expandStep, contractStep}, []string{backedUp, expanded, started, gone, promoted, backedUp, dropped},
			"Contract steps wait for the end of aaaaaaaaaaaa: 008_no_moles.sql"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).pending(c.steps...)
			log, last := w.run(request())
			same(t, c.want, log)
			if said := last.Summary + string(last.Result); last.State != operation.Succeeded || !strings.Contains(said, c.says) {
				t.Errorf("recorded %s: %s", last.State, said)
			}
			if steps := strings.Contains(string(last.Result), "igrat"); steps != (len(c.steps) > 0) {
				t.Errorf("steps about migrations are recorded: %v", steps)
			}
		})
	}
}

func TestMigrationsAreRefusedWithEveryReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t).pending(refusedStep, contractStep, migration.Migration{Number: 9, Name: "009_late.sql", Kind: migration.Expand})
	log, last := w.run(request())
	same(t, nil, log)
	for _, want := range []string{"Nothing was changed", "007_drop.sql", "line 1: drops column student.moles; line 2: renames", "009_late.sql comes after contract step 008_no_moles.sql"} {
		if last.State != operation.Failed || !strings.Contains(last.Summary, want) {
			t.Errorf("recorded %s without %q: %s", last.State, want, last.Summary)
		}
	}
}

func TestWithoutABackupNothingIsMigrated(t *testing.T) {
	t.Parallel()
	t.Run("it is not verified", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).pending(expandStep)
		w.backup = func(int) error { return temporal.NewNonRetryableApplicationError("the disk is full", "x", nil) }
		log, last := w.run(request())
		same(t, []string{backedUp}, log)
		if last.State != operation.Failed || !strings.Contains(last.Summary, "Nothing was changed: the disk is full") {
			t.Errorf("recorded %s: %s", last.State, last.Summary)
		}
	})
	t.Run("others back up at the same moment", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t).pending(expandStep)
		w.backup = func(n int) error {
			if n < backupTries {
				return temporal.NewNonRetryableApplicationError("refused: another runs", operations.HeldType, nil)
			}
			return nil
		}
		log, last := w.run(request())
		same(t, []string{backedUp, backedUp, backedUp, expanded, started, gone, promoted}, log)
		if last.State != operation.Succeeded || w.calls["AwaitBackup"] != backupTries {
			t.Errorf("recorded %s after waiting %d times", last.State, w.calls["AwaitBackup"])
		}
	})
	for environment, want := range map[string]string{"production": "no backup can be taken before the migration: BACKUP_DATABASES", "staging": "does not name student_db"} {
		t.Run("none is configured in "+environment, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).pending(expandStep)
			plan := w.plans[newRelease]
			plan.Backup = false
			w.plans[newRelease] = plan
			in := request()
			in.Environment = environment
			log, last := w.run(in)
			if migrated := slices.Contains(log, expanded); migrated != (environment == "staging") || slices.Contains(log, backedUp) || !strings.Contains(string(last.Result), want) {
				t.Errorf("did %v, recorded %s: %s", log, last.Summary, last.Result)
			}
		})
	}
}

// TestAFailedMigrationLeavesTheStableRelease also when some of its steps have run: they are expand-only.
func TestAFailedMigrationLeavesTheStableRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t).pending(expandStep)
	w.fail["ApplyMigrations"] = 1
	log, last := w.run(request())
	same(t, []string{backedUp, "gone bbbbbbbbbbbb"}, log)
	w.restored()
	if last.State != RolledBack || !strings.Contains(last.Summary, "ApplyMigrations broke") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

func TestARolledBackRolloutRunsNoContractStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t).pending(expandStep, contractStep)
	w.verdict = rollout.Inconclusive
	log, last := w.run(request())
	same(t, []string{backedUp, expanded, started, "gone bbbbbbbbbbbb"}, log)
	if last.State != RolledBack {
		t.Errorf("recorded %s", last.State)
	}
}

// TestAContractStepThatFailsIsRunByAnotherRollout of the release that runs already.
func TestAContractStepThatFailsIsRunByAnotherRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t).pending(contractStep)
	w.fail["ApplyMigrations"] = 1
	log, last := w.run(request())
	same(t, []string{started, gone, promoted, backedUp}, log)
	if last.State != operation.Succeeded || !strings.Contains(last.Summary, "Contract steps are still to be run, by another rollout of this release: 008_no_moles.sql: ApplyMigrations broke") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}

	w.log, w.records, w.fence = nil, nil, 0 // the test environment's clock begins again
	w.instances = []target.Instance{{Name: "student-service-1", Release: oldRelease}}
	log, last = w.run(request())
	same(t, nil, log)
	if !strings.Contains(last.Summary, "student-service-1 still runs aaaaaaaaaaaa") {
		t.Errorf("beside an older release: %s", last.Summary)
	}

	w.log, w.instances, w.records = nil, nil, nil
	log, last = w.run(request())
	same(t, []string{backedUp, dropped}, log)
	if last.State != operation.Succeeded || !strings.Contains(last.Summary, "nothing to do. Contract steps have run: 008_no_moles.sql") {
		t.Errorf("recorded %s: %s", last.State, last.Summary)
	}
}

// TestNoReleaseRunsOnASchemaThatItCannotLiveWith goes to a release that knows migration 7 while the database is at 8.
func TestNoReleaseRunsOnASchemaThatItCannotLiveWith(t *testing.T) {
	t.Parallel()
	const bars = "student_db is at version 8, this release knows up to 7, and 8 was a contract step"
	for name, c := range map[string]struct {
		contracts []int32
		untold    string
		in        func(*rollout.Request)
		want      string
	}{
		"a rollback past a contract step":              {[]int32{3, 8}, "", func(in *rollout.Request) { in.Rollback, in.Release = true, "" }, bars},
		"a rollout past a contract step":               {[]int32{3, 8}, "", func(*rollout.Request) {}, bars},
		"a rollback past others":                       {[]int32{3}, "", func(in *rollout.Request) { in.Rollback, in.Release = true, "" }, ""},
		"one that does not tell, past a contract step": {[]int32{3}, "it is old", func(*rollout.Request) {}, "and 3 was a contract step"},
		"one that does not tell":                       {nil, "it is old", func(*rollout.Request) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).pending()
			to := migration.Plan{Database: "student_db", Version: 8, Known: 7}
			if c.untold != "" {
				to = migration.Plan{Untold: c.untold}
			}
			w.plans[newRelease] = activities.Migrations{Plan: to, Backup: true}
			w.plans[oldRelease] = activities.Migrations{Plan: migration.Plan{Database: "student_db", Version: 8, Known: 8, Contracts: c.contracts}}
			in := request()
			c.in(&in)
			log, last := w.run(in)
			if c.want == "" {
				same(t, []string{started, gone, promoted}, log)
			} else if last.State != operation.Failed || len(log) > 0 || !strings.Contains(last.Summary, c.want) {
				t.Errorf("did %v, recorded %s: %s", log, last.State, last.Summary)
			}
			if c.untold != "" && !strings.Contains(string(last.Result), c.untold) {
				t.Errorf("recorded %s", last.Result)
			}
		})
	}
}

func TestARolloutThatCannotReadMigrationsChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t).pending(expandStep)
	w.fail["ReadMigrations"] = 1
	log, last := w.run(request())
	same(t, nil, log)
	if last.State != operation.Failed {
		t.Errorf("recorded %s", last.State)
	}
	if held(errors.New("other")) {
		t.Error("every error is taken for a backup that was faster")
	}
}
