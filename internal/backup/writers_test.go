package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
)

// writerRuns says how many backups are made and proven while others write; unset: 3.
const writerRuns = "SMS_BACKUP_WRITER_RUNS"

// written is what the writers need besides the school's tables.
const written = `
set role ` + backuptest.Owner + `;
create table scrap (id bigint generated always as identity primary key, word text);
create sequence ticket;
create sequence wheel minvalue 1 maxvalue 500 cycle;
create function motto() returns text language sql as $$ select 'first' $$;
`

// A writer does its statements again and again, each in a transaction of its own, in the n-th round.
type writer struct {
	name string
	// pace is the least time between two statements, so that there is something left of the machine for the backup, and so that what is
	// made exists for a while.
	pace       time.Duration
	statements func(n int) []string
}

func always(statements ...string) func(int) []string {
	return func(int) []string { return statements }
}

var writers = []writer{
	{"insert", often, always(`insert into student (name, note) select 'late ' || i, repeat(md5(random()::text), 32) from generate_series(1, 20) as i where (select count(*) < 1000 from student)`)},
	{"update", often, func(n int) []string {
		return []string{fmt.Sprintf(`update student set note = reverse(note) where id %% 37 = %d`, n%37)}
	}},
	{"delete", often, always(`delete from student where id in (select id from student where name like 'late %' order by id limit 40)`)},
	{"move between partitions", often, func(n int) []string {
		return []string{fmt.Sprintf(`update archive.event set at = case when at < '2026-01-01' then at + 30 else at - 30 end where student_id %% 11 = %d`, n%11)}
	}},
	{"insert and roll back", often, always(`begin`, `insert into student (name, note) values ('never', '')`, `select nextval('ticket')`, `rollback`)},
	{"nextval", often, always(`select nextval('ticket') from generate_series(1, 50)`)},
	{"nextval of a sequence that cycles", often, always(`select nextval('wheel') from generate_series(1, 50)`)},
	{"create and drop an index", seldom, always(`create index if not exists late_index on student (name, id)`, `drop index if exists late_index`)},
	{"the same, concurrently", seldom, always(`create index concurrently if not exists later_index on archive.event_2026 (at)`, `drop index concurrently if exists later_index`)},
	{"create and drop a table", seldom, func(n int) []string {
		return []string{fmt.Sprintf(`create table beside_%d as select * from generate_series(1, 100) as i`, n), fmt.Sprintf(`drop table beside_%d`, n)}
	}},
	{"add and drop a column", seldom, always(`alter table scrap add column if not exists late text default 'late'`, `alter table scrap drop column if exists late`)},
	{"truncate another table", seldom, always(`insert into scrap (word) select 'word' from generate_series(1, 30)`, `truncate scrap`)},
	{"grant and revoke", often, always(`grant select on student to `+backup.RestoreRole, `revoke select on student from `+backup.RestoreRole)},
	{"replace a function", often, func(n int) []string {
		return []string{fmt.Sprintf(`create or replace function motto() returns text language sql as $$ select 'motto %d' $$`, n)}
	}},
	{"vacuum", seldom, always(`vacuum analyze student`, `vacuum full scrap`)},
}

// work writes until the context ends, and counts its statements; begun is told of the first. A statement that the server ends, because
// writers stand in each other's way, is left out.
func (w writer) work(ctx context.Context, conn *pgx.Conn, done *atomic.Int64, begun *sync.WaitGroup) error {
	first := sync.OnceFunc(begun.Done)
	defer first()
	defer conn.Close(context.WithoutCancel(ctx))
	tick := time.NewTicker(w.pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		for _, statement := range w.statements(n) {
			_, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
			switch pg, ok := errors.AsType[*pgconn.PgError](err); {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				done.Add(1)
			case !ok || !slices.Contains(inTheWay, pg.Code):
				return fmt.Errorf("%s: %s: %w", w.name, statement, err)
			}
			first()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

const (
	often  = 50 * time.Millisecond
	seldom = 3 * time.Second // what alters a database: far more often than anybody does
	// attempts are those of the workflow, which repeats a dump that found the database altered between its snapshot and its locks.
	attempts = 15
)

// inTheWay are what the server says to writers that stand in each other's way: a deadlock, a lock that is not had in time,
// and what then follows in the same transaction.
var inTheWay = []string{"40P01", "55P03", "25P02"}

// TestConcurrentWritersCauseNoFalseFailure backs a database up again and again while others write it in every way they do. Each
// attempt must make a backup, and each drill must find it to be what the manifest says.
func TestConcurrentWritersCauseNoFalseFailure(t *testing.T) {
	t.Parallel()
	runs := numberOf(t, writerRuns, 3)
	f := newFixture(t, 200)
	backuptest.Exec(t, f.Database, written)
	writing, stop := context.WithCancel(t.Context())
	statements := make([]atomic.Int64, len(writers))
	var begun sync.WaitGroup
	var work errgroup.Group
	for i, w := range writers {
		conn := backuptest.Connect(t, f.Database)
		if _, err := conn.Exec(t.Context(), "set role "+backuptest.Owner); err != nil {
			t.Fatal(err)
		}
		begun.Add(1)
		work.Go(func() error { return w.work(writing, conn, &statements[i], &begun) })
	}
	begun.Wait()
	proven, tried, rows, moved := 0, 0, int64(0), 0
	for run := range runs {
		id := fmt.Sprintf("r%09d", run)
		var m backup.Manifest
		var err error
		for range attempts {
			tried++
			if m, err = f.Save(t.Context(), f.store, backup.Request{ID: id, Source: f.Source, Started: started}, &backup.Meter{}); err == nil {
				break
			}
			t.Logf("run %d: an attempt: %v", run, err)
		}
		if err != nil {
			t.Errorf("run %d: no backup: %v", run, err)
			continue
		}
		if found, err := f.drill(t, m, id); err != nil || len(found) != 0 {
			t.Errorf("run %d: %v %q", run, err, found)
			continue
		}
		proven++
		rows += m.Rows()
		for _, s := range m.Sequences {
			if s.Value != s.Until {
				moved++
			}
		}
	}
	stop()
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "WRITER\tSTATEMENTS MEANWHILE")
	for i := range writers {
		fmt.Fprintf(w, "%s\t%d\n", writers[i].name, statements[i].Load())
	}
	_ = w.Flush()
	t.Logf("%d of %d backups proven without a difference, after %d attempts; %d rows, %d sequences moved while they were dumped\n%s", proven, runs, tried, rows, moved, &table)
}

// numberOf is the number that an environment variable holds, which makes a test longer.
func numberOf(t *testing.T, variable string, unset int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return unset
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}
