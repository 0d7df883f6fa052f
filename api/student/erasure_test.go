package student

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

// heldBack says what no place may hold once the student of secretInput is erased.
var heldBack = []string{"Zubinsecret", "Quillonsecret", "Guardsecret", "Mothersecret", "7654321098", "246813579135", "secret@example.com", "Secretlane", "hiddenmole"}

func secretInput(in *Input) {
	in.FirstName, in.LastName, in.DateOfBirth = "Zubinsecret", "Quillonsecret", "2013-07-19"
	in.FatherNameOrGuardian, in.MotherName, in.Mobile = "Guardsecret Rao", "Mothersecret Rao", "7654321098"
	in.AadhaarNumber, in.Email, in.Moles = pointer("246813579135"), pointer("secret@example.com"), pointer("hiddenmole")
	in.Address.Street, in.Caste = "9 Secretlane", "Rarecaste"
}

func (f fixture) erase(t *testing.T, id, reason string) servertest.Answer {
	t.Helper()
	return f.Do(t, identity.Admin, http.MethodPost, collection+"/"+id+"/erasure", map[string]string{"confirm": id, "reason": reason})
}

func TestErasure(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, etag := f.create(t, secretInput)
	one := collection + "/" + student.StudentID
	f.create(t, func(in *Input) { in.Mobile = "9876543211" })
	etag = f.Do(t, identity.Clerk, http.MethodPatch, one, `{"lastName":"Quillonsecret-Rao"}`, "If-Match", etag).Want(http.StatusOK).Header.Get("ETag")
	f.Do(t, identity.Admin, http.MethodGet, one+"?reveal=aadhaarNumber", nil).Want(http.StatusOK)
	statistics := func() string {
		return string(f.Do(t, identity.Viewer, http.MethodGet, collection+"/statistics", nil).Want(http.StatusOK).Body)
	}
	for i, cells := range []string{`["zubinsecret","Quillonsecret-Rao","765432109"]`, `["x","Hiddenmole",` + `"STU-2026-00001 7654321098"]`, `["Zubin","Rao"]`} {
		if _, err := f.pool.Exec(t.Context(), "insert into student_import_fault (import_id, line, cells, faults) values (gen_random_uuid(), $1, $2, '[]')", i+2, cells); err != nil {
			t.Fatal(err)
		}
	}
	if held := f.holders(t); !slices.Equal(held, []string{"student", "student_audit", "student_import_fault"}) {
		t.Errorf("before the erasure personal data is in %v", held)
	}
	before, place := statistics(), changesOf(t, f.Service, "").Next

	var erased Erasure
	f.erase(t, student.StudentID, " letter 17/2026 ").Want(http.StatusOK).Decode(&erased)
	if erased.StudentID != student.StudentID || erased.Version != 3 || erased.ErasedBy != "admin" || erased.Reason != "letter 17/2026" || erased.ErasedAt.IsZero() {
		t.Errorf("erased %+v", erased)
	}
	if after := statistics(); after != before {
		t.Errorf("statistics %s, before %s", after, before)
	}
	for _, request := range []struct {
		method, path string
		body         any
	}{
		{http.MethodGet, one, nil}, {http.MethodGet, one + "?reveal=aadhaarNumber", nil}, {http.MethodPut, one, validInput()},
		{http.MethodPatch, one, `{"caste":"x"}`}, {http.MethodPatch, one + "/status", `{"status":"INACTIVE"}`}, {http.MethodDelete, one, nil},
		{http.MethodPost, one + "/erasure", map[string]string{"confirm": student.StudentID, "reason": "again"}},
	} {
		problem := f.Do(t, identity.Admin, request.method, request.path, request.body, "If-Match", etag).Problem(http.StatusGone, "not-found")
		if !strings.Contains(problem.Detail, erased.ErasedAt.Format("2006-01-02T15:04:05Z")) {
			t.Errorf("%s %s says %q", request.method, request.path, problem.Detail)
		}
	}
	f.checkErasedTrail(t, erased, place)
	if left := f.holders(t); len(left) > 0 {
		t.Errorf("personal data is left in %v", left)
	}
	if n := f.count(t, "select count(*) from student_import_fault where cells <> '[]'"); n != 1 {
		t.Errorf("%d rejected lines keep their cells, want the one of somebody else", n)
	}
	if next, _ := f.create(t, func(in *Input) { in.Mobile = "7654321098" }); next.StudentID != "STU-2026-00003" {
		t.Errorf("the next student, with the same mobile, is %s", next.StudentID)
	}
}

