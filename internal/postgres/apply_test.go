package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

var limits = postgres.Limits{LockTimeout: 300 * time.Millisecond, Pause: 100 * time.Millisecond, Patience: time.Minute}

// releases of a service: each has the migrations of the one before it, and one more.
func release(more ...string) fstest.MapFS {
	files := fstest.MapFS{"001_t.sql": oneTable["001_t.sql"]}
	for n, sql := range more {
		files["00"+string(rune('2'+n))+"_more.sql"] = &fstest.MapFile{Data: []byte(sql)}
	}
	return files
}

const (
	addColumn = "alter table t add column house text;"
	addIndex  = "---- tern: disable-tx ----\ndrop index concurrently if exists t_house;\ncreate index concurrently t_house on t (house);"
	dropped   = "-- contract\nalter table t drop column house;"
	unmarked  = "alter table t drop column house;"
)

func migrated(t *testing.T, files fstest.MapFS) (postgres.Config, *pgxpool.Pool) {
	t.Helper()
	config := pgtest.New(t, files)
	pool, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return config, pool
}

func TestPlanSaysWhatIsPending(t *testing.T) {
	t.Parallel()
	config, _ := migrated(t, release())
	plan, err := postgres.PlanMigrations(t.Context(), config, release(addColumn, unmarked, "-- expand: a test\n"+unmarked, dropped))
	if err != nil {
		t.Fatal(err)
	}
	drops := []string{"line 1: drops column t.house"}
	marked := []string{"line 2: drops column t.house"}
	want := migration.Plan{Database: plan.Database, Version: 1, Known: 5, Contracts: []int32{5}, Pending: []migration.Migration{
		{Number: 2, Name: "002_more.sql", Kind: migration.Expand},
		{Number: 3, Name: "003_more.sql", Kind: migration.Refused, Findings: drops},
		{Number: 4, Name: "004_more.sql", Kind: migration.Expand, Findings: marked, Overruled: "a test"},
		{Number: 5, Name: "005_more.sql", Kind: migration.Contract, Findings: marked},
	}}
	if diff := cmp.Diff(want, plan); diff != "" || !strings.HasPrefix(plan.Database, "test_") {
		t.Errorf("the plan of %s (-want +got):\n%s", plan.Database, diff)
	}
	never, err := postgres.PlanMigrations(t.Context(), pgtest.New(t, nil), release())
	if err != nil || never.Version != 0 || len(never.Pending) != 1 {
		t.Errorf("the plan of a database that was never migrated: %+v, %v", never, err)
	}
}

func TestApplyRunsOneKindAndNoMore(t *testing.T) {
	t.Parallel()
	config, pool := migrated(t, release())
	next := release(addColumn, addIndex, dropped)
	apply := func(kind migration.Kind, version int32) {
		t.Helper()
		for range 2 { // the second finds nothing to do
			if plan, err := postgres.ApplyMigrations(t.Context(), config, next, kind, limits); err != nil || plan.Version != version {
				t.Fatalf("version %d after %s, want %d: %v", plan.Version, kind, version, err)
			}
		}
	}
	apply(migration.Contract, 1) // it is behind what is pending before it
	apply(migration.Expand, 3)
	if _, err := pool.Exec(t.Context(), "insert into t values (1, 'red')"); err != nil {
		t.Error(err)
	}
	apply(migration.Contract, 4)

	plan, err := postgres.ApplyMigrations(t.Context(), config, release(addColumn, addIndex, dropped, unmarked), migration.Expand, limits)
	if err == nil || !strings.Contains(err.Error(), "005_more.sql is neither expand-only nor marked as a contract step: line 1: drops column t.house") || plan.Version != 4 {
		t.Errorf("an unmarked one: version %d, %v", plan.Version, err)
	}
}

// TestAnOlderReleaseLivesWithANewerSchema starts one release after another has migrated.
func TestAnOlderReleaseLivesWithANewerSchema(t *testing.T) {
	t.Parallel()
	config, _ := migrated(t, release(addColumn))
	if version, err := postgres.Migrate(t.Context(), config, release()); err != nil || version != 2 {
		t.Errorf("version %d, %v", version, err)
	}
	if plan, err := postgres.ApplyMigrations(t.Context(), config, release(), migration.Expand, limits); err != nil || plan.Version != 2 || plan.Known != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
	for want, files := range map[int32]fstest.MapFS{2: release(addColumn), 3: release(addColumn, addIndex, dropped)} {
		if needed, err := postgres.NeededVersion(files); err != nil || needed != want {
			t.Errorf("needed is %d, want %d: %v", needed, want, err)
		}
	}
}

