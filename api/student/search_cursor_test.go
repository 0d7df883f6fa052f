package student

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

var nextLink = regexp.MustCompile(`^<(/api/v1/students\?[^>]*)>; rel="next"$`)

// walk follows the links from the start of a search to its end. between is called after each page.
func (f fixture) walk(t *testing.T, query string, between func()) (ids []string) {
	t.Helper()
	address := collection + "?" + query
	for pages := 0; ; pages++ {
		var page CursorPage
		answer := f.Do(t, identity.Viewer, http.MethodGet, address, nil).Want(http.StatusOK).Decode(&page)
		for _, student := range page.Content {
			ids = append(ids, student.StudentID)
		}
		link := nextLink.FindStringSubmatch(answer.Header.Get("Link"))
		if (link == nil) != (page.NextCursor == "") || pages > 1000 {
			t.Fatalf("page %d: Link %q, nextCursor %q", pages, answer.Header.Get("Link"), page.NextCursor)
		}
		if link == nil {
			return ids
		}
		address = link[1]
		if between != nil {
			between()
		}
	}
}

// add makes students who are equal in much, some of them at one time.
func (f fixture) add(t *testing.T, from, to int) {
	t.Helper()
	const sql = `
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
    guardian_name, mother_name, caste, status, created_by, updated_by, created_at, updated_at)
select 'STU-2026-' || lpad(n::text, 5, '0'), (array['Asha', 'asha', 'Áshá', 'Ashok', 'Zoya', 'आशा'])[1 + n % 6], (array['Patil', 'D''Souza', 'De Sa'])[1 + n % 3],
    date '2015-01-01' + n % 5, 's', 'c', 's', '411001', 'India', lpad(n::text, 10, '0'), 'g', 'm', (array['General', 'OBC', 'sc'])[1 + n % 3],
    case when n % 4 = 0 then 'INACTIVE' else 'ACTIVE' end, 'test', 'test',
    timestamptz '2026-01-01 00:00:00.123456Z' + n % 7 * interval '1 microsecond', timestamptz '2026-02-01 00:00Z' + n % 6 * interval '1 hour'
from generate_series($1::int, $2::int) as n`
	if _, err := f.pool.Exec(t.Context(), sql, from, to); err != nil {
		t.Fatal(err)
	}
}

func TestAWalkSeesEverybodyOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.add(t, 1, 40)
	added := 100
	queries := []string{"q=asha", "q=asha+patil&status=ACTIVE", "firstName=ash&sort=firstName", "firstName=%C3%A1&sort=firstName,desc", "status=ACTIVE&caste=OBC"}
	for _, field := range SortFields() {
		queries = append(queries, "sort="+field, "sort="+field+",desc", "maxAge=11&lastName=d&sort="+field+",desc")
	}
	for _, query := range queries {
		var all Page
		f.Do(t, identity.Viewer, http.MethodGet, collection+"?size=100&"+query, nil).Want(http.StatusOK).Decode(&all)
		var want []string
		for _, student := range all.Content {
			want = append(want, student.StudentID)
		}
		if len(want) < 3 {
			t.Fatalf("%s finds %d students, too few to show anything", query, len(want))
		}
		size := fmt.Sprintf("&cursor=start&size=%d", 1+rand.IntN(len(want)))
		if got := f.walk(t, query+size, nil); !slices.Equal(got, want) {
			t.Errorf("a walk through %s%s finds\n%v, want\n%v", query, size, got, want)
		}
		// Others come, change and go at every step.
		gone := want[rand.IntN(len(want))]
		changed := want[rand.IntN(len(want))]
		first := added
		got := f.walk(t, query+"&cursor=start&size=3", func() {
			f.add(t, added, added)
			added++
			for _, sql := range []string{"update student set synthetic = true where student_id = $1", `update student set updated_at = now(), first_name = 'Ash',
				last_name = 'Dutt', date_of_birth = date_of_birth + 1, created_at = created_at - interval '1 s' where student_id = $2 and $1 <> $2`} {
				if _, err := f.pool.Exec(t.Context(), sql, []any{gone, changed}[:strings.Count(sql, "$1")+strings.Count(sql, "= $2")]...); err != nil {
					t.Fatal(err)
				}
			}
		})
		stayed := func(ids []string) []string {
			return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == gone || id == changed || !slices.Contains(want, id) })
		}
		if !slices.Equal(stayed(got), stayed(want)) {
			t.Errorf("a walk through %s among writers finds\n%v, want\n%v", query, stayed(got), stayed(want))
		}
		if _, err := f.pool.Exec(t.Context(), "delete from student"); err != nil {
			t.Fatal(err)
		}
		f.add(t, 1, 40)
		added = first
	}
}

