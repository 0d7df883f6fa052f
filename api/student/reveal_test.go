package student

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

func (f fixture) db() *postgres.DB { return postgres.NewDB(f.pool) }

func TestReveal(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, etag := f.create(t, func(in *Input) { in.AadhaarNumber = pointer("135724681357") })
	one := collection + "/" + student.StudentID
	var shown Student
	answer := f.Do(t, identity.Admin, http.MethodGet, one+"?reveal=aadhaarNumber", nil, "X-Request-ID", "reveal-seen").Want(http.StatusOK).Decode(&shown)
	if shown.AadhaarNumber != "135724681357" || answer.Header.Get("ETag") != etag || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("an admin sees %q", shown.AadhaarNumber)
	}
	if shown.AadhaarNumber = student.AadhaarNumber; shown != student {
		t.Errorf("besides the number, an admin sees %+v", shown)
	}
	for _, role := range []identity.Role{identity.Clerk, identity.Viewer, identity.Operator} {
		answer := f.Do(t, role, http.MethodGet, one+"?reveal=aadhaarNumber", nil, "X-Request-ID", "reveal-refused-"+string(role))
		answer.Problem(http.StatusForbidden, "forbidden")
		if !strings.Contains(logged.String(), "reveal-refused-"+string(role)) {
			t.Errorf("the refusal of a %s is not in the log", role)
		}
	}
	if faults := f.Do(t, identity.Admin, http.MethodGet, one+"?reveal=caste", nil).Faults(http.StatusUnprocessableEntity, "validation-error"); faults["reveal"] != "not-allowed" {
		t.Errorf("an unknown field: %v", faults)
	}
	f.Do(t, identity.Admin, http.MethodGet, one, nil).Want(http.StatusOK).Decode(&shown)
	if shown != student {
		t.Error("an admin who does not ask sees the number")
	}
	for _, unknown := range []string{"/STU-2026-99999", "/x"} {
		f.Do(t, identity.Admin, http.MethodGet, collection+unknown+"?reveal=aadhaarNumber", nil).Problem(http.StatusNotFound, "not-found")
	}

	var history History
	f.Do(t, identity.Viewer, http.MethodGet, one+"/history", nil).Want(http.StatusOK).Decode(&history)
	if len(history.Reveals) != 1 || history.Reveals[0].RevealedAt.IsZero() {
		t.Fatalf("on record are %+v", history.Reveals)
	}
	got := history.Reveals[0]
	if got.Field != "aadhaarNumber" || got.RevealedBy != "admin" || got.RequestID != "reveal-seen" {
		t.Errorf("on record is %+v", got)
	}
	if !strings.Contains(logged.String(), "reveal-seen") || strings.Contains(logged.String()+f.Log.String(), "135724681357") {
		t.Error("the log does not hold that the number was seen, or holds the number")
	}
}

func TestNoRevealWithoutARecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, _ := f.create(t, func(in *Input) { in.AadhaarNumber = pointer("135724681357") })
	for _, obstacle := range [][2]string{
		{"alter table student_reveal add constraint obstacle check (field = '')", "alter table student_reveal drop constraint obstacle"},
		// The same at the commit, when the row has been read.
		{`create function refuse() returns trigger language plpgsql as 'begin raise exception ''refused''; end';
			create constraint trigger obstacle after insert on student_reveal deferrable initially deferred for each row execute function refuse()`,
			"drop function refuse cascade"},
	} {
		if _, err := f.pool.Exec(t.Context(), obstacle[0]); err != nil {
			t.Fatal(err)
		}
		answer := f.Do(t, identity.Admin, http.MethodGet, collection+"/"+student.StudentID+"?reveal=aadhaarNumber", nil)
		answer.Problem(http.StatusInternalServerError, "internal-error")
		if strings.Contains(string(answer.Body)+logged.String()+f.Log.String(), "135724681357") {
			t.Error("the number is revealed though it cannot be put on record")
		}
		if _, err := f.pool.Exec(t.Context(), obstacle[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	student, _ := f.create(t, nil)
	for _, add := range []string{
		`insert into student_audit (student_id, version, action, changed_by, request_id)
			select $1, n, 'UPDATED', 'x', 'x' from generate_series(2, 1500) as n`,
		`insert into student_reveal (student_id, field, revealed_by, request_id) select $1, 'aadhaarNumber', n::text, 'x' from generate_series(1, 1500) as n`,
	} {
		if _, err := f.pool.Exec(t.Context(), add, student.StudentID); err != nil {
			t.Fatal(err)
		}
	}
	var history History
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/"+student.StudentID+"/history", nil).Want(http.StatusOK).Decode(&history)
	if n := len(history.Content); n != maxHistory || history.Content[0].Version != 1500 || !history.HasMore {
		t.Errorf("%d writes are shown, more %t", n, history.HasMore)
	}
	if n := len(history.Reveals); n != maxHistory || history.Reveals[0].RevealedBy != fmt.Sprint(1500) {
		t.Errorf("%d reveals are shown", n)
	}
	for _, id := range []string{"STU-2026-99999", "x", "%00"} {
		f.Do(t, identity.Viewer, http.MethodGet, collection+"/"+id+"/history", nil).Problem(http.StatusNotFound, "not-found")
	}
}
