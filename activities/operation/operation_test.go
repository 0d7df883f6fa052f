package operation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	activities "github.com/school-sms/sms/activities/operation"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// alive says which workflows run.
type alive struct {
	running map[string]bool
	err     error
}

func (a *alive) Running(_ context.Context, workflowID, _ string) (bool, error) {
	return a.running[workflowID], a.err
}

func TestALockIsTakenOverFromTheDeadOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, err := postgres.Open(ctx, pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	liveness := &alive{running: map[string]bool{"backup/student_db/one": true}}
	acts := &activities.Activities{Store: operation.NewStore(pool), Liveness: liveness}
	begin := func(name string) (operation.Record, error) {
		r := operation.Record{ID: operation.ID(name, "run"), Kind: operation.Backup, WorkflowID: "backup/student_db/" + name, RunID: "run",
			Subject: "student_db", State: operation.Running, StartedBy: "meera", StartedAt: time.Now(), Revision: 1}
		return r, acts.BeginOperation(ctx, r)
	}
	one, err := begin("one")
	if err != nil {
		t.Fatal(err)
	}

	_, err = begin("two")
	refused, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok || refused.Type() != activities.HeldType || !refused.NonRetryable() || !strings.Contains(err.Error(), one.ID) {
		t.Fatalf("while the holder runs: %v, want a refusal that names it", err)
	}
	var holder operation.Record
	if err := refused.Details(&holder); err != nil || holder.ID != one.ID {
		t.Errorf("the refusal's detail is %+v (%v)", holder, err)
	}

	liveness.err = errors.New("Temporal is away")
	if _, err := begin("two"); err == nil || temporal.IsApplicationError(err) {
		t.Errorf("while nobody knows whether the holder runs: %v, want an error to retry", err)
	}

	liveness.err, liveness.running = nil, nil
	two, err := begin("two")
	if err != nil {
		t.Fatalf("after the holder died: %v", err)
	}
	for id, want := range map[string]string{one.ID: operation.Failed, two.ID: operation.Running} {
		if got, err := acts.Store.Get(ctx, id, operation.Backup); err != nil || got.State != want {
			t.Errorf("%s is %s (%v), want %s", got.WorkflowID, got.State, err, want)
		}
	}
}

func TestWhatAnEarlierRunHasLeftOpenIsEndedByTheNext(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, err := postgres.Open(ctx, pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := operation.NewStore(pool)
	acts := &activities.Activities{Store: store, Liveness: &alive{}}
	const id = "rollout/production/student-service"
	for _, r := range []struct{ workflow, run string }{{id, "one"}, {"rollout/staging/student-service", "other"}, {id, "two"}, {id, "two"}} {
		err := acts.BeginOperation(ctx, operation.Record{ID: operation.ID(r.workflow, r.run), Kind: operation.Rollout, WorkflowID: r.workflow, RunID: r.run,
			Subject: "student-service", State: operation.Running, StartedAt: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
	}
	open, err := store.Open(ctx, operation.Rollout)
	if err != nil || len(open) != 2 || open[0].RunID != "other" || open[1].RunID != "two" {
		t.Errorf("still open: %+v, %v", open, err)
	}
	if first, err := store.Get(ctx, operation.ID(id, "one"), operation.Rollout); err != nil || first.State != operation.Failed || first.Summary != operation.Lost {
		t.Errorf("the first: %+v, %v", first, err)
	}
}