// checkErasedTrail looks at what is told of a student with two writes and a reveal who was erased then.
func (f fixture) checkErasedTrail(t *testing.T, erased Erasure, place string) {
	t.Helper()
	var history History
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/"+erased.StudentID+"/history", nil).Want(http.StatusOK).Decode(&history)
	var actions []string
	for _, entry := range history.Content {
		actions = append(actions, fmt.Sprintf("%s by %s", entry.Action, entry.ChangedBy))
		if entry.Before != nil || entry.After != nil || entry.RequestID == "" || entry.ChangedAt.IsZero() {
			t.Errorf("history shows %+v", entry)
		}
	}
	if got := strings.Join(actions, ", "); got != "ERASED by admin, UPDATED by clerk, CREATED by clerk" {
		t.Errorf("history shows %s", got)
	}
	if len(history.Reveals) != 1 || history.Erasure == nil || *history.Erasure != erased || history.HasMore {
		t.Errorf("history shows %+v", history)
	}
	if page := changesOf(t, f.Service, ""); told(page) != "1/1/CREATED/- 2/1/CREATED/ACTIVE 1/2/UPDATED/- 1/3/ERASED/-" {
		t.Errorf("the feed tells %s", told(page))
	}
	if page := changesOf(t, f.Service, "?after="+place); told(page) != "1/3/ERASED/-" {
		t.Errorf("the feed goes on with %s", told(page))
	}
}

// holders lists the tables with what an erased student must not leave, searching every column of every table.
func (f fixture) holders(t *testing.T) []string {
	t.Helper()
	var holders []string
	for _, table := range f.tables(t) {
		for _, secret := range heldBack {
			if f.count(t, "select count(*) from "+pgx.Identifier{table}.Sanitize()+" as held where held::text ilike $1", "%"+secret+"%") > 0 {
				holders = append(holders, table)
				break
			}
		}
	}
	return holders
}

func (f fixture) tables(t *testing.T) []string {
	t.Helper()
	rows, _ := f.pool.Query(t.Context(), `select table_name::text from information_schema.tables where table_schema = 'public' order by 1`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// A new table is either in the list of what an erasure cleans, or somebody has thought about it and adds it here.
func TestEveryTableIsJudged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	// student_import_row holds the rows of imports that run, and loses them when they end.
	judged := []string{"student_import", "student_import_row", "idempotency_key", "schema_version", "student_change", "student_cursor_key", "student_erased_count", "student_erasure", "student_feed", "student_number", "student_reveal"}
	for _, place := range personalData {
		judged = append(judged, place.table)
	}
	slices.Sort(judged)
	if tables := f.tables(t); !slices.Equal(tables, judged) {
		t.Errorf("the tables are %v, judged are %v", tables, judged)
	}
}

func TestErasureIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, _ := f.create(t, secretInput)
	erasure := collection + "/" + student.StudentID + "/erasure"
	for body, want := range map[string]map[string]string{
		`{}`:                                 {"confirm": "required", "reason": "required"},
		`{"confirm":"STU-2026-00002"}`:       {"confirm": "not-confirmed", "reason": "required"},
		`{"confirm":5,"reason":" ","why":1}`: {"confirm": "wrong-type", "reason": "required", "why": "unknown-field"},
		`{"confirm":"STU-2026-00001","reason":"asked for by guardsecret RAO"}`:        {"reason": "personal-data"},
		`{"confirm":"STU-2026-00001","reason":"of ZUBINSECRET, born"}`:                {"reason": "personal-data"},
		`{"confirm":"STU-2026-00001","reason":"(2013-07-19)"}`:                        {"reason": "personal-data"},
		`{"confirm":"x","reason":"` + strings.Repeat("x", 201) + `"}`:                 {"confirm": "not-confirmed", "reason": "too-long"},
		`{"confirm":"STU-2026-00001","reason":"tel. 7654321098 and more","x":"long"}`: {"reason": "personal-data", "x": "unknown-field"},
	} {
		if faults := f.Do(t, identity.Admin, http.MethodPost, erasure, body).Faults(http.StatusUnprocessableEntity, "validation-error"); !maps.Equal(faults, want) {
			t.Errorf("%s: %v, want %v", body, faults, want)
		}
	}
	good := map[string]string{"confirm": student.StudentID, "reason": "asked for"}
	for _, role := range []identity.Role{identity.Clerk, identity.Viewer, identity.Operator} {
		f.Do(t, role, http.MethodPost, erasure, good).Problem(http.StatusForbidden, "forbidden")
	}
	f.erase(t, "STU-2026-99999", "asked for").Problem(http.StatusNotFound, "not-found")
	f.erase(t, "x", "asked for").Problem(http.StatusNotFound, "not-found")

	var synthetic Student
	f.Do(t, identity.Operator, http.MethodPost, collection, validInput(), "X-SMS-Synthetic", "true").Want(http.StatusCreated).Decode(&synthetic)
	f.erase(t, synthetic.StudentID, "asked for").Problem(http.StatusConflict, "conflict")
	f.erase(t, student.StudentID, "a word that names nobody: Zubinsecretary").Want(http.StatusOK)
}

