package student

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Order is how found students are sorted. The student id decides between equals, so that pages do not overlap.
type Order struct {
	// Field is one of SortFields, or byRelevance.
	Field string
	Desc  bool
}

// byRelevance is the order of a search by text when no other is asked for, descending: those without a typo before the others,
// and the last registered first among them.
const byRelevance = "relevance"

// sortKey is a value that students are sorted by.
type sortKey struct {
	// sql is the value of a row; parameter makes the same of the text that value returns.
	sql, parameter string
	value          func(hit) string
}

var (
	createdAt = sortKey{"created_at", "$n::timestamptz", func(h hit) string { return h.CreatedAt.Format(time.RFC3339Nano) }}
	// orders has an index for each of its orders, so that the next page of one takes as long as the first.
	orders = map[string][]sortKey{
		"createdAt":   {createdAt},
		"updatedAt":   {{"updated_at", "$n::timestamptz", func(h hit) string { return h.UpdatedAt.Format(time.RFC3339Nano) }}},
		"dateOfBirth": {{"date_of_birth", "$n::date", func(h hit) string { return h.DateOfBirth.String() }}},
		"firstName":   {{`student_fold(first_name) collate "C"`, `student_fold($n::text) collate "C"`, func(h hit) string { return h.FirstName }}},
		"lastName":    {{`student_fold(last_name) collate "C"`, `student_fold($n::text) collate "C"`, func(h hit) string { return h.LastName }}},
		"status":      {{"status", "$n::text", func(h hit) string { return string(h.Status) }}, createdAt},
		"caste":       {{"caste", "$n::text", func(h hit) string { return h.Caste }}, createdAt},
		byRelevance:   {{"exact", "$n::boolean", func(h hit) string { return strconv.FormatBool(h.Exact) }}, createdAt},
	}
	studentID = sortKey{"student_id", "$n::text", func(h hit) string { return h.StudentID }}
)

// SortFields lists the fields that students can be sorted by.
func SortFields() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(orders)), func(field string) bool { return field == byRelevance })
}

func (o Order) keys() []sortKey { return append(slices.Clone(orders[o.Field]), studentID) }

// sql is the clause ORDER BY.
func (o Order) sql() string {
	direction := " asc"
	if o.Desc {
		direction = " desc"
	}
	var columns []string
	for _, key := range o.keys() {
		columns = append(columns, key.sql+direction)
	}
	return strings.Join(columns, ", ")
}

// position is where a student stands in the order.
func (o Order) position(h hit) []string {
	var values []string
	for _, key := range o.keys() {
		values = append(values, key.value(h))
	}
	return values
}

// after is the condition that rows stand after a position, to be added to others, and their arguments with its own. There is none
// for the start.
func (o Order) after(position []string, args []any) (string, []any) {
	if position == nil {
		return "", args
	}
	var columns, values []string
	for i, key := range o.keys() {
		args = append(args, position[i])
		columns = append(columns, key.sql)
		values = append(values, strings.ReplaceAll(key.parameter, "$n", fmt.Sprintf("$%d", len(args))))
	}
	comparison := " > "
	if o.Desc {
		comparison = " < "
	}
	return " and (" + strings.Join(columns, ", ") + ")" + comparison + "(" + strings.Join(values, ", ") + ")", args
}
