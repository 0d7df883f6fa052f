package student

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

const changesPath = collection + "/changes"

func changesOf(t *testing.T, s *servertest.Service, query string) ChangePage {
	t.Helper()
	var page ChangePage
	s.Do(t, identity.Viewer, http.MethodGet, changesPath+query, nil).Want(http.StatusOK).Decode(&page)
	return page
}

// told is the order in which a page tells changes.
func told(page ChangePage) string {
	var list []string
	for _, c := range page.Content {
		status := "-"
		if c.Student != nil {
			status = string(c.Student.Status)
		}
		list = append(list, fmt.Sprintf("%s/%d/%s/%s", strings.TrimPrefix(c.StudentID, "STU-2026-0000"), c.Version, c.Action, status))
	}
	return strings.Join(list, " ")
}

// insert adds a student in a transaction that somebody else ends.
func insert(ctx context.Context, tx pgx.Tx, year int, mobile string) (Record, error) {
	details, _ := Rules{Ages: limits, Registered: registered}.Check(validInput())
	var number int64
	if err := tx.QueryRow(ctx, takeNumbers, year, false, 1).Scan(&number); err != nil {
		return Record{}, err
	}
	args := details.args()
	args["student_id"], args["mobile"], args["synthetic"] = fmt.Sprintf("STU-%d-%05d", year, number), mobile, false
	args["user"], args["request_id"] = "import", "long"
	rows, _ := tx.Query(ctx, insertStudent, args)
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Record])
}

func TestChangesInPages(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	empty := changesOf(t, f.Service, "")
	if len(empty.Content) != 0 || empty.Next == "" || empty.HasMore {
		t.Errorf("an empty feed is %+v", empty)
	}
	first, etag := f.create(t, func(in *Input) { in.AadhaarNumber = pointer("123412341234") })
	f.create(t, func(in *Input) { in.Mobile = "9876543211" })
	f.Do(t, identity.Operator, http.MethodPost, collection, validInput(), "X-SMS-Synthetic", "true").Want(http.StatusCreated)
	one := collection + "/" + first.StudentID
	etag = f.Do(t, identity.Clerk, http.MethodPatch, one, `{"caste":"Other"}`, "If-Match", etag).Want(http.StatusOK).Header.Get("ETag")
	f.Do(t, identity.Clerk, http.MethodDelete, one, nil, "If-Match", etag).Want(http.StatusNoContent)

	const all = "1/1/CREATED/ACTIVE 2/1/CREATED/ACTIVE 1/2/UPDATED/ACTIVE 1/3/DELETED/INACTIVE"
	for _, query := range []string{"", "?after=" + empty.Next, "?limit=4&wait=15"} {
		if page := changesOf(t, f.Service, query); told(page) != all || page.HasMore {
			t.Errorf("%q tells %s, more %t", query, told(page), page.HasMore)
		}
	}
	var pieces []string
	page := ChangePage{HasMore: true}
	for page.HasMore {
		page = changesOf(t, f.Service, "?limit=1&after="+page.Next)
		pieces = append(pieces, told(page))
	}
	if got := strings.Join(pieces, " "); got != all {
		t.Errorf("in pieces %s", got)
	}
	if again := changesOf(t, f.Service, "?after="+page.Next); len(again.Content) != 0 || again.Next != page.Next || again.HasMore {
		t.Errorf("behind the end is %+v", again)
	}
	answer := f.Do(t, identity.Clerk, http.MethodGet, changesPath, nil).Want(http.StatusOK)
	if body := string(answer.Body); strings.Contains(body, "12341234") || !strings.Contains(body, "XXXX-XXXX-1234") {
		t.Error("the Aadhaar number is not masked in the feed")
	}
	f.Do(t, identity.Operator, http.MethodGet, changesPath, nil).Problem(http.StatusForbidden, "forbidden")
}

func TestChangesCursor(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, nil)
	c, ok := parseCursor(changesOf(t, f.Service, "").Next)
	if !ok || c.position != 1 {
		t.Fatalf("the cursor behind one change is %+v", c)
	}
	ahead, broken := cursor{c.epoch, 2}, c.String()
	for _, after := range []string{ahead.String(), "x", "%00", broken[1:], broken + "AA", "B" + broken[1:], cursor{c.epoch, -1}.String()} {
		faults := f.Do(t, identity.Viewer, http.MethodGet, changesPath+"?limit=0&wait=16&after="+after, nil).Faults(http.StatusUnprocessableEntity, "validation-error")
		if after != ahead.String() && faults["after"] != "wrong-format" || faults["limit"] != "too-small" || faults["wait"] != "too-large" {
			t.Errorf("after=%s: %v", after, faults)
		}
	}
	faults := f.Do(t, identity.Viewer, http.MethodGet, changesPath+"?after="+ahead.String(), nil).Faults(http.StatusUnprocessableEntity, "validation-error")
	if faults["after"] != "wrong-format" {
		t.Errorf("a cursor from the future: %v", faults)
	}
	c.epoch[0]++
	f.Do(t, identity.Viewer, http.MethodGet, changesPath+"?after="+c.String(), nil).Problem(http.StatusConflict, "conflict")
}

