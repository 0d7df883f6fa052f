package student

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

var testCSV = CSVConfig{MaxBytes: 64 << 20, Wait: 2 * time.Minute, MaxDeactivationPercent: 10, Keep: time.Hour, Lease: 15 * time.Second,
	StatementTimeout: 2 * time.Minute, MaxExports: 2, WriteTimeout: 10 * time.Second}

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

func TestImportIsRememberedByItsKey(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	file := fullHeader + "\n" + fullRow(1) + "\n" + fullRow(2) + "\n"
	first := f.send(t, "", file, "Idempotency-Key", "k").Want(http.StatusCreated)
	again := f.send(t, "", file, "Idempotency-Key", "k").Want(http.StatusCreated)
	if string(again.Body) != string(first.Body) || again.Header.Get("Location") != first.Header.Get("Location") {
		t.Errorf("answered %s, first %s", again.Body, first.Body)
	}
	for query, other := range map[string]string{"": file + "\n", "?dryRun=true": file} {
		faults := f.send(t, query, other, "Idempotency-Key", "k").Faults(http.StatusUnprocessableEntity, "validation-error")
		if faults["Idempotency-Key"] != "reused" {
			t.Errorf("%q: faults %v", query, faults)
		}
	}
	if n := f.count(t, "select count(*) from student_import"); n != 1 {
		t.Errorf("%d imports, want 1", n)
	}
	if _, err := f.pool.Exec(t.Context(), "update student_import set state = 'RUNNING', body_digest = null"); err != nil { // as while the file comes
		t.Fatal(err)
	}
	f.send(t, "", file, "Idempotency-Key", "k").Problem(http.StatusConflict, "conflict")
	if _, err := f.pool.Exec(t.Context(), "update student_import set state = 'FAILED'"); err != nil {
		t.Fatal(err)
	}
	if next := f.send(t, "", file, "Idempotency-Key", "k").Want(http.StatusCreated); next.Header.Get("Location") == first.Header.Get("Location") {
		t.Error("an import that failed was answered again")
	}
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
	report := f.wantImport(t, "?fileName=class-5.csv", file, "SUCCEEDED read 2 created 2 updated 0 unchanged 0 rejected 0 deactivated 0: ")
	if report.FileName != "class-5.csv" || report.CreatedBy != "clerk" || report.FinishedAt == nil || report.Progress != (ImportProgress{Done, 2}) {
		t.Errorf("report %+v", report)
	}
	f.wantImport(t, "", file, "SUCCEEDED read 2 created 0 updated 0 unchanged 2 rejected 0 deactivated 0: ")
	if single, _ := f.create(t, nil); single.StudentID != "STU-2026-00003" {
		t.Errorf("the next single student is %s", single.StudentID)
	}
	// A column that is absent leaves what is stored, an empty cell takes it away, and of the status alone the history says so.
	f.wantImport(t, "", "mobile,email,aadhaarNumber\n9000000001,a@example.com,123412341234\n", "SUCCEEDED read 1 created 0 updated 1 unchanged 0 rejected 0 deactivated 0: ")
	f.wantImport(t, "", "studentId,aadhaarNumber\nSTU-2026-00001,XXXX-XXXX-1234\n", "SUCCEEDED read 1 created 0 updated 0 unchanged 1 rejected 0 deactivated 0: ")
	f.wantImport(t, "", "studentId,aadhaarNumber\nSTU-2026-00001,XXXX-XXXX-4321\n", "REJECTED read 1 created 0 updated 0 unchanged 0 rejected 1 deactivated 0: 2 aadhaarNumber wrong-format")
	f.wantImport(t, "?confirm=true", "status,studentId,email\nINACTIVE,STU-2026-00001,\n", "SUCCEEDED read 1 created 0 updated 1 unchanged 0 rejected 0 deactivated 1: ")
	f.wantImport(t, "?confirm=true", "studentId,status\nSTU-2026-00001,ACTIVE\nSTU-2026-00002,INACTIVE\n", "SUCCEEDED read 2 created 0 updated 2 unchanged 0 rejected 0 deactivated 1: ")
	var history History
	f.Do(t, identity.Clerk, http.MethodGet, collection+"/STU-2026-00001/history", nil).Want(http.StatusOK).Decode(&history)
	var actions []Action
	for _, entry := range history.Content {
		actions = append(actions, entry.Action)
	}
	if last := history.Content[0].After; !slices.Equal(actions, []Action{StatusChanged, Updated, Updated, Created}) || last.Email != "" ||
		last.AadhaarNumber != "XXXX-XXXX-1234" || last.Address.Street != "1 Lake Road" || history.Content[0].ChangedBy != "clerk" {
		t.Errorf("history %v, in the end %+v", actions, last)
	}
	f.checkTrail(t)
	if log := f.Log.String(); strings.Contains(log, "9000000001") || strings.Contains(log, "Asha") || strings.Contains(log, "2016-06-30") {
		t.Error("personal data in the log")
	}
}

