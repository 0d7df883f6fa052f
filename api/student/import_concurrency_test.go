package student

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/identity"
)

// serve puts the service behind a real connection.
func (f csvFixture) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(f.Engine)
	t.Cleanup(server.Close)
	return server.URL
}

// TestImportProgress sends a file in pieces: what has come is seen while it comes.
func TestImportProgress(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, func(cfg *CSVConfig) { cfg.Lease = 200 * time.Millisecond })
	url := f.serve(t)
	send := func(body io.Reader) <-chan *http.Response {
		answered := make(chan *http.Response, 1)
		request, err := http.NewRequest(http.MethodPost, url+imports, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+f.Token(t, identity.Clerk))
		request.Header.Set("Content-Type", "text/csv")
		go func() {
			defer close(answered)
			if answer, err := http.DefaultClient.Do(request); err == nil {
				answered <- answer
			}
		}()
		return answered
	}
	newest := func() Import {
		var list Imports
		f.Do(t, identity.Clerk, http.MethodGet, imports, nil).Want(http.StatusOK).Decode(&list)
		if len(list.Content) == 0 {
			return Import{}
		}
		return list.Content[0]
	}
	pieces := func(sender *io.PipeWriter, from, to int) {
		for n := from; n < to; n++ {
			if _, err := io.WriteString(sender, fullRow(n)+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		await(t, fmt.Sprintf("%d rows are seen", to), func() bool { return newest().Progress.Rows == int64(to) })
		if seen := newest(); seen.State != Running || seen.Progress.Phase != Uploading || seen.RowsRead != int64(to) {
			t.Errorf("%+v", seen)
		}
	}
	body, sender := io.Pipe()
	answered := send(body)
	if _, err := io.WriteString(sender, fullHeader+"\n"); err != nil {
		t.Fatal(err)
	}
	pieces(sender, 0, 10)
	pieces(sender, 10, 25)
	f.Do(t, identity.Clerk, http.MethodGet, importPath(newest().ImportID)+"/rejected", nil).Problem(http.StatusConflict, "conflict")
	_ = sender.Close()
	answer := <-answered
	var report ImportReport
	if err := json.NewDecoder(answer.Body).Decode(&report); err != nil || answer.StatusCode != http.StatusCreated || report.RowsCreated != 25 {
		t.Fatalf("%d %+v %v", answer.StatusCode, report, err)
	}
	answer.Body.Close()

	body, sender = io.Pipe() // a caller who goes away
	answered = send(body)
	if _, err := io.WriteString(sender, fullHeader+"\n"); err != nil {
		t.Fatal(err)
	}
	for n := 100; n < 105; n++ {
		if _, err := io.WriteString(sender, fullRow(n)+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the second upload is seen", func() bool { return newest().Progress.Rows == 5 })
	_ = sender.CloseWithError(errors.New("gone"))
	<-answered
	await(t, "the second upload ends", func() bool { return newest().State != Running })
	report = ImportReport{}
	f.Do(t, identity.Clerk, http.MethodGet, importPath(newest().ImportID), nil).Want(http.StatusOK).Decode(&report)
	if report.State != Failed || len(report.Errors) != 1 || report.Errors[0].Code != "upload-incomplete" || f.count(t, "select count(*) from student") != 25 {
		t.Errorf("%+v", report)
	}
}

// TestOthersWriteDuringImport holds an import still in the middle of its writes: others go on, and what they write is not written over
// unseen.
func TestOthersWriteDuringImport(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, func(cfg *CSVConfig) { cfg.Wait = time.Millisecond })
	var file strings.Builder
	file.WriteString(fullHeader + "\n")
	for n := range 50 {
		file.WriteString(fullRow(n) + "\n")
	}
	bystander, etag := f.create(t, func(in *Input) { in.Mobile = "9800000001" })
	registering := begin(t, f.pool, insertTaken, "STU-2025-00002", "9000000030")
	if _, err := registering.Exec(t.Context(), `insert into student_audit (student_id, version, action, changed_by, request_id, after)
		select student_id, version, 'CREATED', 'test', 'r', to_jsonb(student) from student where student_id = 'STU-2025-00002'`); err != nil {
		t.Fatal(err)
	}
	if _, err := registering.Exec(t.Context(), `insert into student_change (student_id, version, action, changed_by, request_id)
		values ('STU-2025-00002', 1, 'CREATED', 'test', 'r')`); err != nil {
		t.Fatal(err)
	}
	var taken ImportReport
	answer := f.send(t, "", file.String()).Want(http.StatusAccepted).Decode(&taken)
	if taken.State != Running || taken.RowsRead != 50 || taken.FinishedAt != nil {
		t.Errorf("%s", answer.Body)
	}
	f.blocked(t, "insert into student")
	f.create(t, func(in *Input) { in.Mobile = "9800000002" })
	f.Do(t, identity.Clerk, http.MethodPatch, collection+"/"+bystander.StudentID, `{"caste":"Other"}`, "If-Match", etag).Want(http.StatusOK)
	if err := registering.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	var report ImportReport
	await(t, "the import ends", func() bool {
		f.Do(t, identity.Clerk, http.MethodGet, answer.Header.Get("Location"), nil).Want(http.StatusOK).Decode(&report)
		return report.State != Running
	})
	if got, want := report.summary(), "SUCCEEDED read 50 created 49 updated 1 unchanged 0 rejected 0 deactivated 0: "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f.checkTrail(t)
}

// TestImportsAtOnce imports the same students in different orders while others change them: each write stands on the one before it.
func TestImportsAtOnce(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	second := NewCSV(f.files.store, testCSV, DefaultSchool, noon, f.files.log) // as another process would
	const students = 60
	file := func(seed int) string {
		g := rand.New(rand.NewPCG(uint64(seed), 1))
		lines := []string{fullHeader + ",moles"}
		for _, n := range g.Perm(students) {
			lines = append(lines, fmt.Sprintf("%s,mark %d", fullRow(n), g.IntN(3)))
		}
		return strings.Join(lines, "\n")
	}
	var work sync.WaitGroup
	for seed := range 4 {
		work.Go(func() {
			for round := range 3 {
				reader, h, first, _, err := openCSV(strings.NewReader(file(seed*10+round)), unknownCharset)
				if err != nil {
					t.Error(err)
					return
				}
				c := f.files
				if seed%2 == 1 {
					c = second
				}
				id := f.beginImport(t, c, h)
				if err := c.upload(t.Context(), id, sha256.New(), h, reader, first); err != nil {
					t.Error(err)
					return
				}
				<-c.start(id)
			}
		})
		work.Go(func() {
			g := rand.New(rand.NewPCG(uint64(seed), 2))
			for range 15 {
				var found Page
				mobile := fmt.Sprintf("%010d", 9000000000+g.IntN(students))
				f.Do(t, identity.Clerk, http.MethodGet, collection+"?mobile="+mobile, nil).Want(http.StatusOK).Decode(&found)
				if len(found.Content) == 0 {
					continue
				}
				one := found.Content[0]
				answer := f.Do(t, identity.Clerk, http.MethodPatch, collection+"/"+one.StudentID, fmt.Sprintf(`{"caste":"c%d"}`, g.IntN(9)),
					"If-Match", fmt.Sprintf(`"%d"`, one.Version))
				if answer.Status != http.StatusOK && answer.Status != http.StatusPreconditionFailed {
					t.Errorf("%d %s", answer.Status, answer.Body)
				}
			}
		})
	}
	work.Wait()
	if n := f.count(t, "select count(*) from student_import where state = 'SUCCEEDED' and rows_rejected = 0"); n != 12 {
		t.Errorf("%d imports succeeded", n)
	}
	if n := f.count(t, "select count(*) from student"); n != students {
		t.Errorf("%d students", n)
	}
	f.checkTrail(t)
}

func (f csvFixture) beginImport(t *testing.T, c *CSV, h csvHeader) (id string) {
	t.Helper()
	args := map[string]any{"dry_run": false, "mode": allRows, "confirm": false, "file_name": "", "header": h.names, "separator": ",", "request_id": "r",
		"user": "test", "key": "", "lease": c.cfg.Lease}
	if err := f.pool.QueryRow(t.Context(), insertImport, pgx.NamedArgs(args)).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestImportsAreSwept keeps no personal data longer than it is told to.
func TestImportsAreSwept(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, func(cfg *CSVConfig) { cfg.Keep = time.Millisecond })
	report := f.importCSV(t, "?mode=partial", fullHeader+"\n"+fullRow(1)+"\nx\n")
	if _, err := f.pool.Exec(t.Context(), "insert into student_import_row (import_id, line, faulty, latin1) values ($1, 7, true, false)", report.ImportID); err != nil {
		t.Fatal(err)
	}
	await(t, "the import is forgotten", func() bool {
		if err := f.files.lookAfter(t.Context()); err != nil {
			t.Fatal(err)
		}
		return f.Do(t, identity.Clerk, http.MethodGet, importPath(report.ImportID), nil).Status == http.StatusNotFound
	})
	for _, table := range []string{"student_import", "student_import_row", "student_import_fault"} {
		if n := f.count(t, "select count(*) from "+table); n != 0 {
			t.Errorf("%d rows in %s", n, table)
		}
	}
}

// TestStagedRowsLost empties the staging table under an import, as a crash of the database does.
func TestStagedRowsLost(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, func(cfg *CSVConfig) { cfg.Wait = time.Millisecond })
	waiting := begin(t, f.pool, "select pg_advisory_xact_lock($1)", int64(applying))
	location := f.send(t, "", fullHeader+"\n"+fullRow(1)+"\n").Want(http.StatusAccepted).Header.Get("Location")
	f.blocked(t, "pg_advisory_xact_lock")
	if _, err := f.pool.Exec(t.Context(), "truncate student_import_row"); err != nil {
		t.Fatal(err)
	}
	rollback(t, waiting)
	var report ImportReport
	await(t, "the import ends", func() bool {
		f.Do(t, identity.Clerk, http.MethodGet, location, nil).Want(http.StatusOK).Decode(&report)
		return report.State != Running
	})
	if report.State != Failed || len(report.Errors) != 1 || report.Errors[0].Code != "upload-lost" || f.count(t, "select count(*) from student") != 0 {
		t.Errorf("%+v", report)
	}
}

// TestExportIsCutOff ends the database's side of an export half way: nobody takes what has come for the whole.
func TestExportIsCutOff(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	var file strings.Builder
	file.WriteString(fullHeader + "\n")
	const students = 40_000 // more than connections hold on their way
	for n := range students {
		file.WriteString(fullRow(n) + "\n")
	}
	f.importCSV(t, "", file.String())
	request, err := http.NewRequest(http.MethodGet, f.serve(t)+collection+"/export", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+f.Token(t, identity.Clerk))
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", answer, err)
	}
	defer answer.Body.Close()
	if _, err := io.ReadFull(answer.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	await(t, "the export's connection is ended", func() bool {
		return f.count(t, `select count(pg_terminate_backend(pid)) from pg_stat_activity
			where datname = current_database() and state = 'idle in transaction'`) > 0
	})
	if rest, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("%d bytes more, and no error", len(rest))
	}
}
