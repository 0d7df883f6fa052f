package student

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
)

// Filter says which students a search is for. Zero fields do not filter.
type Filter struct {
	StudentID, Mobile, Caste string
	Status                   Status
	// FirstName and LastName are prefixes, in any case.
	FirstName, LastName string
	// BornBy and BornAfter bound the date of birth: up to BornBy, and after BornAfter.
	BornBy, BornAfter Date
	// Text is free text: each of its words starts a word of the names, the mobile number or the student id, in any case and without
	// regard to accents, or is one typo away from a whole word (see student_search in the migrations).
	Text string
}

// foundByText stands for the table in a search by text. The planner must not walk another index and look at the terms of each row:
// making them takes longer than all the rest. Hence "offset 0", which it does not look behind.
const (
	terms       = "student_terms(first_name, last_name, guardian_name, mother_name, mobile, student_id)"
	foundByText = `(select * from student where not synthetic and ` + terms + ` @@ student_search($1, true) offset 0) as student`
	// rankedByText tells those without a typo from the others.
	rankedByText = `(
    (select *, true as exact from student where not synthetic and ` + terms + ` @@ student_search($1, false) offset 0)
    union all
    (select *, false from student
    where not synthetic and ` + terms + ` @@ (student_search($1, true) && !!student_search($1, false)) offset 0)
) as student`
)

// last comes after every letter, in the order of bytes.
const last = "\U0010FFFF"

// prefixOf is the condition that a name starts with $n. It is not LIKE, which would be evaluated again for each entry of the index.
func prefixOf(column string) string {
	return strings.ReplaceAll(`(lower(name collate "und-x-icu") ~>=~ lower($n::text collate "und-x-icu")
    and lower(name collate "und-x-icu") ~<~ (lower($n::text collate "und-x-icu") || '`+last+`'))`, "name", column)
}

// placeOf is where such names are in the order of names: an order and a prefix of the same name meet in one range of one index.
func placeOf(column string) string {
	return strings.ReplaceAll(`(student_fold(name) collate "C" >= student_fold($n::text)
    and student_fold(name) collate "C" < (student_fold($n::text) || '`+last+`'))`, "name", column)
}

// from is the clauses FROM and WHERE of a search in an order, and their arguments.
func (f Filter) from(o Order) (sql string, args []any) {
	table, conditions := "student", []string{"not synthetic"}
	if f.Text != "" {
		table, conditions, args = foundByText, []string{"true"}, []any{f.Text}
		if o.Field == byRelevance {
			table = rankedByText
		}
	}
	add := func(wanted bool, condition string, arg any) {
		if wanted {
			args = append(args, arg)
			conditions = append(conditions, strings.ReplaceAll(condition, "$n", fmt.Sprintf("$%d", len(args))))
		}
	}
	prefix := func(field, column, value string) {
		condition := prefixOf(column)
		if o.Field == field { // coalesce keeps the planner from taking the two for independent
			condition = "coalesce(" + condition + ", false) and " + placeOf(column)
		}
		add(value != "", condition, value)
	}
	add(f.StudentID != "", "student_id = $n", f.StudentID)
	add(f.Mobile != "", "mobile = $n", f.Mobile)
	add(f.Caste != "", "caste = $n", f.Caste)
	add(f.Status != "", "status = $n", f.Status)
	prefix("firstName", "first_name", f.FirstName)
	prefix("lastName", "last_name", f.LastName)
	add(f.BornBy != Date{}, "date_of_birth <= $n", f.BornBy)
	add(f.BornAfter != Date{}, "date_of_birth > $n", f.BornAfter)
	return " from " + table + " where " + strings.Join(conditions, " and "), args
}

// hit is a found student.
type hit struct {
	Record
	// Exact is whether no typo was forgiven.
	Exact bool `db:"exact"`
}

// list reads some of the students of a filter, in order: those after a position, which is nil for the start.
//
// Each call is planned with its own values: a plan for any prefix would not use the index.
func list(ctx context.Context, q postgres.Conn, f Filter, o Order, after []string, size int, offset int64) ([]hit, error) {
	from, args := f.from(o)
	exact := "true as exact"
	if o.Field == byRelevance {
		exact = "exact"
	}
	condition, args := o.after(after, args)
	sql := fmt.Sprintf("select %s, %s%s%s order by %s limit %d offset %d", recordColumns, exact, from, condition, o.sql(), size, offset)
	rows, _ := q.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...) // CollectRows returns the error
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[hit])
	if err != nil {
		return nil, fmt.Errorf("search students: %w", err)
	}
	return found, nil
}

// Search finds one page of students and how many there are in all.
func (s *Store) Search(ctx context.Context, f Filter, o Order, page, size int) (found []Record, total int64, err error) {
	tx, err := s.db.Reader(ctx).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}) // page and total agree
	if err != nil {
		return nil, 0, fmt.Errorf("search students: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	from, args := f.from(Order{})
	if err := tx.QueryRow(ctx, "select count(*)"+from, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count students: %w", err)
	}
	offset := int64(page) * int64(size)
	if total <= offset {
		return nil, total, nil
	}
	hits, err := list(ctx, tx, f, o, nil, size, offset)
	return records(hits), total, err
}

// Walk finds the students after a position in an order, which is nil for the start, and the position after them, which is nil when
// there are no more. Students that others write meanwhile do not move those that stay as they are.
func (s *Store) Walk(ctx context.Context, f Filter, o Order, after []string, size int) (found []Record, next []string, err error) {
	hits, err := list(ctx, s.db.Reader(ctx), f, o, after, size+1, 0)
	if len(hits) > size {
		hits = hits[:size]
		next = o.position(hits[size-1])
	}
	return records(hits), next, err
}

func records(hits []hit) []Record {
	found := make([]Record, len(hits))
	for i, h := range hits {
		found[i] = h.Record
	}
	return found
}