func TestImportNamesEveryError(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	old, _ := f.create(t, func(in *Input) { in.Mobile = "9000000001" })
	other, _ := f.create(t, func(in *Input) { in.Mobile = "9000000002" })
	f.Do(t, identity.Operator, http.MethodPost, collection, validInput(), "X-SMS-Synthetic", "true").Want(http.StatusCreated)
	synthetic := ""
	if err := f.pool.QueryRow(t.Context(), "select student_id from student where synthetic").Scan(&synthetic); err != nil {
		t.Fatal(err)
	}
	header := "studentId,mobile,status,dateOfBirth,firstName,motherName\n"
	rows := strings.Join([]string{
		old.StudentID + ",9000000001,GONE,2016-06-30,A,",       // 2
		"STU-2026-99999,9000000003,,2016-06-30,Asha,Meera",     // 3
		synthetic + ",,,2016-06-30,Asha,Meera",                 // 4
		",9000000001,,2016-06-30,Asha,Meera",                   // 5: again line 2
		other.StudentID + ",9000000001,,2030-01-01,Asha,Meera", // 6: the number of line 2
		",9000000009,,2016-06-30,Asha,Meera",                   // 7: new, without the other columns
		"x\"y",                                                 // 8
		"\"a\nb\",9000000010",                                  // 9 and 10
		"nobody,12,,1950-01-01,\"As\nha\",Meera",               // 11 and 12
		old.StudentID + ",9000000002,,2016-06-30,Asha,Meera",   // 13: again line 2, and the number of somebody else
		",,,,,", // 14: nothing
		"",      // 15
		"\"" + strings.Repeat("x", longestCell+1) + "\",,,,Asha,", // 16
	}, "\n")
	absent := "address.street address.city address.state address.pinCode address.country lastName fatherNameOrGuardian caste"
	var missing []string
	for _, name := range strings.Fields(absent) {
		missing = append(missing, "7 "+name+" required")
	}
	slices.Sort(missing)
	want := "REJECTED read 11 created 0 updated 0 unchanged 0 rejected 11 deactivated 0: 2 firstName too-short, 2 motherName required, " +
		"2 status not-allowed, 3 studentId not-found, 4 mobile required, 4 studentId not-found, 5 mobile duplicate, 6 dateOfBirth out-of-range, 6 mobile duplicate, " +
		strings.Join(missing, ", ") + ", 8  wrong-format, 9  wrong-format, 11 firstName wrong-format, 11 mobile wrong-format, 11 studentId not-found, " +
		"13 studentId duplicate, 16 dateOfBirth not-a-date, 16 mobile required, 16 motherName required, 16 studentId too-long"
	report := f.wantImport(t, "", header+rows, want)
	for _, e := range report.Errors {
		if e.Detail == "" || strings.ContainsAny(e.Detail, "@") || strings.Contains(e.Detail, "9000000001") {
			t.Errorf("detail %q", e.Detail)
		}
	}
	f.wantImport(t, "?dryRun=true", header+rows, want)
	f.checkTrail(t)
}

