package student

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/text/unicode/norm"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

func (s *service) mountSearch(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "search-students", Method: http.MethodGet, Path: collection,
		Summary: "Search students", Roles: []identity.Role{identity.Clerk, identity.Viewer}, Context: s.withService}, s.search)
}

// FilterInput says which students are meant.
type FilterInput struct {
	StudentID string `query:"studentId" doc:"Exact."`
	Mobile    string `query:"mobile" doc:"Exact."`
	Status    Status `query:"status" enum:"ACTIVE,INACTIVE"`
	Caste     string `query:"caste" doc:"Exact."`
	FirstName string `query:"firstName" doc:"How the first name starts, in any case."`
	LastName  string `query:"lastName" doc:"How the last name starts, in any case."`
	Text      string `query:"q" doc:"Free text of at most 100 characters and 10 words, in any case, with or without accents. Every word starts a word of the student's, guardian's or mother's names, the mobile number, the student id or its last part; or differs by one letter left out, added, replaced or swapped with its neighbour from a word of four letters or more, or from the mobile number."`
	MinAge    int    `query:"minAge" minimum:"0" maximum:"150" doc:"Least age today, in completed years."`
	MaxAge    int    `query:"maxAge" minimum:"0" maximum:"150" default:"150" doc:"Greatest age today, in completed years."`
}

type searchInput struct {
	FilterInput
	Sort   string `query:"sort" doc:"A field, and asc or desc: createdAt, updatedAt, firstName, lastName, dateOfBirth, status or caste. Without it createdAt,desc; with q those found without a typo come first."`
	Page   int    `query:"page" minimum:"0" maximum:"1000000" default:"0" doc:"Counts from 0."`
	Size   int    `query:"size" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" doc:"Instead of page: start, then what nextCursor says or where Link leads. Pages take equally long however far one goes, nothing is counted, and what others write meanwhile neither repeats a student nor leaves one out."`

	order Order
	walk  bool     // by cursor
	after []string // where the walk goes on; nil for its start
	query url.Values
}

const (
	oldest        = 150 // years
	longestText   = 100 // characters of free text
	mostWords     = 10  // of free text
	startOfSearch = "start"
	farthest      = 1000000 // the last page by number
)

// Resolve reads the order and the cursor, and refuses what no row could hold.
func (in *searchInput) Resolve(ctx huma.Context) []error {
	address := ctx.URL()
	in.query = address.Query()
	faults := in.check()
	sort := in.Sort
	if sort == "" {
		sort = "createdAt,desc"
	}
	field, direction, _ := strings.Cut(sort, ",")
	if !slices.Contains(SortFields(), field) || !slices.Contains([]string{"", "asc", "desc"}, direction) {
		faults = append(faults, server.Fault{Field: "sort", Code: "not-allowed",
			Detail: fmt.Sprintf("must be one of %s, then ,asc or ,desc", strings.Join(SortFields(), ", "))})
	}
	in.order = Order{Field: field, Desc: direction == "desc"}
	if in.Sort == "" && in.Text != "" {
		in.order = Order{Field: byRelevance, Desc: true}
	}
	if in.walk = in.query.Has("cursor"); in.walk {
		faults = append(faults, in.resolveCursor(ctx.Context())...)
	}
	return faults
}

// check brings texts into the form that rows have, and refuses what no row could hold.
func (in *FilterInput) check() (faults []error) {
	if in.MinAge > in.MaxAge {
		faults = append(faults, server.Fault{Field: "minAge", Code: "out-of-range", Detail: "must not be above maxAge"})
	}
	for _, text := range []struct {
		field string
		value *string
	}{{"studentId", &in.StudentID}, {"mobile", &in.Mobile}, {"caste", &in.Caste}, {"firstName", &in.FirstName}, {"lastName", &in.LastName}, {"q", &in.Text}} {
		if !utf8.ValidString(*text.value) || strings.ContainsFunc(*text.value, unicode.IsControl) {
			faults = append(faults, server.Fault{Field: text.field, Code: "wrong-format", Detail: "must be text without control characters"})
		}
		*text.value = norm.NFC.String(*text.value)
	}
	if in.Text = strings.TrimSpace(in.Text); in.Text == "" {
		return faults
	}
	words := len(strings.FieldsFunc(strings.ReplaceAll(in.Text, "'", ""), func(r rune) bool { return !unicode.In(r, unicode.L, unicode.M, unicode.N) }))
	switch {
	case words == 0:
		faults = append(faults, server.Fault{Field: "q", Code: "wrong-format", Detail: "must hold a letter or a digit"})
	case words > mostWords || utf8.RuneCountInString(in.Text) > longestText:
		faults = append(faults, server.Fault{Field: "q", Code: "too-long",
			Detail: fmt.Sprintf("must have at most %d words and %d characters", mostWords, longestText)})
	}
	return faults
}

