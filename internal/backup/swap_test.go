package backup_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
)

const restoreID = "r000000001"

var empty = backup.Manifest{Encoding: "UTF8", Collate: "C.UTF-8", CType: "C.UTF-8"}

func administrator(t *testing.T, source backup.Source) *backup.Administrator {
	t.Helper()
	a, err := backup.Administer(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// beside makes the database of a restore, with something in it that tells it from the original.
func beside(t *testing.T, a *backup.Administrator, source backup.Source) backup.Placed {
	t.Helper()
	serving, err := a.Find(t.Context(), source.Database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropAll(t, source) })
	made, err := a.Create(t.Context(), empty, backup.BesideName(source.Database, restoreID), backuptest.Owner, serving)
	if err != nil {
		t.Fatal(err)
	}
	backuptest.Exec(t, made.Name, "create table restored (); grant select on restored to public")
	return made
}

// dropAll drops whatever a restore has made of a database.
func dropAll(t *testing.T, source backup.Source) {
	t.Helper()
	for _, name := range []string{backup.BesideName(source.Database, restoreID), backup.BeforeName(source.Database, restoreID)} {
		backuptest.Exec(t, "postgres", "drop database if exists "+name+" with (force)")
	}
}

// names are the databases there are of a source.
func names(t *testing.T, source backup.Source) (found [3]int) {
	t.Helper()
	for i, name := range []string{source.Database, backup.BesideName(source.Database, restoreID), backup.BeforeName(source.Database, restoreID)} {
		found[i] = backuptest.Number(t, "select count(*) from pg_database where datname = $1", name)
	}
	return found
}

func TestASwapUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 10)
	backuptest.Exec(t, "postgres", "alter database "+f.Database+" set search_path = public, archive")
	backuptest.Exec(t, "postgres", "alter database "+f.Database+" set work_mem = '7MB'")
	backuptest.Exec(t, "postgres", "alter database "+f.Database+" connection limit 40")
	a := administrator(t, f.Source)
	made := beside(t, a, f.Source)

	// Clients that connect anew each time, and some that stay: none may ever be told that there is no such database while the
	// name is looked for before or after.
	var served, restored, missing atomic.Int64
	var clients sync.WaitGroup
	load, stop := context.WithCancel(t.Context())
	for range 4 {
		clients.Go(func() {
			for load.Err() == nil {
				conn, err := pgx.Connect(load, f.URL)
				if err != nil {
					if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "3D000" && !strings.Contains(pg.Message, "renamed") && !strings.Contains(pg.Detail, "renamed") {
						missing.Add(1)
					}
					continue
				}
				var there bool
				for range 20 {
					if conn.QueryRow(load, "select to_regclass('restored') is not null").Scan(&there) != nil {
						break
					}
					if there {
						restored.Add(1)
					} else {
						served.Add(1)
					}
				}
				_ = conn.Close(context.Background())
			}
		})
	}
	until(t, func() bool { return served.Load() > 100 })
	swapped, err := a.Swap(t.Context(), made.OID, f.Database, backup.BeforeName(f.Database, restoreID))
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return restored.Load() > 100 })
	stop()
	clients.Wait()
	t.Logf("nobody could connect for %s", swapped.Window)
	if missing.Load() != 0 || swapped.Before == "" || swapped.Window <= 0 || names(t, f.Source) != [3]int{1, 0, 1} {
		t.Errorf("%d times missing, swapped %+v, there are %v", missing.Load(), swapped, names(t, f.Source))
	}
	again, err := a.Swap(t.Context(), made.OID, f.Database, backup.BeforeName(f.Database, restoreID))
	if err != nil || again.Name != f.Database || again.Before != swapped.Before || again.Window != 0 {
		t.Errorf("again: %+v %v", again, err)
	}
	const alike = `
select count(*)
  from pg_database a join pg_db_role_setting s on s.setdatabase = a.oid, pg_database b join pg_db_role_setting z on z.setdatabase = b.oid
 where a.datname = $1 and b.datname = $2 and a.datconnlimit = 40 and b.datconnlimit = 40 and s.setconfig = z.setconfig`
	if backuptest.Number(t, alike, f.Database, swapped.Before) != 1 {
		t.Error("connection limit or settings are not those of the database before")
	}
}