func TestCursorsAreOfTheirSearch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.add(t, 1, 30)
	get := func(query url.Values) (string, url.Values) {
		var page CursorPage
		f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+query.Encode(), nil).Want(http.StatusOK).Decode(&page)
		next := maps.Clone(query)
		next.Set("cursor", page.NextCursor)
		return page.NextCursor, next
	}
	cursor, query := get(url.Values{"cursor": {"start"}, "sort": {"dateOfBirth"}, "status": {"ACTIVE"}, "size": {"2"}})
	if decoded, err := base64.RawURLEncoding.DecodeString(cursor); err != nil || strings.Contains(string(decoded), "2015") {
		t.Errorf("the cursor %q shows a date of birth", cursor)
	}
	with := func(pairs ...string) string {
		changed := maps.Clone(query)
		for i := 0; i < len(pairs); i += 2 {
			changed.Set(pairs[i], pairs[i+1])
		}
		return collection + "?" + changed.Encode()
	}
	for _, address := range []string{with("size", "5"), with("caste", ""), with("minAge", "0"), with("sort", "dateOfBirth,asc")} { // the same search
		f.Do(t, identity.Viewer, http.MethodGet, address, nil).Want(http.StatusOK)
	}
	addresses := []string{with("sort", "dateOfBirth,desc"), with("sort", "createdAt"), with("status", "INACTIVE"), with("caste", "OBC"), with("q", "asha"),
		with("minAge", "3"), with("cursor", ""), with("cursor", "x"), with("cursor", "%"), with("cursor", "START"), with("cursor", cursor+cursor),
		with("cursor", "AQ"), with("cursor", base64.RawURLEncoding.EncodeToString([]byte(`["2015-01-01","STU-2026-00001"]`)))}
	for i := range cursor {
		replaced := "A"
		if cursor[i] == 'A' {
			replaced = "B"
		}
		addresses = append(addresses, with("cursor", cursor[:i]), with("cursor", cursor[:i]+replaced+cursor[i+1:]))
	}
	for _, address := range addresses {
		if faults := f.Do(t, identity.Viewer, http.MethodGet, address, nil).Faults(http.StatusUnprocessableEntity, "validation-error"); !maps.Equal(faults, map[string]string{"cursor": "wrong-format"}) {
			t.Errorf("%s: faults %v", address, faults)
		}
	}
	for query, want := range map[string]map[string]string{
		"cursor=start&page=0": {"page": "not-allowed"},
		"cursor=x&page=1&sort=x&size=0&q=" + strings.Repeat("a+", 11): {"cursor": "wrong-format", "page": "not-allowed", "sort": "not-allowed", "size": "too-small", "q": "too-long"},
		"q=" + strings.Repeat("a", 101):                               {"q": "too-long"},
		"q=-.%27":                                                     {"q": "wrong-format"},
		"q=a%00":                                                      {"q": "wrong-format"},
		"q=%FF":                                                       {"q": "wrong-format"},
		"sort=relevance":                                              {"sort": "not-allowed"},
	} {
		if faults := f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+query, nil).Faults(http.StatusUnprocessableEntity, "validation-error"); !maps.Equal(faults, want) {
			t.Errorf("%s: faults %v, want %v", query, faults, want)
		}
	}
}

// Every character that a URL can carry is only text.
func TestAnyTextIsOnlyText(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.add(t, 1, 3)
	texts := []string{"O''Neil:*", "a&b|!c", "(((", `a\`, `\` + "'a", "stu-", "STU-2026-00001", "stu-2026-0000'", "½ ﬁ ß Æ", "～a", "\u200dआ", "İi", strings.Repeat("é", 100), strings.Repeat("1", 11),
		strings.Repeat("12345678 ", 10), "a\u00a0b", "😀a", "\U0010ffff", "€"}
	for range 60 {
		var b strings.Builder
		for range 1 + rand.IntN(12) {
			b.WriteRune(rune(0x20 + rand.IntN([]int{0x5f, 0x2000, 0x10000}[rand.IntN(3)])))
		}
		texts = append(texts, b.String())
	}
	for _, text := range texts {
		for _, name := range []string{"q", "firstName", "lastName", "caste", "mobile", "studentId"} {
			query := url.Values{name: {text}, "sort": {"firstName"}}
			answer := f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+query.Encode(), nil)
			if answer.Status != http.StatusOK && answer.Status != http.StatusUnprocessableEntity {
				t.Errorf("%s=%q: %d %s", name, text, answer.Status, answer.Body)
			}
		}
	}
}

func TestPagesAreLinked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.add(t, 1, 5)
	for query, want := range map[string]string{
		"size=2":                               `</api/v1/students?page=1&size=2>; rel="next"`,
		"size=2&page=1":                        `</api/v1/students?page=2&size=2>; rel="next", </api/v1/students?page=0&size=2>; rel="prev"`,
		"size=2&page=2":                        `</api/v1/students?page=1&size=2>; rel="prev"`,
		"size=2&page=9":                        `</api/v1/students?page=2&size=2>; rel="prev"`,
		"q=none&page=3":                        "",
		"lastName=d%27s&size=1&sort=firstName": `</api/v1/students?lastName=d%27s&page=1&size=1&sort=firstName>; rel="next"`,
	} {
		if got := f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+query, nil).Want(http.StatusOK).Header.Get("Link"); got != want {
			t.Errorf("%s: Link %s, want %s", query, got, want)
		}
	}
	answer := f.Do(t, identity.Viewer, http.MethodGet, collection+"?cursor=start&caste=none", nil).Want(http.StatusOK)
	if want := `{"content":[],"size":20}`; strings.TrimSpace(string(answer.Body)) != want {
		t.Errorf("nothing found is %s", answer.Body)
	}
}