// TestImportPartly takes the good rows, hands out the bad ones, and takes those when they are mended.
func TestImportPartly(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	bad := strings.Replace(fullRow(2), "Pune", "", 1)
	file := strings.Join([]string{fullHeader, fullRow(1), bad, fullRow(1), "x", fullRow(3)}, "\r\n")
	file = strings.ReplaceAll(file, ",", ";")
	report := f.wantImport(t, "?mode=partial", file,
		"SUCCEEDED read 5 created 2 updated 0 unchanged 0 rejected 3 deactivated 0: 3 address.city required, 4 mobile duplicate, 5  wrong-format")
	answer := f.Do(t, identity.Clerk, http.MethodGet, report.RejectedCSV, nil).Want(http.StatusOK)
	lines := strings.Split(strings.TrimSpace(string(answer.Body)), "\r\n")
	if len(lines) != 4 || answer.Header.Get("Content-Type") != "text/csv; charset=utf-8" || lines[0] != strings.ReplaceAll(fullHeader, ",", ";")+";errors" ||
		lines[1] != strings.ReplaceAll(bad, ",", ";")+";line 3: address.city: must not be empty" {
		t.Fatalf("%s\n%q", answer.Body, lines)
	}
	mended := strings.Join([]string{lines[0], strings.Replace(lines[1], ";;", ";Mumbai;", 1)}, "\n")
	f.wantImport(t, "", mended, "SUCCEEDED read 1 created 1 updated 0 unchanged 0 rejected 0 deactivated 0: ")

	none := f.wantImport(t, "", file, "REJECTED read 5 created 0 updated 0 unchanged 0 rejected 3 deactivated 0: "+
		"3 address.city required, 4 mobile duplicate, 5  wrong-format")
	if again := f.Do(t, identity.Clerk, http.MethodGet, none.RejectedCSV, nil).Want(http.StatusOK); !strings.Contains(string(again.Body), lines[1]+"\r\n") {
		t.Errorf("rejected of all or nothing: %s", again.Body)
	}
	twice := f.importCSV(t, "?mode=partial", string(answer.Body))
	header := f.Do(t, identity.Clerk, http.MethodGet, twice.RejectedCSV, nil).Want(http.StatusOK).Body
	if first, _, _ := strings.Cut(string(header), "\r\n"); first != lines[0] {
		t.Errorf("rejected of the rejected has the columns %s", first)
	}
	f.checkTrail(t)
}

func TestImportMayNotDeactivateMany(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	header, all := fullHeader+",status\n", ""
	for n := range 20 {
		all += fullRow(n) + ",ACTIVE\n"
	}
	f.importCSV(t, "", header+all)
	deactivate := func(n int) string { return header + strings.Replace(all, "ACTIVE", "INACTIVE", n) }
	const rejected = "REJECTED read 20 created 0 updated 0 unchanged 0 rejected 0 deactivated 0: 0 status too-many-deactivations"
	f.wantImport(t, "?dryRun=true", deactivate(3), rejected)
	report := f.wantImport(t, "?mode=partial", deactivate(3), rejected)
	if report.RejectedCSV != "" || !strings.HasPrefix(report.Errors[0].Detail, "3 of 20 active students") {
		t.Errorf("report %+v", report)
	}
	f.wantImport(t, "", deactivate(2), "SUCCEEDED read 20 created 0 updated 2 unchanged 18 rejected 0 deactivated 2: ")
	f.wantImport(t, "?confirm=true", deactivate(20), "SUCCEEDED read 20 created 0 updated 18 unchanged 2 rejected 0 deactivated 18: ")
	f.checkTrail(t)
}

