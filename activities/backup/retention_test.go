package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/testsuite"

	activities "github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/migrations"
)

const database = "student_db"

var now = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

// stubborn refuses to remove what is named, and notes the order of removals.
type stubborn struct {
	*storage.Directory
	mu      sync.Mutex
	refused string
	away    bool
	removed []string
}

func (s *stubborn) Remove(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused != "" && strings.Contains(name, s.refused) {
		return errors.New("permission denied")
	}
	s.removed = append(s.removed, name)
	return s.Directory.Remove(ctx, name)
}

func (s *stubborn) List(ctx context.Context, prefix string) ([]storage.Object, error) {
	if s.away {
		return nil, storage.ErrUnreachable
	}
	return s.Directory.List(ctx, prefix)
}

// alive are the workflows that run.
type alive map[string]bool

func (a alive) Running(_ context.Context, workflowID, _ string) (bool, error) {
	return a[workflowID], nil
}

type fixture struct {
	*activities.Activities
	store, copy *stubborn
	liveness    alive
	env         *testsuite.TestActivityEnvironment
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var stores [2]*stubborn
	for i := range stores {
		directory, err := storage.NewDirectory(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		stores[i] = &stubborn{Directory: directory}
	}
	f := fixture{store: stores[0], copy: stores[1], liveness: alive{}}
	f.Activities = &activities.Activities{Sources: backup.Sources{{Database: database}}, Store: f.store, Copy: f.copy,
		Policy:     backup.Policy{KeepDays: 2, KeepMonths: 0, KeepVerified: 1, ReverifyEvery: time.Hour},
		Operations: operation.NewStore(pool), Liveness: f.liveness, Log: slog.New(slog.DiscardHandler)}
	var suite testsuite.WorkflowTestSuite
	f.env = suite.NewTestActivityEnvironment()
	f.env.RegisterActivity(f.Activities)
	return f
}

// put stores a backup in both storages, proven so many nights ago, and returns its base.
func (f fixture) put(t *testing.T, id string, nights int) (base string) {
	t.Helper()
	at := now.AddDate(0, 0, -nights)
	m := backup.Manifest{FormatVersion: backup.FormatVersion, ID: id, Database: database, Archive: backup.ArchiveName(backup.Base(database, id, at), true), Encryption: backup.Encrypted,
		Bytes: 7, SHA256: strings.Repeat("ab", 32), StartedAt: at, EndedAt: at.Add(time.Minute)}
	manifest, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	base, _, _ = strings.Cut(m.Archive, ".")
	for _, s := range []*stubborn{f.store, f.copy} {
		for name, content := range map[string]string{m.Archive: "archive", backup.ManifestName(m.Archive): string(manifest), base + ".globals.sql.zst": "globals"} {
			w, err := s.Create(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := backup.WriteProof(t.Context(), s, backup.Proof{BackupID: id, Database: database, Archive: m.Archive, DrillID: "d" + id, VerifiedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

func (f fixture) plan(t *testing.T) activities.Plan {
	t.Helper()
	value, err := f.env.ExecuteActivity(f.PlanRetention, activities.PlanInput{Database: database, Now: now})
	var plan activities.Plan
	if err == nil {
		err = value.Get(&plan)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// remove deletes a backup as the last attempt would.
func (f fixture) remove(t *testing.T, in activities.DeleteInput) (activities.Deletion, error) {
	t.Helper()
	var out activities.Deletion
	value, err := f.env.ExecuteActivity(f.DeleteBackup, in)
	if err == nil {
		err = value.Get(&out)
	}
	return out, err
}

func (f fixture) record(t *testing.T, id string) operation.Record {
	t.Helper()
	r, err := f.Operations.Get(t.Context(), id, operation.Backup)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func summary(verdicts []backup.Verdict) string {
	var all []string
	for _, v := range verdicts {
		all = append(all, fmt.Sprintf("%s %t", v.BackupID, v.Keep))
	}
	return strings.Join(all, ", ")
}

func TestEachStorageIsDecidedByItself(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := f.put(t, "aaa", 5)
	f.put(t, "bbb", 4)
	f.put(t, "ccc", 3)
	f.put(t, "ddd", 1)
	if err := f.copy.Remove(t.Context(), old+".dump.zst.age"); err != nil {
		t.Fatal(err)
	}
	plan := f.plan(t)
	if got := summary(plan.Storages[0].Verdicts); got != "aaa false, bbb false, ccc true, ddd true" {
		t.Errorf("the first: %s", got)
	}
	if plan.Due == nil || plan.Due.BackupID != "ccc" || plan.Due.SHA256 == "" {
		t.Errorf("due is %+v, want the oldest that is kept", plan.Due)
	}
	if got := plan.Storages[1].Verdicts[0]; got.Keep || !strings.Contains(got.Reason, "the archive is missing") {
		t.Errorf("the copy: %+v", got)
	}
	f.copy.away = true
	if plan := f.plan(t); plan.Storages[1].Fault == "" || len(plan.Storages[1].Verdicts) != 0 || len(plan.Storages[0].Verdicts) != 4 {
		t.Errorf("with the copy away: %+v", plan)
	}
}

func TestWhatIsUsedStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	base := f.put(t, "aaa", 5)
	f.put(t, "bbb", 1)
	f.put(t, "ccc", 0)
	restore := operation.Record{ID: "r1", Kind: operation.Restore, WorkflowID: "restore/x", Subject: "x", State: operation.Running, StartedBy: "meera",
		StartedAt: now, Input: json.RawMessage(`{"backupId": "aaa"}`)}
	if err := f.Operations.Begin(t.Context(), restore); err != nil {
		t.Fatal(err)
	}
	f.liveness["restore/x"] = true
	if v := f.plan(t).Storages[0].Verdicts[0]; !v.Keep || v.Reason != "in use by restore r1" {
		t.Errorf("while it is restored: %+v", v)
	}
	out, err := f.remove(t, activities.DeleteInput{Storage: activities.FirstStorage, Database: database, BackupID: "aaa", Base: base, Reason: "old"})
	if err != nil || out.Objects != 0 || len(out.Left) != 4 || out.Why != "in use by restore r1" {
		t.Errorf("deleted, though a restore has begun since it was decided: %+v, %v", out, err)
	}
	f.liveness["restore/x"] = false // it was terminated, and nobody has said so
	if v := f.plan(t).Storages[0].Verdicts[0]; v.Keep {
		t.Errorf("when the restore is gone: %+v", v)
	}
}

func TestADeletionThatFailsLosesNoRecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bases := map[string]string{"aaa": f.put(t, "aaa", 9), "bbb": f.put(t, "bbb", 8), "ccc": f.put(t, "ccc", 7)}
	if _, err := f.Rebuild(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	in := func(id string) activities.DeleteInput {
		return activities.DeleteInput{Storage: activities.FirstStorage, Database: database, BackupID: id, Base: bases[id], Reason: "old", Attempts: 2}
	}
	out, err := f.remove(t, in("aaa"))
	if err != nil || out.Objects != 4 || out.Why != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	order := func(part string) int {
		return slices.IndexFunc(f.store.removed, func(name string) bool { return strings.Contains(name, part) })
	}
	if order(".dump.") != 0 || order(".manifest.") != 3 {
		t.Errorf("deleted in the order %v, want the archive first and the manifest last", f.store.removed)
	}
	if r := f.record(t, "aaa"); r.State != backup.StateDeleted || r.Summary != "Deleted by retention: old." {
		t.Errorf("the record: %s: %s", r.State, r.Summary)
	}
	if again, err := f.remove(t, in("aaa")); err != nil || again.Objects != 0 || again.Why != "" {
		t.Errorf("deleted again: %+v, %v", again, err)
	}

	f.store.refused = "globals"
	if _, err := f.remove(t, in("bbb")); err == nil {
		t.Error("a refusal is not tried again")
	}
	bad := in("bbb")
	bad.Attempts = 1
	out, err = f.remove(t, bad)
	if err != nil || len(out.Left) != 3 || out.Why != "permission denied" {
		t.Errorf("half deleted: %+v, %v", out, err)
	}
	if r := f.record(t, "bbb"); r.State != backup.StateDeleted || !strings.Contains(r.Summary, "globals") || !strings.Contains(r.Summary, "permission denied") {
		t.Errorf("the record: %s: %s", r.State, r.Summary)
	}
	f.store.refused = "dump"
	bad = in("ccc")
	bad.Attempts = 1
	out, err = f.remove(t, bad)
	if r := f.record(t, "ccc"); err != nil || len(out.Left) != 4 || r.State != backup.StateVerified || !strings.Contains(r.Summary, "permission denied") {
		t.Errorf("not deleted at all: %+v, %v, %s: %s", out, err, r.State, r.Summary)
	}
	f.store.refused = ""
	for i, id := range []string{"ddd", "eee", "fff"} {
		f.put(t, id, 2-i)
	}
	for _, v := range f.plan(t).Storages[0].Verdicts {
		if want := v.BackupID == "eee" || v.BackupID == "fff"; v.Keep != want {
			t.Errorf("the next plan on %s: %t, %s", v.BackupID, v.Keep, v.Reason)
		}
	}
}

func TestRebuildChangesOnlyWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	base := f.put(t, "aaa", 2)
	f.put(t, "bbb", 1)
	check := func(what string, want activities.Rebuilt) {
		t.Helper()
		if got, err := f.Rebuild(t.Context(), database); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", what, got, err, want)
		}
	}
	check("from nothing", activities.Rebuilt{Backups: 2, Added: 2})
	check("again", activities.Rebuilt{Backups: 2})
	r := f.record(t, "aaa")
	var result operation.Result
	var outcome struct {
		Stored *activities.Stored `json:"stored"`
		Drill  struct {
			DrillID string `json:"drillId"`
		} `json:"drill"`
	}
	if err := errors.Join(json.Unmarshal(r.Result, &result), json.Unmarshal(result.Outcome, &outcome)); err != nil {
		t.Fatal(err)
	}
	if r.State != backup.StateVerified || !r.Ended() || outcome.Stored.Archive != base+".dump.zst.age" || outcome.Drill.DrillID != "daaa" {
		t.Errorf("the record %+v, its outcome %+v", r, outcome)
	}
	if err := f.store.Remove(t.Context(), base+".dump.zst.age"); err != nil {
		t.Fatal(err)
	}
	check("an archive is gone", activities.Rebuilt{Backups: 2, Corrected: 1})
	if r := f.record(t, "aaa"); r.State != backup.StateFailed || !strings.Contains(r.Summary, "the archive is missing") {
		t.Errorf("the record: %s: %s", r.State, r.Summary)
	}
	f.store.Directory, f.copy.Directory = f.copy.Directory, f.store.Directory
	check("the archive is back, and why it failed is for people to say", activities.Rebuilt{Backups: 2})
	running := operation.Record{ID: "ccc", Kind: operation.Backup, WorkflowID: "w", Subject: database, State: operation.Running, StartedBy: "meera", StartedAt: now}
	if err := f.Operations.Begin(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	f.put(t, "ccc", 0)
	check("one that runs", activities.Rebuilt{Backups: 3})
	f.store.away = true
	if _, err := f.Rebuild(t.Context(), database); err == nil {
		t.Error("the storage is away, and nothing is said")
	}
	if r := f.record(t, "bbb"); r.State != backup.StateVerified {
		t.Errorf("a storage that is away took a backup for missing: %s", r.Summary)
	}
}
