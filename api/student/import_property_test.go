package student

import (
	"context"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/text/unicode/norm"

	"github.com/school-sms/sms/internal/identity"
)

// TestImportProperty imports generated files, each as a dry run, for real, and again. What is found and written must be what a reckoning
// in Go says, which knows the rules of single writes and the students before the file.
func TestImportProperty(t *testing.T) {
	t.Parallel()
	const files = 240
	f := newCSVFixture(t, nil)
	states := map[ImportState]int{}
	for seed := range files {
		g := &generator{Rand: rand.New(rand.NewPCG(uint64(seed), 3)), students: f.students(t)}
		file := g.file()
		query := fmt.Sprintf("?mode=%s&confirm=%t", g.pick("all", "partial"), g.oneIn(3))
		want := g.reckon(file, query)
		if !f.checkFile(t, file, query, want) {
			t.Fatalf("seed %d, %s:\n%q", seed, query, file.encoded)
		}
		states[want.state]++
	}
	if states[Succeeded] < files/5 || states[Rejected] < files/5 {
		t.Errorf("the files are one-sided: %v", states)
	}
	f.checkTrail(t)
}

// checkTrail wants each student's record to be what its last audit row says, and as many audit and change rows as there were writes.
func (f csvFixture) checkTrail(t *testing.T) {
	t.Helper()
	if n := f.count(t, `select count(*) from (select `+recordColumns+` from student) s left join student_audit a using (student_id, version)
		where a.after is distinct from to_jsonb(s)`); n != 0 {
		t.Errorf("%d records are not what their last audit row says", n)
	}
	if n := f.count(t, `select count(*) from student_audit a left join student_audit b on b.student_id = a.student_id and b.version = a.version - 1
		where a.before is distinct from b.after or (a.action = 'CREATED') <> (a.version = 1)
			or a.action = 'STATUS_CHANGED' and (a.before ->> 'status' = a.after ->> 'status'
				or a.before - '{status,version,updated_at,updated_by}'::text[] <> a.after - '{status,version,updated_at,updated_by}'::text[])`); n != 0 {
		t.Errorf("%d audit rows do not start where the one before ended", n)
	}
	const key = "select student_id, version, action, changed_at, changed_by, request_id from "
	if n := f.count(t, `select count(*) from (((`+key+`student_audit where student_id not in (select student_id from student where synthetic)) except all (`+key+`student_change))
		union all ((`+key+`student_change) except all (`+key+`student_audit))) as d`); n != 0 {
		t.Errorf("%d audit and change rows differ", n)
	}
}

func (f csvFixture) checkFile(t *testing.T, file csvFile, query string, want reckoning) (ok bool) {
	t.Helper()
	before := f.count(t, "select count(*) from student_audit")
	dry, rehearsed := f.importCSV(t, query+"&dryRun=true", file.encoded), f.count(t, "select count(*) from student_audit")
	report := f.importCSV(t, query, file.encoded)
	if rehearsed != before {
		t.Errorf("the dry run wrote %d times", rehearsed-before)
		return false
	}
	if diff := cmp.Diff(dry.Errors, report.Errors); diff != "" || dry.summary() != report.summary() {
		t.Errorf("dry run: %s\nreal run: %s\n%s", dry.summary(), report.summary(), diff)
		return false
	}
	if got := report.summary(); got != want.summary() {
		t.Errorf("reported:\n%s\nreckoned:\n%s", got, want.summary())
		return false
	}
	found := map[string]Details{}
	for _, r := range f.students(t) {
		found[r.Mobile+string(r.Status)] = r.Details
	}
	if diff := cmp.Diff(want.after, found); diff != "" {
		t.Errorf("students (-reckoned +stored): %s", diff)
		return false
	}
	if report.RowsRejected > 0 && !f.checkRejected(t, file, report) {
		return false
	}
	if want.state == Succeeded && report.RowsRejected == 0 {
		written := f.count(t, "select count(*) from student_audit")
		again := f.importCSV(t, query, file.encoded)
		if n := f.count(t, "select count(*) from student_audit"); again.RowsUnchanged != again.RowsRead || n != written {
			t.Errorf("again: %s, %d writes", again.summary(), n-written)
			return false
		}
	}
	return true
}

// checkRejected wants the rejected rows to be those of the report, as they stand in the file but for how they are spelt.
func (f csvFixture) checkRejected(t *testing.T, file csvFile, report ImportReport) bool {
	t.Helper()
	answer := f.Do(t, identity.Clerk, http.MethodGet, report.RejectedCSV, nil).Want(http.StatusOK)
	in := csv.NewReader(strings.NewReader(string(answer.Body)))
	in.Comma = rune(file.comma[0])
	rows, err := in.ReadAll()
	if err != nil || int64(len(rows)) != report.RowsRejected+1 || rows[0][len(rows[0])-1] != "errors" {
		t.Errorf("rejected (%v): %s", err, answer.Body)
		return false
	}
	next := 1
	for _, row := range file.rows {
		if !slices.ContainsFunc(report.Errors, func(e ImportError) bool { return e.Line == row.line }) {
			continue
		}
		for i, name := range file.header {
			if column := columnsByName[strings.ToLower(name)]; row.broken != "" || column == ignoredColumn || column == idColumn {
				continue
			}
			if got, want := unguardFormula(rows[next][i]), row.cells[i]; norm.NFC.String(strings.TrimSpace(got)) != norm.NFC.String(strings.TrimSpace(want)) {
				t.Errorf("line %d, %s: %q came back as %q", row.line, name, want, got)
				return false
			}
		}
		if !strings.HasPrefix(rows[next][len(rows[next])-1], fmt.Sprintf("line %d: ", row.line)) {
			t.Errorf("line %d: errors %q", row.line, rows[next])
			return false
		}
		next++
	}
	return true
}

