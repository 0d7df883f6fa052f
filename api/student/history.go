package student

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxHistory is the most writes, and the most reveals, that a history shows: the newest.
const maxHistory = 1000

type historyOutput struct{ Body History }

// History lists what was done to one student and who has seen what is hidden, the newest first.
type History struct {
	Content []HistoryEntry `json:"content" nullable:"false"`
	Reveals []Reveal       `json:"reveals" nullable:"false"`
	Erasure *Erasure       `json:"erasure,omitempty" doc:"Only of a student who has been erased. Then no write has a before and an after."`
	HasMore bool           `json:"hasMore" doc:"There are more than the 1,000 writes, or more than the 1,000 reveals, that are shown."`
}

// HistoryEntry is one write.
type HistoryEntry struct {
	Version   int64     `json:"version"`
	Action    Action    `json:"action" enum:"CREATED,UPDATED,STATUS_CHANGED,DELETED,ERASED"`
	ChangedAt time.Time `json:"changedAt"`
	ChangedBy string    `json:"changedBy"`
	RequestID string    `json:"requestId"`
	Before    *Student  `json:"before,omitempty" doc:"Absent for the first write."`
	After     *Student  `json:"after,omitempty"`
}

func (s *service) history(ctx context.Context, in *OneInput) (*historyOutput, error) {
	if !validID.MatchString(in.StudentID) {
		return nil, notFound()
	}
	trail, err := s.store.History(ctx, in.StudentID, maxHistory+1) // one more tells that there are more
	if err != nil {
		return nil, err
	}
	if len(trail.Writes) == 0 {
		if _, err := s.read(ctx, in.StudentID); err != nil {
			return nil, err
		}
	}
	return &historyOutput{Body: historyOf(trail, s.today())}, nil
}

func historyOf(t Trail, today Date) History {
	shown, revealed := min(len(t.Writes), maxHistory), min(len(t.Reveals), maxHistory)
	h := History{Content: make([]HistoryEntry, shown), Reveals: t.Reveals[:revealed], Erasure: t.Erasure,
		HasMore: shown < len(t.Writes) || revealed < len(t.Reveals)}
	for i, e := range t.Writes[:shown] {
		h.Content[i] = HistoryEntry{Version: e.Version, Action: e.Action, ChangedAt: e.ChangedAt.UTC(), ChangedBy: e.ChangedBy,
			RequestID: e.RequestID, Before: presentImage(e.Before, today), After: presentImage(e.After, today)}
	}
	return h
}

// presentImage shows an image of the audit, nil where there is none.
func presentImage(r *Record, today Date) *Student {
	if r == nil {
		return nil
	}
	student := present(*r, today)
	return &student
}

// Entry is one write in the history of a student. The images are nil once the student has been erased.
type Entry struct {
	Version   int64     `db:"version"`
	Action    Action    `db:"action"`
	ChangedAt time.Time `db:"changed_at"`
	ChangedBy string    `db:"changed_by"`
	RequestID string    `db:"request_id"`
	Before    *Record   `db:"before"`
	After     *Record   `db:"after"`
}

// Trail is what is on record about one student, the newest first.
type Trail struct {
	Writes  []Entry
	Reveals []Reveal
	// Erasure is nil unless the student has been erased.
	Erasure *Erasure
}

const (
	selectHistory = `
select version, action, changed_at, changed_by, request_id, before, after
from student_audit
where student_id = $1
order by version desc
limit $2`

	selectReveals = `
select field, revealed_at at time zone 'UTC' as revealed_at, revealed_by, request_id
from student_reveal
where student_id = $1
order by reveal_id desc
limit $2`

	selectErasure = `
select student_id, version, erased_at at time zone 'UTC' as erased_at, erased_by, request_id, reason
from student_erasure
where student_id = $1`
)

// History reads the newest writes and the newest reveals of one student, at most limit of each. It is empty when there is no
// such student.
func (s *Store) History(ctx context.Context, id string, limit int) (t Trail, err error) {
	db := s.db.Reader(ctx)
	rows, _ := db.Query(ctx, selectHistory, id, limit)
	if t.Writes, err = pgx.CollectRows(rows, pgx.RowToStructByName[Entry]); err != nil {
		return Trail{}, fmt.Errorf("read the history of a student: %w", err)
	}
	rows, _ = db.Query(ctx, selectReveals, id, limit)
	if t.Reveals, err = pgx.CollectRows(rows, pgx.RowToStructByName[Reveal]); err != nil {
		return Trail{}, fmt.Errorf("read the reveals of a student: %w", err)
	}
	rows, _ = db.Query(ctx, selectErasure, id)
	t.Erasure, err = pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Erasure])
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Trail{}, fmt.Errorf("read the erasure of a student: %w", err)
	}
	return t, nil
}
