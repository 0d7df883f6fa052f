package student

import (
	"strings"
	"testing"
)

// fillStudents makes a table that is big enough for an index to pay.
const fillStudents = `
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
    guardian_name, mother_name, caste, status, created_by, updated_by, created_at, updated_at)
select 'STU-2026-' || lpad(n::text, 5, '0'), left(md5(n::text), 8), left(md5((-n)::text), 8), date '2000-01-01' + n % 5000, 's', 'c', 's', '411001', 'India',
    lpad(n::text, 10, '0'), 'g', 'mother', 'caste ' || n % 500, case when n % 100 = 0 then 'INACTIVE' else 'ACTIVE' end, 'test', 'test',
    timestamptz '2026-01-01 00:00Z' + n % 7000 * interval '1 minute', timestamptz '2026-02-01 00:00Z' + n % 900 * interval '1 minute'
from generate_series(1, 10000) as n`

// Every promised filter has its index: the planner uses it once a table is big enough for an index to pay.
func TestFiltersHaveIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fill(t)
	newest := Order{Field: "createdAt", Desc: true}
	for _, c := range []struct {
		index string
		Filter
		Order
	}{
		{"student_pkey", Filter{StudentID: "STU-2026-00007"}, newest},
		{"student_mobile_key", Filter{Mobile: "0000000007"}, newest},
		{"student_first_name", Filter{FirstName: "AbC"}, newest},
		{"student_last_name", Filter{LastName: "AbC"}, newest},
		{"student_status", Filter{Status: Inactive}, newest},
		{"student_caste", Filter{Caste: "caste 7"}, newest},
		{"student_date_of_birth", Filter{BornBy: Date{2000, 1, 20}}, newest},
		{"student_date_of_birth", Filter{BornAfter: Date{2013, 8, 1}}, newest},
		{"student_search_terms", Filter{Text: "098f6bcd"}, newest},
		{"student_search_terms", Filter{Text: "mother", Status: Active}, newest},
		{"student_search_terms", Filter{Text: "mother"}, Order{byRelevance, true}},
		{"student_search_terms", Filter{Text: "0000000007"}, Order{byRelevance, true}},
		{"student_first_name", Filter{FirstName: "A"}, Order{"firstName", false}},
		{"student_last_name", Filter{LastName: "A"}, Order{"lastName", true}},
	} {
		from, args := c.from(c.Order)
		plan := f.explain(t, "select *"+from+" order by "+c.sql()+" limit 20", args)
		if !strings.Contains(plan, c.index) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("the plan for %+v does not use %s:\n%s", c.Filter, c.index, plan)
		}
	}
	for index, filter := range map[string]Filter{
		"Index Only Scan using student_first_name_status": {FirstName: "Ab", Status: Active},
		"Index Only Scan using student_last_name_status":  {LastName: "Ab", Status: Active},
		"Index Only Scan using student_status":            {Status: Inactive},
	} {
		from, args := filter.from(Order{})
		if plan := f.explain(t, "select count(*)"+from, args); !strings.Contains(plan, index) {
			t.Errorf("%+v is not counted by %s:\n%s", filter, index, plan)
		}
	}
	f.ordersHaveIndexes(t)
}

// ordersHaveIndexes shows that no page of a walk sorts, or reads more than it gives.
func (f fixture) ordersHaveIndexes(t *testing.T) {
	t.Helper()
	for _, field := range SortFields() {
		for _, desc := range []bool{false, true} {
			order := Order{field, desc}
			from, args := Filter{}.from(order)
			middle, err := list(t.Context(), f.pool, Filter{}, order, nil, 1, 5000)
			if err != nil {
				t.Fatal(err)
			}
			after, args := order.after(order.position(middle[0]), args)
			plan := f.explain(t, "select *"+from+after+" order by "+order.sql()+" limit 20", args)
			if strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "Sort") || !strings.Contains(plan, "Index Cond") {
				t.Errorf("sort=%s, descending %t:\n%s", field, desc, plan)
			}
		}
	}
}

func (f fixture) fill(t *testing.T) {
	t.Helper()
	conn, err := f.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	// Vacuum finds rows visible to all only once their commit is on disk.
	for _, statement := range []string{"set synchronous_commit = on", fillStudents, "vacuum analyze student"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

func (f fixture) explain(t *testing.T, sql string, args []any) string {
	t.Helper()
	rows, err := f.pool.Query(t.Context(), "explain "+sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return strings.Join(lines, "\n")
}
