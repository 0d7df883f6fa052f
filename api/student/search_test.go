package student

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// searches maps queries to the numbers of the students that they find.
var searches = map[string]string{
	"sort=createdAt":                        "1 2 3 4 5",
	"":                                      "5 4 3 2 1",
	"firstName=ASH&sort=createdAt,asc":      "1 2",
	"firstName=é&sort=createdAt":            "3",
	"firstName=É&sort=createdAt":            "3",
	"firstName=" + "e\u0301":                "3",
	"firstName=आ":                           "5",
	"firstName=%":                           "",
	"firstName=_sha":                        "",
	"lastName=o'n":                          "4",
	"lastName=patil&sort=firstName":         "1 3",
	"mobile=9876543213":                     "4",
	"studentId=STU-2026-00003":              "3",
	"status=INACTIVE":                       "2",
	"status=ACTIVE&sort=createdAt":          "1 3 4 5",
	"caste=General&sort=dateOfBirth":        "3 1 4",
	"caste=100% caste":                      "5",
	"minAge=18":                             "2",
	"minAge=17&sort=createdAt":              "2 3",
	"maxAge=6&sort=createdAt":               "4 5",
	"minAge=7&maxAge=17&sort=createdAt,asc": "1 3",
	"firstName=a&status=ACTIVE&caste=General&minAge=10": "1",
	"sort=createdAt&size=2":                             "1 2",
	"sort=createdAt&size=2&page=2":                      "5",
	"sort=createdAt&size=2&page=7":                      "",
}

func TestSearch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, s := range []struct{ first, last, born, caste string }{
		{"Asha", "Patil", "2016-06-30", "General"},     // 10
		{"ashok", "Rao", "2008-11-23", "Other"},        // 18 today
		{"Élodie", "Patil", "2008-11-24", "General"},   // 17 until tomorrow
		{"Bina", "O'Neil", "2020-01-01", "General"},    // 6
		{"आशा", "Percent", "2020-01-01", "100% caste"}, // 6
	} {
		f.create(t, func(in *Input) {
			in.FirstName, in.LastName, in.DateOfBirth, in.Caste = s.first, s.last, s.born, s.caste
			in.Mobile = fmt.Sprintf("987654321%d", i)
		})
	}
	var rao Student
	f.Do(t, identity.Clerk, http.MethodGet, collection+"/STU-2026-00002", nil).Want(http.StatusOK).Decode(&rao)
	f.Do(t, identity.Clerk, http.MethodDelete, collection+"/"+rao.StudentID, nil, "If-Match", `"1"`).Want(http.StatusNoContent)

	for query, want := range searches {
		t.Run(query, func(t *testing.T) {
			values := url.Values{}
			for pair := range strings.SplitSeq(query, "&") {
				if name, value, ok := strings.Cut(pair, "="); ok {
					values.Set(name, value)
				}
			}
			var page Page
			f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+values.Encode(), nil).Want(http.StatusOK).Decode(&page)
			var got []string
			for _, student := range page.Content {
				got = append(got, strings.TrimLeft(student.StudentID[len("STU-2026-"):], "0"))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("found %v, want %s", got, want)
			}
		})
	}
	var page Page
	f.Do(t, identity.Viewer, http.MethodGet, collection+"?size=2&page=2&sort=createdAt", nil).Want(http.StatusOK).Decode(&page)
	if page.Page != 2 || page.Size != 2 || page.TotalElements != 5 || page.TotalPages != 3 || page.First || !page.Last {
		t.Errorf("page %+v", page)
	}
	answer := f.Do(t, identity.Viewer, http.MethodGet, collection+"?caste=none", nil).Want(http.StatusOK)
	if want := `{"content":[],"page":0,"size":20,"totalElements":0,"totalPages":0,"first":true,"last":true}`; strings.TrimSpace(string(answer.Body)) != want {
		t.Errorf("nothing found is %s", answer.Body)
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var empty, got Statistics
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/statistics", nil).Want(http.StatusOK).Decode(&empty)
	if empty.Total != 0 || empty.AverageAge != 0 || empty.ByCaste == nil || empty.ByAgeBand == nil {
		t.Errorf("of no student: %+v", empty)
	}
	for i, born := range []string{"2023-11-23", "2016-06-30", "2008-11-23", "2008-11-24"} { // 3, 10, 18, 17
		f.create(t, func(in *Input) {
			in.DateOfBirth, in.Mobile, in.Caste = born, fmt.Sprintf("987654321%d", i), []string{"General", "Other"}[i%2]
		})
	}
	f.Do(t, identity.Clerk, http.MethodDelete, collection+"/STU-2026-00003", nil, "If-Match", `"1"`).Want(http.StatusNoContent)
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/statistics", nil).Want(http.StatusOK).Decode(&got)
	if got.Total != 4 || got.Active != 3 || got.Inactive != 1 || got.AverageAge != 12 ||
		!maps.Equal(got.ByAgeBand, map[string]int64{"3-5": 1, "9-11": 1, "15-18": 2}) ||
		!maps.Equal(got.ByCaste, map[string]int64{"General": 2, "Other": 2}) {
		t.Errorf("statistics %+v", got)
	}
}

// Every promised filter has its index: the planner uses it once a table is big enough for an index to pay.
func TestFiltersHaveIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	const fill = `
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
    guardian_name, mother_name, caste, status, created_by, updated_by)
select 'STU-2026-' || lpad(n::text, 5, '0'), md5(n::text), md5((-n)::text), date '2000-01-01' + n % 5000, 's', 'c', 's', '411001', 'India',
    lpad(n::text, 10, '0'), 'g', 'm', 'caste ' || n % 500, case when n % 100 = 0 then 'INACTIVE' else 'ACTIVE' end, 'test', 'test'
from generate_series(1, 20000) as n`
	for _, statement := range []string{fill, "analyze student"} {
		if _, err := f.pool.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	for index, filter := range map[string]Filter{
		"student_pkey":          {StudentID: "STU-2026-00007"},
		"student_mobile_key":    {Mobile: "0000000007"},
		"student_first_name":    {FirstName: "AbC"},
		"student_last_name":     {LastName: "AbC"},
		"student_status":        {Status: Inactive},
		"student_caste":         {Caste: "caste 7"},
		"student_date_of_birth": {BornBy: Date{2000, 1, 20}, BornAfter: Date{2000, 1, 10}},
		"student_created_at":    {},
	} {
		where, args := filter.where()
		plan := f.explain(t, ctx, "select * from student where "+where+" order by "+Order{Field: "createdAt", Desc: true}.sql()+" limit 20", args)
		if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan") {
			t.Errorf("the plan for %s does not use it:\n%s", index, plan)
		}
	}
}

func (f fixture) explain(t *testing.T, ctx context.Context, sql string, args []any) string {
	t.Helper()
	rows, err := f.pool.Query(ctx, "explain "+sql, slices.Clone(args)...)
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
