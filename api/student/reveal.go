package student

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

type getInput struct {
	OneInput
	Reveal string `query:"reveal" enum:"aadhaarNumber" doc:"Admins: show this field in full. It is put on record who has seen it."`
}

// Reveal says who has seen a field that is hidden otherwise.
type Reveal struct {
	Field      string    `db:"field" json:"field"`
	RevealedAt time.Time `db:"revealed_at" json:"revealedAt"`
	RevealedBy string    `db:"revealed_by" json:"revealedBy"`
	RequestID  string    `db:"request_id" json:"requestId"`
}

// reveal answers a student with the field in full.
func (s *service) reveal(ctx context.Context, in *getInput) (*studentOutput, error) {
	caller := []any{"event.action", "reveal " + in.Reveal, "student.id", in.StudentID, "user.name", identity.FromContext(ctx).User,
		"http.request.id", server.RequestID(ctx)}
	if !validID.MatchString(in.StudentID) {
		return nil, notFound()
	}
	if !identity.FromContext(ctx).Is(identity.Admin) {
		slog.WarnContext(ctx, "a reveal was refused", caller...)
		return nil, server.Forbidden("only an admin may see " + in.Reveal + " in full")
	}
	record, err := s.store.Reveal(ctx, in.StudentID, in.Reveal, author(ctx))
	if err != nil {
		return nil, s.store.orErased(ctx, in.StudentID, err)
	}
	slog.InfoContext(ctx, "a field was revealed", caller...)
	out := s.answer(record)
	out.Body.AadhaarNumber = record.AadhaarNumber
	return out, nil
}

// One statement: what cannot be logged is not read.
const revealStudent = `
with shown as (
    select ` + recordColumns + ` from student where student_id = @student_id
), logged as (
    insert into student_reveal (student_id, field, revealed_by, request_id)
    select student_id, @field, @user, @request_id from shown
)
select ` + recordColumns + ` from shown`

// Reveal reads one student and puts on record who has seen which field in full. Errors: not-found.
func (s *Store) Reveal(ctx context.Context, id, field string, by Author) (Record, error) {
	rows, _ := s.db.Query(ctx, revealStudent, pgx.NamedArgs{"student_id": id, "field": field, "user": by.User, "request_id": by.RequestID})
	record, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Record])
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, notFound()
	} else if err != nil {
		return Record{}, fmt.Errorf("reveal a student: %w", err)
	}
	return record, nil
}