func TestHalfASwapIsUndone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 10)
	a := administrator(t, f.Source)
	made := beside(t, a, f.Source)
	before := backup.BeforeName(f.Database, restoreID)
	// A superuser's session, which the restoring role may not end, keeps the second rename from going on.
	holder, release := session(t, made.Name)
	swapped := make(chan error, 1)
	go func() {
		_, err := a.Swap(context.Background(), made.OID, f.Database, before)
		swapped <- err
	}()
	// The first rename has gone through when the second waits: its transaction holds the original's lock.
	const between = `
select count(*) from pg_locks l join pg_database d on d.oid = l.objid
 where l.classid = 'pg_database'::regclass and d.datname = $1 and l.mode = 'AccessExclusiveLock' and l.granted`
	until(t, func() bool { return backuptest.Number(t, between, made.Name) == 1 })
	// The worker dies: its connections are cut.
	backuptest.Exec(t, "postgres", `select pg_terminate_backend(pid) from pg_locks l join pg_database d on d.oid = l.objid
 where l.classid = 'pg_database'::regclass and d.datname = '`+made.Name+`' and l.mode = 'AccessExclusiveLock'`)
	if err := <-swapped; err == nil {
		t.Fatal("a swap whose connection was cut is said to be done")
	}
	if names(t, f.Source) != [3]int{1, 1, 0} {
		t.Errorf("after half a swap there are %v", names(t, f.Source))
	}
	backuptest.Exec(t, f.Database, "insert into student (name, note) values ('serving', '')")

	// As long as the session stays, the swap says whose it is, and changes nothing.
	a = administrator(t, f.Source)
	if _, err := a.Swap(t.Context(), made.OID, f.Database, before); !errors.Is(err, backup.ErrInUse) || !strings.Contains(err.Error(), "postgres (process") {
		t.Errorf("while a superuser is connected: %v", err)
	}
	if names(t, f.Source) != [3]int{1, 1, 0} {
		t.Errorf("after a refused swap there are %v", names(t, f.Source))
	}
	release()
	until(t, func() bool {
		return backuptest.Number(t, "select count(*) from pg_stat_activity where pid = $1", holder) == 0
	})
	if _, err := a.Swap(t.Context(), made.OID, f.Database, before); err != nil || names(t, f.Source) != [3]int{1, 0, 1} {
		t.Errorf("the retry: %v, there are %v", err, names(t, f.Source))
	}
}

func TestRestoringUnderANewName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	a := administrator(t, f.Source)
	made := beside(t, a, f.Source)
	if _, err := a.Rename(t.Context(), made.OID, f.Database); !errors.Is(err, backup.ErrTaken) {
		t.Errorf("a name that is taken: %v", err)
	}
	before := backup.BeforeName(f.Database, restoreID)
	for range 2 {
		if renamed, err := a.Rename(t.Context(), made.OID, before); err != nil || renamed.Name != before {
			t.Fatalf("%+v %v", renamed, err)
		}
	}
	// Where the original is missing, the restored database just takes the name.
	backuptest.Exec(t, "postgres", "drop database "+f.Database+" with (force)")
	if swapped, err := a.Swap(t.Context(), made.OID, f.Database, before); err != nil || swapped.Before != "" {
		t.Errorf("in place of nothing: %+v %v", swapped, err)
	}
	if err := a.DropBeside(t.Context(), f.Database); err == nil {
		t.Error("a database that is no restore's was dropped")
	}
	if _, err := a.Create(t.Context(), empty, backup.BesideName(f.Database, restoreID), "nobody_here", nil); !errors.Is(err, backup.ErrOwnerMissing) {
		t.Errorf("an owner who is not there: %v", err)
	}
	if _, err := a.Create(t.Context(), empty, backup.BesideName(f.Database, restoreID), backuptest.Owner, nil); err != nil {
		t.Fatal(err)
	}
	const mayConnect = `select count(*) from unnest(array['` + backuptest.Role + `', '` + backuptest.Owner + `']) as role where has_database_privilege(role, $1, 'connect')`
	backuptest.Exec(t, "postgres", "do $$ begin create role stranger; exception when duplicate_object then null; end $$")
	if n := backuptest.Number(t, mayConnect, backup.BesideName(f.Database, restoreID)); n != 2 {
		t.Errorf("%d of 2 may connect", n)
	}
	if n := backuptest.Number(t, `select has_database_privilege('stranger', $1, 'connect')::int`, backup.BesideName(f.Database, restoreID)); n != 0 {
		t.Error("a stranger may connect")
	}
	if ids, err := a.Besides(t.Context()); err != nil || len(ids) != 1 || ids[0] != restoreID {
		t.Errorf("besides %v %v", ids, err)
	}
	if err := a.DropBeside(t.Context(), backup.BesideName(f.Database, restoreID)); err != nil {
		t.Error(err)
	}
}

// session opens a superuser's session in a database.
func session(t *testing.T, database string) (pid int, release func()) {
	t.Helper()
	conn := backuptest.Connect(t, database)
	if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = conn.Close(context.Background()) })
	t.Cleanup(release)
	return pid, release
}

// until waits for what the test cannot be told of.
func until(t *testing.T, is func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within a minute")
		}
	}
}
