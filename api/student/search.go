package student

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Filter says which students a search is for. Zero fields do not filter.
type Filter struct {
	StudentID, Mobile, Caste string
	Status                   Status
	// FirstName and LastName are prefixes, in any case.
	FirstName, LastName string
	// BornBy and BornAfter bound the date of birth: up to BornBy, and after BornAfter.
	BornBy, BornAfter Date
}

// Order is how found students are sorted. The student id decides between equals, so that pages do not overlap.
type Order struct {
	// Field is one of SortFields.
	Field string
	Desc  bool
}

// sortColumns names what a field of a student is sorted by.
var sortColumns = map[string]string{
	"createdAt":   "created_at",
	"updatedAt":   "updated_at",
	"dateOfBirth": "date_of_birth",
	"firstName":   `lower(first_name collate "und-x-icu")`,
	"lastName":    `lower(last_name collate "und-x-icu")`,
	"status":      "status",
	"caste":       "caste",
}

// SortFields lists the fields that students can be sorted by.
func SortFields() []string { return slices.Sorted(maps.Keys(sortColumns)) }

// where is the condition of a filter, its parameters from $1 on.
func (f Filter) where() (sql string, args []any) {
	conditions := []string{"not synthetic"}
	add := func(wanted bool, condition string, arg any) {
		if wanted {
			args = append(args, arg)
			conditions = append(conditions, fmt.Sprintf(condition, len(args)))
		}
	}
	add(f.StudentID != "", "student_id = $%d", f.StudentID)
	add(f.Mobile != "", "mobile = $%d", f.Mobile)
	add(f.Caste != "", "caste = $%d", f.Caste)
	add(f.Status != "", "status = $%d", f.Status)
	add(f.FirstName != "", `lower(first_name collate "und-x-icu") like lower($%d::text collate "und-x-icu")`, prefix(f.FirstName))
	add(f.LastName != "", `lower(last_name collate "und-x-icu") like lower($%d::text collate "und-x-icu")`, prefix(f.LastName))
	add(f.BornBy != Date{}, "date_of_birth <= $%d", f.BornBy)
	add(f.BornAfter != Date{}, "date_of_birth > $%d", f.BornAfter)
	return strings.Join(conditions, " and "), args
}

// prefix is the LIKE pattern of everything that starts with s.
func prefix(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s) + "%"
}

func (o Order) sql() string {
	direction := "asc"
	if o.Desc {
		direction = "desc"
	}
	return fmt.Sprintf("%s %s, student_id %s", sortColumns[o.Field], direction, direction)
}

// Search finds one page of students and how many there are in all.
//
// Each call is planned with its own values: a plan for any prefix would not use the index.
func (s *Store) Search(ctx context.Context, f Filter, o Order, page, size int) (found []Record, total int64, err error) {
	where, args := f.where()
	count := "select count(*) from student where " + where
	selected := fmt.Sprintf("select %s from student where %s order by %s limit %d offset %d",
		recordColumns, where, o.sql(), size, int64(page)*int64(size))
	planned := append([]any{pgx.QueryExecModeCacheDescribe}, args...)

	tx, err := s.db.Reader(ctx).BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}) // page and total agree
	if err != nil {
		return nil, 0, fmt.Errorf("search students: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if err := tx.QueryRow(ctx, count, planned...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count students: %w", err)
	}
	if total > int64(page)*int64(size) {
		rows, _ := tx.Query(ctx, selected, planned...)
		if found, err = pgx.CollectRows(rows, pgx.RowToStructByName[Record]); err != nil {
			return nil, 0, fmt.Errorf("search students: %w", err)
		}
	}
	return found, total, nil
}
