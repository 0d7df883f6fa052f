package operation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

func newStore(t *testing.T) *operation.Store {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return operation.NewStore(pool)
}

func backupOf(database, run string) operation.Record {
	return operation.Record{
		ID: operation.ID("backup/"+database, run), Kind: operation.Backup, WorkflowID: "backup/" + database, RunID: run,
		Subject: database, State: operation.Running, Summary: "Begins.", StartedBy: "meera",
		StartedAt: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), Input: json.RawMessage(`{"database": "` + database + `"}`), Revision: 1,
	}
}

func TestIDIsTheSameForServiceAndWorkflow(t *testing.T) {
	t.Parallel()
	id := operation.ID("backup/student_db/2026-11-23T02:00:00Z", "0193571a-5a5a-7000-8000-000000000000")
	if len(id) != 10 || id != operation.ID("backup/student_db/2026-11-23T02:00:00Z", "0193571a-5a5a-7000-8000-000000000000") {
		t.Errorf("id %q, want ten characters that stay the same", id)
	}
	if id == operation.ID("backup/student_db/2026-11-23T02:00:00Z", "another run") {
		t.Error("two runs have one id")
	}
}

func TestOnlyOneBackupOfADatabaseBegins(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	const starts = 8
	errs := make([]error, starts)
	var wg sync.WaitGroup
	for i := range starts {
		wg.Go(func() { errs[i] = store.Begin(t.Context(), backupOf("student_db", fmt.Sprint(i))) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		held, refused := errors.AsType[*operation.HeldError](err)
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("backups %d and %d both began", won, i)
		case !refused || held.Holder.Subject != "student_db":
			t.Errorf("backup %d: %v, want a refusal that names the holder", i, err)
		}
	}
	if won < 0 {
		t.Fatal("no backup began")
	}
	if err := store.Begin(t.Context(), backupOf("student_db", fmt.Sprint(won))); err != nil {
		t.Errorf("the holder's second begin: %v, want no change", err)
	}
	if err := store.Begin(t.Context(), backupOf("configuration_db", "x")); err != nil {
		t.Errorf("another database: %v", err)
	}
	if err := store.Abandon(t.Context(), backupOf("student_db", fmt.Sprint(won)).ID, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := store.Begin(t.Context(), backupOf("student_db", "next")); err != nil {
		t.Errorf("after the holder was abandoned: %v", err)
	}
}

func TestLateAndRepeatedWordsChangeNothing(t *testing.T) {
	t.Parallel()
	store, r := newStore(t), backupOf("student_db", "1")
	say := func(revision int64, state string, ended bool) {
		t.Helper()
		r := r
		r.Revision, r.State = revision, state
		if ended {
			at := r.StartedAt.Add(time.Minute)
			r.EndedAt = &at
		}
		if err := store.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := func(state string, ended bool) {
		t.Helper()
		got, err := store.Get(t.Context(), r.ID, operation.Backup)
		if err != nil {
			t.Fatal(err)
		}
		if got.State != state || got.Ended() != ended || got.StartedBy != "meera" || got.WorkflowID != r.WorkflowID {
			t.Errorf("state %s, ended %t, want %s, %t (%+v)", got.State, got.Ended(), state, ended, got)
		}
	}
	say(3, "stored", false)
	want("stored", false)
	say(2, operation.Running, false) // late
	want("stored", false)
	say(4, "verified", true)
	want("verified", true)
	say(9, operation.Running, false) // a worker that was thought dead
	want("verified", true)
	say(9, operation.Failed, true)
	want("verified", true)
}

func TestGetByPrefixAndList(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	ctx := t.Context()
	const all = 5
	for i := range all {
		r := backupOf(fmt.Sprintf("db%d", i), "1")
		r.ID, r.StartedAt = fmt.Sprintf("abc%d000000", i), r.StartedAt.Add(time.Duration(i)*time.Hour)
		if err := store.Begin(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := store.Get(ctx, "ABC3", operation.Backup); err != nil || got.ID != "abc3000000" {
		t.Errorf("by prefix: %v, %v", got.ID, err)
	}
	for prefix, want := range map[string]error{"abc": operation.ErrAmbiguous, "x": operation.ErrNotFound, "": operation.ErrNotFound, "abc%": operation.ErrNotFound} {
		if _, err := store.Get(ctx, prefix, operation.Backup); !errors.Is(err, want) {
			t.Errorf("prefix %q: %v, want %v", prefix, err, want)
		}
	}
	if _, err := store.Get(ctx, "abc3", operation.Rollout, operation.SmokeTest); !errors.Is(err, operation.ErrNotFound) {
		t.Errorf("of another kind: %v, want not found", err)
	}
	page, total, err := store.List(ctx, operation.Filter{Kind: operation.Backup}, 1, 2)
	if err != nil || total != all || len(page) != 2 || page[0].ID != "abc2000000" || page[1].ID != "abc1000000" {
		t.Errorf("second page of two: %v of %d, %v", page, total, err)
	}
}

func TestAmendChangesOnlyWhatHasEnded(t *testing.T) {
	t.Parallel()
	store, r := newStore(t), backupOf("student_db", "1")
	ctx := t.Context()
	if err := errors.Join(store.Begin(ctx, r), store.Amend(ctx, r.ID, operation.Failed, "bad")); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(ctx, r.ID, operation.Backup); err != nil || got.State != operation.Running {
		t.Errorf("state %s, want running (%v)", got.State, err)
	}
	at := r.StartedAt.Add(time.Minute)
	r.State, r.EndedAt, r.Revision = "verified", &at, 2
	if err := errors.Join(store.Record(ctx, r), store.Amend(ctx, r.ID, operation.Failed, "bad")); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(ctx, r.ID, operation.Backup); err != nil || got.State != operation.Failed || got.Summary != "bad" {
		t.Errorf("state %s, want failed (%v)", got.State, err)
	}
}