// What commits late is told late, whatever numbers it was given early.
func TestChangesOfALongTransaction(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tx, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := insert(t.Context(), tx, 2025, "9000000000"); err != nil {
		t.Fatal(err)
	}
	f.create(t, nil)
	page := changesOf(t, f.Service, "")
	if told(page) != "1/1/CREATED/ACTIVE" {
		t.Fatalf("before the long transaction ends: %s", told(page))
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if page = changesOf(t, f.Service, "?after="+page.Next); told(page) != "STU-2025-00001/1/CREATED/ACTIVE" {
		t.Errorf("after it: %s", told(page))
	}
}

func TestChangesForManyReaders(t *testing.T) {
	t.Parallel()
	const writes, readers = 2500, 12
	f := newFixture(t)
	if _, err := f.pool.Exec(t.Context(), `insert into student_change (student_id, version, action, changed_by, request_id)
		select 'STU-2026-00001', n, 'UPDATED', 'x', 'x' from generate_series(1, $1) as n`, writes); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for reader := range readers {
		wg.Go(func() {
			var seen int64
			page := ChangePage{HasMore: true}
			for page.HasMore {
				answer := f.Do(t, identity.Viewer, http.MethodGet, fmt.Sprintf("%s?limit=%d&after=%s", changesPath, 1000-reader*60, page.Next), nil)
				if answer.Status != http.StatusOK {
					t.Errorf("%d %s", answer.Status, answer.Body)
					return
				}
				answer.Decode(&page)
				for _, c := range page.Content {
					if seen++; c.Version != seen {
						t.Errorf("reader %d gets version %d as number %d", reader, c.Version, seen)
						return
					}
				}
			}
			if seen != writes {
				t.Errorf("reader %d gets %d changes", reader, seen)
			}
		})
	}
	wg.Wait()
	if n := f.count(t, "select count(*) from student_change where position <> change_id"); n != 0 {
		t.Errorf("%d positions are not in order", n)
	}
}

// Idle readers neither write nor lock, and the feed is read by its indexes, also when nothing has been analyzed.
func TestChangesAreCheap(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, nil)
	for _, load := range []string{
		"alter table student_change set (autovacuum_enabled = off)",
		`insert into student_change (student_id, version, action, changed_by, request_id)
			select 'STU-2026-00001', n, 'UPDATED', 'x', 'x' from generate_series(2, 30000) as n`,
		"analyze student_change", // all are waiting, and that is what is believed from now on
		"update student_change set position = change_id",
		"update student_feed set last = 30000",
	} {
		if _, err := f.pool.Exec(t.Context(), load); err != nil {
			t.Fatal(err)
		}
	}
	page := changesOf(t, f.Service, "")
	written := "select xmin::text::int from student_feed"
	before := f.count(t, written)
	for range 3 {
		page = changesOf(t, f.Service, "?limit=10&after="+page.Next)
	}
	if f.count(t, written) != before {
		t.Error("reading wrote although nothing was waiting")
	}
	for statement, index := range map[string]string{selectFeed: "student_change_waiting", givePositions: "student_change_waiting",
		strings.NewReplacer("$1", "29000", "$2", "101").Replace(selectChanges): "student_change_position"} {
		rows, _ := f.pool.Query(t.Context(), "explain "+statement)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(plan, "\n"); !strings.Contains(text, "using "+index+" on student_change") {
			t.Errorf("the plan of %s is\n%s", statement, text)
		}
	}
}

func TestWaitingForChanges(t *testing.T) {
	t.Parallel()
	const waiters = 40 // five times the connections of the pool
	f := newFixture(t)
	answers := make(chan servertest.Answer, waiters)
	wait := func(after string) {
		for range waiters {
			go func() { answers <- f.Do(t, identity.Viewer, http.MethodGet, changesPath+"?wait=15&after="+after, nil) }()
		}
	}
	collect := func(want string) (next string) {
		t.Helper()
		for range waiters {
			select {
			case answer := <-answers:
				var page ChangePage
				answer.Want(http.StatusOK).Decode(&page)
				if next = page.Next; told(page) != want {
					t.Errorf("waited for %q, want %q", told(page), want)
				}
			case <-time.After(12 * time.Second): // before the waiting ends by itself
				t.Fatal("nobody told those who wait")
			}
		}
		return next
	}
	wait(changesOf(t, f.Service, "").Next)
	f.create(t, nil)
	wait(collect("1/1/CREATED/ACTIVE"))
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	collect("")
}