func TestManyMayApplyAtOnce(t *testing.T) {
	t.Parallel()
	config, _ := migrated(t, release())
	next := release(addColumn, addIndex)
	done := make(chan error)
	for range 4 {
		go func() {
			plan, err := postgres.ApplyMigrations(context.Background(), config, next, migration.Expand, limits)
			if err == nil && plan.Version != 3 {
				err = errors.New("it did not reach version 3")
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// reading is a transaction that has read the table, and holds a lock on it until it is rolled back.
func reading(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "select from t")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// TestAMigrationNeverStallsTraffic lets a long transaction read the table that a migration alters. The migration has to wait for it, and
// everybody else for the migration, but never longer than the lock timeout: a writer gets through between two tries, while the
// transaction still reads.
func TestAMigrationNeverStallsTraffic(t *testing.T) {
	t.Parallel()
	config, pool := migrated(t, release())
	reader := reading(t, pool)
	migrating := make(chan error, 1)
	go func() {
		_, err := postgres.ApplyMigrations(context.Background(), config, release(addColumn), migration.Expand, limits)
		migrating <- err
	}()

	// The writer's own patience is the lock timeout and twice as much for a busy machine: a stall beyond it is an error.
	config.LockTimeout = 3 * limits.LockTimeout
	writer, err := postgres.Open(t.Context(), config, "writer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(writer.Close)
	const tries = 3
	held := map[string]bool{} // tries that a write waited for and outlived
	for n := 1; len(held) < tries; n++ {
		var waiting string
		const whoWaits = `
select coalesce(max(virtualtransaction), '')
  from pg_locks
 where not granted and mode = 'AccessExclusiveLock' and relation = 't'::regclass`
		if err := pool.QueryRow(t.Context(), whoWaits).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Exec(t.Context(), "insert into t values ($1)", n); err != nil {
			t.Fatalf("write %d was stalled: %v", n, err)
		}
		if waiting != "" {
			held[waiting] = true
		}
		select {
		case err := <-migrating:
			t.Fatalf("it did not wait for the reader: %v", err)
		default:
		}
	}
	if err := reader.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-migrating; err != nil {
		t.Error(err)
	}
	if _, err := writer.Exec(t.Context(), "insert into t values (1000000, 'red')"); err != nil {
		t.Error(err)
	}
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	config, pool := migrated(t, release(addColumn))
	reading(t, pool)
	hasty := postgres.Limits{LockTimeout: 20 * time.Millisecond, Pause: time.Millisecond, Patience: 200 * time.Millisecond}
	next := release(addColumn, "create table u (id int);", "alter table t add column more int;")
	_, err := postgres.ApplyMigrations(t.Context(), config, next, migration.Expand, hasty)
	if !errors.Is(err, postgres.ErrLocked) || postgres.Unavailable(err) || !strings.Contains(err.Error(), "004_more.sql was tried") ||
		!strings.Contains(err.Error(), "003_more.sql ran before it, and stays") {
		t.Errorf("got %v", err)
	}
	if _, err := pool.Exec(t.Context(), "select from u"); err != nil {
		t.Error(err)
	}
}

// TestAnInvalidIndexIsMadeAgain makes an index of what is not unique, and again once it is.
func TestAnInvalidIndexIsMadeAgain(t *testing.T) {
	t.Parallel()
	config, pool := migrated(t, release(addColumn))
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("insert into t values (1, 'red'), (2, 'red')")
	next := release(addColumn, strings.Replace(addIndex, "create index", "create unique index", 1))
	if _, err := postgres.ApplyMigrations(t.Context(), config, next, migration.Expand, limits); postgres.ViolatedConstraint(err) != "t_house" {
		t.Errorf("got %v", err)
	}
	exec("delete from t where id = 2")
	if plan, err := postgres.ApplyMigrations(t.Context(), config, next, migration.Expand, limits); err != nil || plan.Version != 3 {
		t.Errorf("version %d, %v", plan.Version, err)
	}
	var valid bool
	if err := pool.QueryRow(t.Context(), "select indisvalid from pg_index where indexrelid = 't_house'::regclass").Scan(&valid); err != nil || !valid {
		t.Errorf("the index is valid: %v, %v", valid, err)
	}
}
