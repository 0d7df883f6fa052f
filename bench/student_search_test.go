package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// BenchmarkStudentSearch measures searches among 1,000,000 students (SMS_BENCH_STUDENTS says how many else) through the service's
// HTTP handler, with token check, metrics and access log, one after the other; and prints the plans of the statements.
func BenchmarkStudentSearch(b *testing.B) {
	n := 1000000
	if wanted, err := strconv.Atoi(os.Getenv("SMS_BENCH_STUDENTS")); err == nil {
		n = wanted
	}
	cfg := pgtest.New(b, migrations.Student())
	pool, err := postgres.Open(b.Context(), cfg, "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	began := time.Now()
	if err := FillStudents(b.Context(), pool, n, false); err != nil {
		b.Fatal(err)
	}
	s := newSearcher(b, pool)
	s.printf("%d students made in %.0f s", n, time.Since(began).Seconds())
	s.explain(cfg)
	scans := s.sequentialScans()
	for b.Loop() {
		s.measurePages()
		s.measureTexts()
		s.measureOrders()
		s.walkThrough(n)
	}
	if more := s.sequentialScans() - scans; more > 0 {
		b.Errorf("students were scanned sequentially %d times", more)
	}
}

// searcher is a caller with a token, who knows some of the students.
type searcher struct {
	b       *testing.B
	pool    *pgxpool.Pool
	store   *student.Store
	service *servertest.Service
	token   string
	known   []known
}

type known struct {
	FirstName, LastName, Mobile string
}

func newSearcher(b *testing.B, pool *pgxpool.Pool) *searcher {
	s := &searcher{b: b, pool: pool, store: student.NewStore(postgres.NewDB(pool)), service: servertest.New(b, "student-service", server.Config{})}
	student.Mount(s.service.Server, s.store, student.DefaultSchool, time.Now)
	s.token = s.service.Token(b, identity.Viewer)
	rows, _ := pool.Query(b.Context(), "select first_name, last_name, mobile from student order by student_id limit 2000")
	var err error
	if s.known, err = pgx.CollectRows(rows, pgx.RowToStructByPos[known]); err != nil {
		b.Fatal(err)
	}
	return s
}

// printf prints at once: the log of a benchmark is cut short.
func (s *searcher) printf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// get asks for an address, and returns the answer and how long it took.
func (s *searcher) get(address string) (*httptest.ResponseRecorder, time.Duration) {
	s.b.Helper()
	request := httptest.NewRequest(http.MethodGet, address, nil)
	request.Header.Set("Authorization", "Bearer "+s.token)
	recorder := httptest.NewRecorder()
	began := time.Now()
	s.service.Engine.ServeHTTP(recorder, request)
	took := time.Since(began)
	if recorder.Code != http.StatusOK {
		s.b.Fatalf("%s: %d %s", address, recorder.Code, recorder.Body)
	}
	return recorder, took
}

func address(pairs ...string) string {
	query := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return "/api/v1/students?" + query.Encode()
}

// measure asks for something of every known student, and reports the percentiles.
func (s *searcher) measure(what string, students []known, of func(i int, k known) string) {
	s.b.Helper()
	var took []time.Duration
	for i, k := range students {
		_, d := s.get(of(i, k))
		took = append(took, d)
	}
	slices.Sort(took)
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	s.printf("%-40s p50 %6.1f ms  p99 %6.1f ms  most %6.1f ms", what, ms(0.5), ms(0.99), ms(1))
	s.b.ReportMetric(ms(0.99), strings.ReplaceAll(what, " ", "-")+"-p99-ms")
}

// prefix is how a clerk starts to type a student's name: two to four letters.
func prefix(i int, k known) (field, letters string) {
	field, letters = "firstName", k.FirstName
	if i%2 == 1 {
		field, letters = "lastName", k.LastName
	}
	runes := []rune(letters)
	return field, string(runes[:min(2+i%3, len(runes))])
}

func (s *searcher) measurePages() {
	s.measure("prefix and status", s.known, func(i int, k known) string {
		field, letters := prefix(i, k)
		return address(field, letters, "status", []string{"ACTIVE", "ACTIVE", "ACTIVE", "INACTIVE"}[i/2%4])
	})
	s.measure("prefix in order of the name", s.known[:400], func(i int, k known) string {
		field, letters := prefix(i, k)
		return address(field, letters, "sort", field)
	})
}

func (s *searcher) measureTexts() {
	s.measure("text of a mobile's first five digits", s.known[:400], func(_ int, k known) string { return address("q", k.Mobile[:5]) })
	s.measure("text of a mobile with a typo", s.known[:400], func(i int, k known) string {
		return address("q", k.Mobile[:i%9]+k.Mobile[i%9+1:])
	})
	s.measure("text of both names with a typo", s.known[:400], func(i int, k known) string {
		runes := []rune(k.LastName)
		gone := i % len(runes)
		return address("q", string(runes[:gone])+string(runes[gone+1:])+" "+k.FirstName)
	})
	s.measure("text of one name", s.known[:50], func(_ int, k known) string { return address("q", k.FirstName) })
}

// measureOrders compares the first and the last page of a walk in every order.
func (s *searcher) measureOrders() {
	walk := func(o student.Order, after []string, size int) (time.Duration, []string) {
		began := time.Now()
		found, next, err := s.store.Walk(s.b.Context(), student.Filter{}, o, after, size)
		if err != nil || len(found) != size {
			s.b.Fatalf("%d students: %v", len(found), err)
		}
		return time.Since(began), next
	}
	worst := 0.0
	for _, field := range student.SortFields() {
		for _, desc := range []bool{false, true} {
			order := student.Order{Field: field, Desc: desc}
			_, end := walk(student.Order{Field: field, Desc: !desc}, nil, 21) // 20 come after it in this order
			first, last := turns(301, func(int) time.Duration {
				took, _ := walk(order, nil, 20)
				return took
			}, func(int) time.Duration {
				took, next := walk(order, end, 20)
				if next != nil {
					s.b.Fatalf("what should be the last page by %s is followed by another", field)
				}
				return took
			})
			s.printf("by %-12s descending %-5t first page %.2f ms  last page %.2f ms  ratio %.2f", field, desc, first, last, last/first)
			worst = max(worst, last/first)
		}
	}
	s.b.ReportMetric(worst, "last-page-to-first")
}

// turns takes two measures by turns, so that both see the same of what else the machine does, and returns their medians in ms.
func turns(n int, one, other func(int) time.Duration) (float64, float64) {
	var ones, others []float64
	for i := range n {
		ones = append(ones, one(i).Seconds()*1000)
		others = append(others, other(i).Seconds()*1000)
	}
	return median(ones), median(others)
}

// walkThrough follows the links from the first page to the last, and sees everybody once.
func (s *searcher) walkThrough(n int) {
	began, seen, pages := time.Now(), map[string]bool{}, []string{}
	for next := address("cursor", "start", "size", "100"); next != ""; {
		pages = append(pages, next)
		answer, _ := s.get(next)
		var page student.CursorPage
		if err := json.Unmarshal(answer.Body.Bytes(), &page); err != nil {
			s.b.Fatal(err)
		}
		for _, found := range page.Content {
			seen[found.StudentID] = true
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(answer.Header().Get("Link"), "<"), ">")
	}
	s.printf("a walk through %d students in %d pages took %.1f s", len(seen), len(pages), time.Since(began).Seconds())
	if len(seen) != n || len(pages) != (n+99)/100 {
		s.b.Errorf("%d of %d students in %d pages", len(seen), n, len(pages))
	}
	page := func(i int) time.Duration {
		_, took := s.get(pages[i])
		return took
	}
	first, last := turns(min(200, len(pages)), page, func(i int) time.Duration { return page(len(pages) - 1 - i) })
	s.printf("its first pages of 100 %.2f ms  its last %.2f ms  ratio %.2f", first, last, last/first)
	s.b.ReportMetric(last/first, "last-pages-to-first")
}

// explain prints how PostgreSQL carries out the statements of some searches, as it says itself.
func (s *searcher) explain(c postgres.Config) {
	cfg, err := c.PoolConfig("explain")
	if err != nil {
		s.b.Fatal(err)
	}
	for name, value := range map[string]string{"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
		"auto_explain.log_analyze": "on", "auto_explain.log_timing": "off", "client_min_messages": "log"} {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	var plans []string
	cfg.ConnConfig.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if strings.Contains(n.Message, " on student ") {
			plans = append(plans, n.Message)
		}
	}
	pool, err := pgxpool.NewWithConfig(s.b.Context(), cfg)
	if err != nil {
		s.b.Fatal(err)
	}
	defer pool.Close()
	explained := newSearcher(s.b, pool)
	for _, asked := range []string{address("firstName", "ra", "status", "ACTIVE"), address("lastName", "kapo", "status", "INACTIVE"), address("cursor", "start"),
		address("firstName", "ra", "sort", "firstName", "cursor", "start"), address("q", "patl asha")} {
		plans = nil
		explained.get(asked)
		s.printf("%s\n%s", asked, strings.Join(plans, "\n"))
		if strings.Contains(strings.Join(plans, ""), "Seq Scan") || len(plans) == 0 {
			s.b.Errorf("%s scans sequentially, or is not explained", asked)
		}
	}
}

// sequentialScans counts how often the table has been read from end to end.
func (s *searcher) sequentialScans() (n int) {
	s.b.Helper()
	if err := s.pool.QueryRow(s.b.Context(), "select seq_scan from pg_stat_user_tables where relname = 'student'").Scan(&n); err != nil {
		s.b.Fatal(err)
	}
	return n
}