// A restored copy holds other changes at the positions that come next, and so does a database that was restored over.
func TestRestoredCopyStartsAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, etag := f.create(t, nil)
	f.create(t, func(in *Input) { in.Mobile = "9876543211" })
	dump := filepath.Join(t.TempDir(), "dump")
	original := changesOf(t, f.Service, "")
	run := pgTool(t, f.pool.Config().ConnConfig.Database)
	run("pg_dump", "--format=custom", "--file="+dump)
	f.Do(t, identity.Clerk, http.MethodDelete, collection+"/"+student.StudentID, nil, "If-Match", etag).Want(http.StatusNoContent)
	lost := changesOf(t, f.Service, "?after="+original.Next)

	copied := restoredCopy(t, dump)
	for _, next := range []string{original.Next, lost.Next} {
		problem := copied.Do(t, identity.Viewer, http.MethodGet, changesPath+"?after="+next, nil).Problem(http.StatusConflict, "conflict")
		if !strings.Contains(problem.Detail, "from the beginning") {
			t.Errorf("the consumer is told %q", problem.Detail)
		}
	}
	page := changesOf(t, copied, "")
	if told(page) != told(original) || page.Next == original.Next {
		t.Errorf("the copy tells %s, the original told %s", told(page), told(original))
	}
	copied.Do(t, identity.Clerk, http.MethodPatch, collection+"/"+student.StudentID, `{"caste":"Other"}`, "If-Match", etag).Want(http.StatusOK)
	if page = changesOf(t, copied, "?after="+page.Next); told(page) != "1/2/UPDATED/ACTIVE" {
		t.Errorf("the copy goes on with %s", told(page))
	}

	run("pg_restore", "--clean", "--exit-on-error", "--dbname="+f.pool.Config().ConnConfig.Database, dump)
	f.Do(t, identity.Viewer, http.MethodGet, changesPath+"?after="+lost.Next, nil).Problem(http.StatusConflict, "conflict")
	if page := changesOf(t, f.Service, ""); told(page) != told(original) {
		t.Errorf("restored over, the feed tells %s", told(page))
	}
}

// pgTool runs PostgreSQL's programs on the tests' server.
func pgTool(t *testing.T, database string) func(program string, args ...string) {
	cluster, password := pgtest.Cluster(t)
	return func(program string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(cluster.Bin, program), args...)
		cmd.Env = append(os.Environ(), "PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", cluster.Port), "PGUSER="+postgres.Superuser,
			"PGPASSWORD="+password, "PGDATABASE="+database)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", program, err, out)
		}
	}
}

// restoredCopy serves a dump from another database, as a role that may do no more than a service's.
func restoredCopy(t *testing.T, dump string) *servertest.Service {
	t.Helper()
	cluster, password := pgtest.Cluster(t)
	run := pgTool(t, "postgres")
	name := "copy_" + strings.ToLower(strings.NewReplacer("/", "", "_", "").Replace(t.Name()))
	run("psql", "--command", fmt.Sprintf("create role %s login password 'secret'", name), "--command", fmt.Sprintf("create database %s owner %[1]s", name))
	t.Cleanup(func() {
		conn, err := cluster.Connect(context.Background(), password, "postgres")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		for _, drop := range []string{"drop database " + name + " with (force)", "drop role " + name} {
			if _, err := conn.Exec(context.Background(), drop); err != nil {
				t.Error(err)
			}
		}
	})
	run("pg_restore", "--exit-on-error", "--no-owner", "--role="+name, "--dbname="+name, dump)
	pool, err := postgres.Open(t.Context(), cluster.Config(name, "secret", name), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	service := servertest.New(t, "student-service", server.Config{})
	Mount(service.Server, NewStore(postgres.NewDB(pool)), DefaultSchool, time.Now)
	return service
}

func TestCursorForm(t *testing.T) {
	t.Parallel()
	c := cursor{[16]byte{1, 2, 3}, 1 << 60}
	if got, ok := parseCursor(c.String()); !ok || got != c || url.QueryEscape(c.String()) != c.String() {
		t.Errorf("%s reads %+v", c, got)
	}
	if _, ok := parseCursor(strings.Join(slices.Repeat([]string{"A"}, 34), "")); ok {
		t.Error("a cursor of another version is read")
	}
}