func (f csvFixture) students(t *testing.T) []Record {
	t.Helper()
	rows, _ := f.pool.Query(context.Background(), "select "+recordColumns+" from student order by student_id")
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// reckoning is what must become of a file.
type reckoning struct {
	report ImportReport
	state  ImportState
	// after are the students in the end by mobile and status.
	after map[string]Details
}

func (r reckoning) summary() string { return r.report.summary() }

func (g *generator) reckon(file csvFile, query string) reckoning {
	r := reckoning{after: map[string]Details{}, state: Succeeded}
	byID, byMobile := map[string]Record{}, map[string]Record{}
	active := int64(0)
	for _, s := range g.students {
		byID[s.StudentID], byMobile[s.Mobile] = s, s
		r.after[s.Mobile+string(s.Status)] = s.Details
		if s.Status == Active {
			active++
		}
	}
	type change struct {
		old Record
		new Details
		to  Status
	}
	var changes []change
	firstOf, firstMobile := map[string]int64{}, map[string]int64{}
	for _, row := range file.rows {
		r.report.RowsRead++
		var errs []ImportError
		add := func(column, code string) { errs = append(errs, ImportError{row.line, RowFault{column, code, ""}}) }
		if row.broken != "" {
			add("", "wrong-format")
			r.report.RowsRejected++
			r.report.Errors = append(r.report.Errors, errs...)
			continue
		}
		var in Input
		id, status, present := "", "", map[string]bool{}
		for i, name := range file.header {
			switch column := columnsByName[strings.ToLower(name)]; {
			case column == idColumn:
				id = strings.TrimSpace(row.cells[i])
			case column == statusColumn:
				status = row.cells[i]
			case column >= 0:
				present[csvColumns[column].name] = true
				csvColumns[column].set(&in, row.cells[i])
			}
		}
		mobile := strings.TrimSpace(in.Mobile)
		validMobile := len(mobile) == 10 && onlyDigits.MatchString(mobile)
		old, known := byMobile[mobile]
		if id != "" {
			old, known = byID[id]
		} else if !validMobile {
			known = false
		}
		rules := Rules{Ages: DefaultSchool().Ages, Registered: today}
		if known {
			rules.Registered, rules.Current = DateOf(old.CreatedAt.In(DefaultSchool().Zone)), &old.Details
		}
		merged := inputOf(old.Details)
		for _, column := range csvColumns {
			if present[column.name] || !known {
				column.set(&merged, csvCell(slices.IndexFunc(csvColumns, func(c csvColumn) bool { return c.name == column.name }), in))
			}
		}
		details, faults := rules.Check(merged)
		for _, f := range faults {
			lone := id != "" && !known || id == "" && !validMobile // it is not known who this is
			switch {
			case !present[f.Field] && (known || lone):
			case !present[f.Field]:
				add(f.Field, "required")
			case lone && id != "" && f.Field == "dateOfBirth" && f.Code == "out-of-range" && in.DateOfBirth[0] != '0':
			case lone && id != "" && f.Field == "aadhaarNumber" && isMask(*in.AadhaarNumber):
			default:
				add(f.Field, f.Code)
			}
		}
		switch {
		case id != "" && !known:
			add("studentId", "not-found")
		case known && firstOf[old.StudentID] > 0:
			add(map[bool]string{true: "studentId", false: "mobile"}[id != ""], "duplicate")
		case validMobile && firstMobile[mobile] > 0:
			add("mobile", "duplicate")
		case known && validMobile && byMobile[mobile].StudentID != "" && byMobile[mobile].StudentID != old.StudentID:
			add("mobile", "duplicate")
		}
		if id != "" && !known && validMobile && firstMobile[mobile] > 0 {
			add("mobile", "duplicate")
		}
		if known && firstOf[old.StudentID] == 0 {
			firstOf[old.StudentID] = row.line
		}
		if validMobile && firstMobile[mobile] == 0 {
			firstMobile[mobile] = row.line
		}
		if len(errs) > 0 {
			r.report.RowsRejected++
			r.report.Errors = append(r.report.Errors, errs...)
			continue
		}
		to := Status(status)
		if to == "" && known {
			to = old.Status
		} else if to == "" {
			to = Active
		}
		switch {
		case !known:
			r.report.RowsCreated++
		case details == old.Details && to == old.Status:
			r.report.RowsUnchanged++
		default:
			r.report.RowsUpdated++
		}
		if known && old.Status == Active && to == Inactive {
			r.report.Deactivated++
		}
		changes = append(changes, change{old, details, to})
	}
	if r.report.RowsRejected > 0 && strings.Contains(query, "mode=all") {
		r.state = Rejected
	}
	if r.report.Deactivated*100 > active*10 && !strings.Contains(query, "confirm=true") {
		r.state = Rejected
		r.report.Errors = append(r.report.Errors, ImportError{0, RowFault{"status", "too-many-deactivations", ""}})
	}
	r.report.State = r.state
	if r.state == Rejected {
		r.report.RowsCreated, r.report.RowsUpdated, r.report.RowsUnchanged, r.report.Deactivated = 0, 0, 0, 0
		return r
	}
	for _, c := range changes {
		delete(r.after, c.old.Mobile+string(c.old.Status))
	}
	for _, c := range changes {
		r.after[c.new.Mobile+string(c.to)] = c.new
	}
	return r
}