// Whoever writes while a student is erased is told so, and leaves nothing behind.
func TestErasureAgainstWriters(t *testing.T) {
	t.Parallel()
	const students, writers = 10, 4
	f := newFixture(t)
	var wg sync.WaitGroup
	for n := range students {
		mobile := fmt.Sprintf("765432109%d", n)
		student, _ := f.create(t, func(in *Input) { secretInput(in); in.Mobile = mobile })
		one := collection + "/" + student.StudentID
		for w := range writers {
			wg.Go(func() {
				for try := range 20 {
					etag := f.Do(t, identity.Clerk, http.MethodGet, one, nil).Header.Get("ETag")
					answer := f.Do(t, identity.Clerk, http.MethodPatch, one, fmt.Sprintf(`{"caste":"c%d-%d"}`, w, try), "If-Match", etag)
					if !slices.Contains([]int{http.StatusOK, http.StatusPreconditionFailed, http.StatusPreconditionRequired, http.StatusGone}, answer.Status) {
						t.Errorf("a write answers %d %s", answer.Status, answer.Body)
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				if answer := f.erase(t, student.StudentID, "asked for"); answer.Status != http.StatusOK && answer.Status != http.StatusGone {
					t.Errorf("an erasure answers %d %s", answer.Status, answer.Body)
				}
			})
		}
	}
	wg.Wait()
	if left := f.holders(t); len(left) > 0 {
		t.Errorf("personal data is left in %v", left)
	}
	if n := f.count(t, "select count(*) from student_erasure"); n != students {
		t.Errorf("%d erasures of %d students", n, students)
	}
	if n := f.count(t, "select coalesce(sum(students), 0) from student_erased_count"); n != 3*students {
		t.Errorf("the tallies count %d facts of %d students", n, students)
	}
}

// Whoever is erased, statistics say today and later what they would have said.
func TestStatisticsOutliveErasure(t *testing.T) {
	t.Parallel()
	f, kept := newFixture(t), newFixture(t)
	castes := []string{"General", "Other", "OBC"}
	for n := range 30 {
		change := func(in *Input) {
			in.Mobile, in.Caste = fmt.Sprintf("98765432%02d", n), castes[n%3]
			in.DateOfBirth = fmt.Sprintf("%d-%02d-%02d", 2009+n%12, 1+n%12, 1+n%28)
		}
		student, etag := f.create(t, change)
		kept.create(t, change)
		if n%4 == 0 {
			for _, g := range []fixture{f, kept} {
				g.Do(t, identity.Clerk, http.MethodDelete, collection+"/"+student.StudentID, nil, "If-Match", etag).Want(http.StatusNoContent)
			}
		}
		if n%2 == 0 || n > 20 {
			f.erase(t, student.StudentID, "asked for").Want(http.StatusOK)
		}
	}
	for years := range 4 {
		day := Date{today.Year + years, today.Month, today.Day}
		got, err := NewStore(f.db()).Statistics(context.Background(), day)
		if err != nil {
			t.Fatal(err)
		}
		want, err := NewStore(kept.db()).Statistics(context.Background(), day)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || got.Total != 30 {
			t.Errorf("on %s: %v, want %v", day, got, want)
		}
	}
}
