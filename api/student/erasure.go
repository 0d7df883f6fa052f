package student

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

// Erased is the last write of a student whose personal data was taken out for good.
const Erased Action = "ERASED"

func (s *service) mountErasure(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "erase-student", Method: http.MethodPost, Path: collection + "/{studentId}/erasure",
		Summary: "Erase a student's personal data for good (right to erasure)", Roles: []identity.Role{identity.Admin},
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusGone}, Context: s.withService}, s.erase)
}

type erasureInput struct {
	OneInput
	Body struct {
		Confirm string `json:"confirm" doc:"The student id typed again." example:"STU-2026-00001"`
		Reason  string `json:"reason" doc:"1 to 200 characters that stay for good, so without any of the student's own data." example:"asked for by the guardian, letter 17/2026"`
	}

	current Record
	reason  string
}

// Resolve reads who is to be erased, and names every fault.
func (in *erasureInput) Resolve(ctx huma.Context) []error {
	current, err := serviceFrom(ctx.Context()).read(ctx.Context(), in.StudentID)
	if err != nil {
		return []error{server.AsProblem(err)}
	}
	in.current = current
	var c checker
	if in.Body.Confirm != in.StudentID {
		c.fault("confirm", "not-confirmed", "must be the id of the student in the path")
	}
	if in.reason = c.text("reason", in.Body.Reason, 200); current.mentionedIn(in.reason) {
		c.fault("reason", "personal-data", "must not hold data of the student, because it stays")
	}
	return errorsOf(c.faults)
}

// mentionedIn reports whether a text repeats, as whole words in any case, what would tell who the student was.
func (d Details) mentionedIn(text string) bool {
	words := func(s string) string {
		return " " + strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r)
		}), " ") + " "
	}
	text = words(text)
	for _, told := range []string{d.FirstName, d.LastName, d.GuardianName, d.MotherName, d.Mobile, d.Email, d.AadhaarNumber, d.Street,
		d.DateOfBirth.String()} {
		if told = words(told); strings.TrimSpace(told) != "" && strings.Contains(text, told) {
			return true
		}
	}
	return false
}

type erasureOutput struct{ Body Erasure }

// Erasure is what is left of a student who was erased.
type Erasure struct {
	StudentID string    `db:"student_id" json:"studentId"`
	Version   int64     `db:"version" json:"version" doc:"Of the erasure, which is the last write."`
	ErasedAt  time.Time `db:"erased_at" json:"erasedAt"`
	ErasedBy  string    `db:"erased_by" json:"erasedBy"`
	RequestID string    `db:"request_id" json:"requestId"`
	Reason    string    `db:"reason" json:"reason"`
}

func (s *service) erase(ctx context.Context, in *erasureInput) (*erasureOutput, error) {
	if in.current.Synthetic {
		return nil, server.Conflict("this student is a smoke test's and nobody's personal data: DELETE removes it for good")
	}
	erasure, err := s.store.Erase(ctx, in.StudentID, in.reason, author(ctx))
	if err != nil {
		return nil, s.store.orErased(ctx, in.StudentID, err)
	}
	slog.InfoContext(ctx, "a student was erased", "event.action", "erase", "student.id", erasure.StudentID, "user.name", erasure.ErasedBy,
		"http.request.id", erasure.RequestID)
	return &erasureOutput{Body: erasure}, nil
}

// personalData lists every table that holds personal data of students, and how one student's is taken out of it. A table that is
// not here must hold none.
var personalData = []struct{ table, erase string }{
	{"student_import_fault", eraseRejectedLines},
	{"student", `delete from student where student_id = $1`},
	{"student_audit", `update student_audit set before = null, after = null where student_id = $1`},
}

// Lines that an import has rejected stay for a day. That a line is about a student cannot be told from its key, which may be
// what is wrong with it. It comes first in the list, because it reads the student's row.
const eraseRejectedLines = `
update student_import_fault as f
set cells = '[]'
from student as s
where s.student_id = $1 and (
    strpos(f.cells::text, s.student_id) > 0 or strpos(f.cells::text, s.mobile) > 0
    or s.email <> '' and strpos(lower(f.cells::text), lower(s.email)) > 0
    or s.aadhaar_number <> '' and strpos(f.cells::text, s.aadhaar_number) > 0
    or strpos(lower(f.cells::text), lower(s.first_name)) > 0 and strpos(lower(f.cells::text), lower(s.last_name)) > 0)`

// The lock makes writers wait, who then find nobody. It is a statement of its own: what follows sees all that they have written.
const lockForErasure = `
select status, caste, date_of_birth::text, version
from student
where student_id = $1 and not synthetic
for update`

const leaveTombstone = `
with counted as (
    insert into student_erased_count (kind, value, students)
    values ('status', @status, 1), ('caste', @caste, 1), ('date_of_birth', @date_of_birth, 1)
    on conflict (kind, value) do update set students = student_erased_count.students + 1
), audit as (
    insert into student_audit (student_id, version, action, changed_by, request_id)
    values (@student_id, @version, 'ERASED', @user, @request_id)
), change as (
    insert into student_change (student_id, version, action, changed_by, request_id)
    values (@student_id, @version, 'ERASED', @user, @request_id)
)
insert into student_erasure (student_id, version, erased_by, request_id, reason)
values (@student_id, @version, @user, @request_id, @reason)
returning student_id, version, erased_at at time zone 'UTC' as erased_at, erased_by, request_id, reason`

// Erase takes a student's personal data out for good and leaves what docs/decisions/0008-erasure.md says. Errors: not-found.
func (s *Store) Erase(ctx context.Context, id, reason string, by Author) (left Erasure, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		var status, caste, born string
		var version int64
		if err := tx.QueryRow(ctx, lockForErasure, id).Scan(&status, &caste, &born, &version); err != nil {
			return err
		}
		for _, place := range personalData {
			if _, err := tx.Exec(ctx, place.erase, id); err != nil {
				return fmt.Errorf("in %s: %w", place.table, err)
			}
		}
		rows, _ := tx.Query(ctx, leaveTombstone, pgx.NamedArgs{"student_id": id, "version": version + 1, "reason": reason,
			"status": status, "caste": caste, "date_of_birth": born, "user": by.User, "request_id": by.RequestID})
		left, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Erasure])
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Erasure{}, notFound()
	} else if err != nil {
		return Erasure{}, fmt.Errorf("erase a student: %w", err)
	}
	return left, nil
}

// orErased turns a not-found into what is said of a student who was erased, and leaves other errors as they are.
func (s *Store) orErased(ctx context.Context, id string, err error) error {
	if server.AsProblem(err).Status != http.StatusNotFound {
		return err
	}
	var at time.Time
	switch found := s.db.QueryRow(ctx, `select erased_at from student_erasure where student_id = $1`, id).Scan(&at); {
	case errors.Is(found, pgx.ErrNoRows):
		return err
	case found != nil:
		return fmt.Errorf("look for an erasure: %w", found)
	}
	return server.NewProblem(http.StatusGone, "not-found", "this student was erased on "+at.UTC().Format(time.RFC3339))
}