// resolveCursor finds where the walk goes on.
func (in *searchInput) resolveCursor(ctx context.Context) (faults []error) {
	if in.query.Has("page") {
		faults = append(faults, server.Fault{Field: "page", Code: "not-allowed", Detail: "goes without cursor"})
	}
	if in.Cursor == startOfSearch {
		return faults
	}
	after, err := serviceFrom(ctx).store.openCursor(ctx, in.search(), in.Cursor)
	if err != nil {
		return []error{server.AsProblem(err)}
	}
	if in.after = after; after == nil {
		faults = append(faults, server.Fault{Field: "cursor", Code: "wrong-format",
			Detail: "must be " + startOfSearch + " or what an answer to the same search gave"})
	}
	return faults
}

// search is what a cursor belongs to: the same for all pages of a walk, on every day.
func (in *searchInput) search() string {
	return fmt.Sprintf("%#v", []any{in.StudentID, in.Mobile, in.Status, in.Caste, in.FirstName, in.LastName, in.Text, in.MinAge, in.MaxAge, in.order})
}

func (in *FilterInput) filter(today Date) Filter {
	f := Filter{StudentID: in.StudentID, Mobile: in.Mobile, Status: in.Status, Caste: in.Caste,
		FirstName: in.FirstName, LastName: in.LastName, Text: in.Text}
	if in.MinAge > 0 {
		f.BornBy = today.YearsBefore(in.MinAge)
	}
	if in.MaxAge < oldest {
		f.BornAfter = today.YearsBefore(in.MaxAge + 1)
	}
	return f
}

// link leads to another page of the same search (RFC 8288). It names no host, so that it holds behind any gateway.
func (in *searchInput) link(parameter, value, relation string) string {
	query := maps.Clone(in.query)
	query.Set(parameter, value)
	return fmt.Sprintf(`<%s?%s>; rel="%s"`, collection, query.Encode(), relation)
}

type searchOutput struct {
	Link string `header:"Link" doc:"Where the next page is, rel=\"next\", and with page the one before, rel=\"prev\" (RFC 8288)."`
	Body found
}

// found is a Page, or a CursorPage where a cursor was asked for.
type found struct{ page any }

// Schema is what huma asks for.
func (found) Schema(r huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{r.Schema(reflect.TypeFor[Page](), true, ""), r.Schema(reflect.TypeFor[CursorPage](), true, "")}}
}

// MarshalJSON leaves out that there are two kinds.
func (f found) MarshalJSON() ([]byte, error) { return json.Marshal(f.page) }

// Page is one page of found students.
type Page struct {
	Content       []Student `json:"content" nullable:"false"`
	Page          int       `json:"page" doc:"Counts from 0."`
	Size          int       `json:"size"`
	TotalElements int64     `json:"totalElements"`
	TotalPages    int64     `json:"totalPages"`
	First         bool      `json:"first"`
	Last          bool      `json:"last"`
}

// CursorPage is some of the found students, on the way through all of them.
type CursorPage struct {
	Content    []Student `json:"content" nullable:"false"`
	Size       int       `json:"size"`
	NextCursor string    `json:"nextCursor,omitempty" doc:"Absent when there are no more."`
}

func (s *service) search(ctx context.Context, in *searchInput) (*searchOutput, error) {
	if in.walk {
		return s.walk(ctx, in)
	}
	students, total, err := s.store.Search(ctx, in.filter(s.today()), in.order, in.Page, in.Size)
	if err != nil {
		return nil, err
	}
	page := Page{Content: s.present(students), Page: in.Page, Size: in.Size, TotalElements: total,
		TotalPages: (total + int64(in.Size) - 1) / int64(in.Size), First: in.Page == 0}
	page.Last = int64(in.Page)+1 >= page.TotalPages
	var links []string
	if !page.Last && in.Page < farthest {
		links = append(links, in.link("page", strconv.Itoa(in.Page+1), "next"))
	}
	if before := min(int64(in.Page), page.TotalPages) - 1; before >= 0 {
		links = append(links, in.link("page", strconv.FormatInt(before, 10), "prev"))
	}
	return &searchOutput{Link: strings.Join(links, ", "), Body: found{page}}, nil
}

func (s *service) walk(ctx context.Context, in *searchInput) (*searchOutput, error) {
	students, next, err := s.store.Walk(ctx, in.filter(s.today()), in.order, in.after, in.Size)
	if err != nil {
		return nil, err
	}
	page, link := CursorPage{Content: s.present(students), Size: in.Size}, ""
	if next != nil {
		if page.NextCursor, err = s.store.sealCursor(ctx, in.search(), next); err != nil {
			return nil, err
		}
		link = in.link("cursor", page.NextCursor, "next")
	}
	return &searchOutput{Link: link, Body: found{page}}, nil
}

func (s *service) present(records []Record) []Student {
	students, today := make([]Student, len(records)), s.today()
	for i, record := range records {
		students[i] = present(record, today)
	}
	return students
}
