package student

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

var testCSV = CSVConfig{MaxBytes: 64 << 20, Wait: 30 * time.Second, MaxDeactivationPercent: 10, Keep: time.Hour, Lease: 15 * time.Second,
	StatementTimeout: time.Minute, MaxExports: 2, WriteTimeout: 10 * time.Second}

// csvFixture is a service that takes files.
type csvFixture struct {
	fixture
	files *CSV
}

func newCSVFixture(t *testing.T, change func(*CSVConfig)) csvFixture {
	t.Helper()
	f := csvFixture{fixture: newFixture(t)}
	cfg := testCSV
	if change != nil {
		change(&cfg)
	}
	f.files = NewCSV(NewStore(postgres.NewDB(f.pool)), cfg, DefaultSchool, noon, slog.New(slog.DiscardHandler))
	f.files.Mount(f.Server)
	t.Cleanup(func() {
		if err := f.files.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return f
}

func noon() time.Time {
	return time.Date(today.Year, today.Month, today.Day, 12, 0, 0, 0, DefaultSchool().Zone)
}

// importCSV sends a file and reads the report.
func (f csvFixture) importCSV(t *testing.T, query, file string) ImportReport {
	t.Helper()
	var report ImportReport
	answer := f.send(t, query, file).Want(http.StatusCreated).Decode(&report)
	if got, want := answer.Header.Get("Location"), importPath(report.ImportID); got != want {
		t.Errorf("Location %q, want %q", got, want)
	}
	if read := f.Do(t, identity.Clerk, http.MethodGet, importPath(report.ImportID), nil).Want(http.StatusOK); string(read.Body) != string(answer.Body) {
		t.Errorf("GET answers %s, POST %s", read.Body, answer.Body)
	}
	return report
}

func (f csvFixture) send(t *testing.T, query, file string, headers ...string) servertest.Answer {
	t.Helper()
	return f.Do(t, identity.Clerk, http.MethodPost, imports+query, file, append([]string{"Content-Type", "text/csv"}, headers...)...)
}

// summary is what a report says, in a line.
func (r ImportReport) summary() string {
	var errs []string
	for _, e := range r.Errors {
		errs = append(errs, fmt.Sprintf("%d %s %s", e.Line, e.Column, e.Code))
	}
	slices.SortFunc(errs, func(a, b string) int { // by line; within one, in any order
		var m, n int
		_, _ = fmt.Sscan(a, &m)
		_, _ = fmt.Sscan(b, &n)
		return cmp.Or(m-n, strings.Compare(a, b))
	})
	return fmt.Sprintf("%s read %d created %d updated %d unchanged %d rejected %d deactivated %d: %s", r.State, r.RowsRead, r.RowsCreated,
		r.RowsUpdated, r.RowsUnchanged, r.RowsRejected, r.Deactivated, strings.Join(errs, ", "))
}

func (f csvFixture) wantImport(t *testing.T, query, file, want string) ImportReport {
	t.Helper()
	report := f.importCSV(t, query, file)
	if got := report.summary(); got != want {
		t.Errorf("import %s of\n%s\n%s\nwant %s", query, file, got, want)
	}
	return report
}

const fullHeader = "firstName,lastName,dateOfBirth,street,city,state,pinCode,country,mobile,fatherNameOrGuardian,motherName,caste"

func fullRow(n int) string {
	return fmt.Sprintf("Asha,Patil,2016-06-30,%d Lake Road,Pune,Maharashtra,411001,India,%010d,Ravi Patil,Meera Patil,General", n, 9000000000+n)
}

func TestImportCreatesUpdatesAndLeaves(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	file := fullHeader + "\n" + fullRow(1) + "\n" + fullRow(2) + "\n"
	f.wantImport(t, "?dryRun=true", file, "SUCCEEDED read 2 created 2 updated 0 unchanged 0 rejected 0 deactivated 0: ")
	if n := f.count(t, "select count(*) from student"); n != 0 {
		t.Fatalf("a dry run wrote %d students", n)
	}
	f.wantImport(t, "", file, "SUCCEEDED read 2 created 2 updated 0 unchanged 0 rejected 0 deactivated 0: ")
	f.wantImport(t, "", file, "SUCCEEDED read 2 created 0 updated 0 unchanged 2 rejected 0 deactivated 0: ")
	if n := f.count(t, "select count(*) from student_audit"); n != 2 {
		t.Fatalf("%d audit rows", n)
	}
	var found Page
	f.Do(t, identity.Clerk, http.MethodGet, collection+"?sort=createdAt,asc", nil).Want(http.StatusOK).Decode(&found)
	b, _ := json.Marshal(found.Content)
	t.Logf("%s", b)
	out := f.Do(t, identity.Clerk, http.MethodGet, collection+"/export", nil).Want(http.StatusOK)
	t.Logf("%s", out.Body)
	records, err := csv.NewReader(strings.NewReader(string(out.Body))).ReadAll()
	if err != nil || len(records) != 3 {
		t.Fatal(err, records)
	}
	f.wantImport(t, "", string(out.Body), "SUCCEEDED read 2 created 0 updated 0 unchanged 2 rejected 0 deactivated 0: ")
}