func TestImportEncodings(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	row := func(n int, name string) string { return strings.Replace(fullRow(n), "Asha", name, 1) + "\n" }
	file := func(rows ...string) string { return fullHeader + "\n" + strings.Join(rows, "") }
	const one, two = "SUCCEEDED read 1 created 1 updated 0 unchanged 0 rejected 0 deactivated 0: ", "SUCCEEDED read 2 created 2 updated 0 unchanged 0 rejected 0 deactivated 0: "
	f.wantImport(t, "", file(row(1, "Ren\xe9"), row(2, "Zo\xeb")), two)
	f.wantImport(t, "", file(row(3, "\u0906\u0936\u093e"), row(4, "Rene\u0301")), two)
	f.wantImport(t, "", "\ufeff"+file(row(5, "Ren\u00e9")), one)
	f.wantImport(t, "", file(row(6, "Ren\u00e9"), row(7, "Ren\xe9")),
		"REJECTED read 2 created 0 updated 0 unchanged 0 rejected 1 deactivated 0: 3  wrong-encoding")
	f.wantImport(t, "", "\ufeff"+file(row(8, "Ren\xe9")),
		"REJECTED read 1 created 0 updated 0 unchanged 0 rejected 1 deactivated 0: 2  wrong-encoding")
	as := func(charset, file, want string) {
		t.Helper()
		var report ImportReport
		f.send(t, "", file, "Content-Type", "text/csv; charset="+charset).Want(http.StatusCreated).Decode(&report)
		if got := report.summary(); got != want {
			t.Errorf("%s: %s, want %s", charset, got, want)
		}
	}
	as("ISO-8859-1", file(row(9, "Ren\xe9"), row(10, "Zo\u00eb")),
		"REJECTED read 2 created 0 updated 0 unchanged 0 rejected 1 deactivated 0: 3 firstName wrong-format") // Zo, A with tilde, <<
	as("windows-1252", file(row(9, "Ren\xe9")), one)
	as("utf-8", file(row(10, "Ren\xe9")), "REJECTED read 1 created 0 updated 0 unchanged 0 rejected 1 deactivated 0: 2  wrong-encoding")
	rows, err := f.pool.Query(t.Context(), "select first_name from student order by mobile")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if want := []string{"René", "Zoë", "आशा", "René", "René", "René"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %q (%v), want %q", names, err, want)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, func(cfg *CSVConfig) { cfg.MaxBytes = 2 << 20 })
	file := fullHeader + "\n" + fullRow(1) + "\n"
	for _, mediaType := range []string{"application/json", "text/plain", "multipart/form-data; boundary=x", "", "text/csv; charset=utf-16"} {
		f.send(t, "", file, "Content-Type", mediaType).Problem(http.StatusUnsupportedMediaType, "validation-error")
	}
	f.send(t, "", fullHeader+"\n"+strings.Repeat("x", 2<<20)).Problem(http.StatusRequestEntityTooLarge, "payload-too-large")
	request := httptest.NewRequest(http.MethodPost, imports, io.MultiReader(strings.NewReader(file), strings.NewReader(strings.Repeat("x\n", 1<<20))))
	request.ContentLength = -1
	request.Header.Set("Content-Type", "text/csv")
	request.Header.Set("Authorization", "Bearer "+f.Token(t, identity.Clerk))
	recorder := httptest.NewRecorder()
	f.Engine.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
	f.Do(t, identity.Clerk, http.MethodPost, collection, strings.Repeat(" ", 1<<20)+"{}").Problem(http.StatusRequestEntityTooLarge, "payload-too-large")

	faults := f.send(t, "?mode=some&dry=1&fileName="+strings.Repeat("x", 201), file).Faults(http.StatusUnprocessableEntity, "validation-error")
	if want := map[string]string{"mode": "not-allowed", "dry": "unknown-field", "fileName": "too-long"}; !maps.Equal(faults, want) {
		t.Errorf("faults %v", faults)
	}
	faults = f.send(t, "", "mobile,nick,Mobile\n1,2,3\n").Faults(http.StatusUnprocessableEntity, "validation-error")
	if want := map[string]string{"nick": "unknown-field", "Mobile": "duplicate"}; !maps.Equal(faults, want) {
		t.Errorf("faults %v", faults)
	}
	for _, empty := range []string{"", "\ufeff", "mobile\n"} {
		if faults := f.send(t, "", empty).Faults(http.StatusUnprocessableEntity, "validation-error"); faults[""] != "required" {
			t.Errorf("%q: faults %v", empty, faults)
		}
	}
	if n := f.count(t, "select count(*) from student_import where state <> 'FAILED'"); n != 0 {
		t.Errorf("%d imports of what was refused", n)
	}
	const none = "00000000-0000-0000-0000-000000000000"
	for _, path := range []string{importPath(none), importPath(none) + "/rejected", importPath("%00"), importPath("x") + "/rejected"} {
		answer := f.Do(t, identity.Clerk, http.MethodGet, path, nil)
		if answer.Status != http.StatusNotFound && answer.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", path, answer.Status, answer.Body)
		}
	}
	for _, role := range []identity.Role{identity.Viewer, identity.Operator} {
		for _, path := range []string{imports, importPath(none), importPath(none) + "/rejected", collection + "/export"} {
			f.Do(t, role, http.MethodGet, path, nil).Problem(http.StatusForbidden, "forbidden")
		}
		f.Do(t, role, http.MethodPost, imports, file, "Content-Type", "text/csv").Problem(http.StatusForbidden, "forbidden")
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	f := newCSVFixture(t, nil)
	var file strings.Builder
	file.WriteString(fullHeader + ",aadhaarNumber,status\n")
	for n := range 2*exportedAtOnce + 1 {
		street := map[int]string{0: "'=HYPERLINK(1)", 1: "''-x", 2: "+1", 3: "\"a, \"\"b\"\"\""}[n]
		row := fullRow(n) + fmt.Sprintf(",%012d,%s", n, map[bool]string{true: "ACTIVE", false: "INACTIVE"}[n%7 > 0])
		if street != "" {
			row = strings.Replace(row, fmt.Sprintf("%d Lake Road", n), street, 1)
		}
		file.WriteString(row + "\n")
	}
	f.importCSV(t, "", file.String())
	f.Do(t, identity.Operator, http.MethodPost, collection, validInput(), "X-SMS-Synthetic", "true").Want(http.StatusCreated)
	written := f.count(t, "select count(*) from student_audit")

	export := func(query string) ([][]string, string) {
		answer := f.Do(t, identity.Clerk, http.MethodGet, collection+"/export"+query, nil).Want(http.StatusOK)
		if answer.Header.Get("Content-Type") != "text/csv; charset=utf-8" || answer.Header.Get("Cache-Control") != "no-store" ||
			answer.Header.Get("Content-Disposition") != `attachment; filename="students-2026-11-23.csv"` {
			t.Errorf("headers %v", answer.Header)
		}
		rows, err := csv.NewReader(bytes.NewReader(answer.Body)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows, string(answer.Body)
	}
	rows, whole := export("")
	if len(rows) != 2*exportedAtOnce+2 {
		t.Fatalf("%d rows", len(rows))
	}
	for n, want := range []string{"'=HYPERLINK(1)", "''-x", "'+1", `a, "b"`} {
		if street, aadhaar := rows[n+1][4], rows[n+1][15]; street != want || aadhaar != fmt.Sprintf("XXXX-XXXX-%04d", n) {
			t.Errorf("row %d: street %q, want %q; Aadhaar %q", n, street, want, aadhaar)
		}
	}
	f.wantImport(t, "", whole, fmt.Sprintf("SUCCEEDED read %[1]d created 0 updated 0 unchanged %[1]d rejected 0 deactivated 0: ", 2*exportedAtOnce+1))
	if n := f.count(t, "select count(*) from student_audit"); n != written {
		t.Errorf("importing an export wrote %d times", n-written)
	}
	if found, _ := export("?status=INACTIVE&firstName=as&minAge=3"); len(found) != (2*exportedAtOnce+1+6)/7+1 {
		t.Errorf("%d rows of inactive students", len(found))
	}
	if found, _ := export("?mobile=9000000003"); len(found) != 2 || found[1][0] != "STU-2026-00004" {
		t.Errorf("by mobile: %q", found)
	}
	faults := f.Do(t, identity.Clerk, http.MethodGet, collection+"/export?status=GONE&page=1&minAge=9&maxAge=5", nil).
		Faults(http.StatusUnprocessableEntity, "validation-error")
	if want := map[string]string{"status": "not-allowed", "page": "unknown-field", "minAge": "out-of-range"}; !maps.Equal(faults, want) {
		t.Errorf("faults %v", faults)
	}
	for range cap(f.files.exports) {
		f.files.exports <- struct{}{}
	}
	f.Do(t, identity.Clerk, http.MethodGet, collection+"/export", nil).Problem(http.StatusServiceUnavailable, "unavailable")
}
