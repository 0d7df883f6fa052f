package bench

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

const studentsPath = "/api/v1/students"

// BenchmarkStudentSearch measures searches among 1,000,000 students (SMS_BENCH_STUDENTS changes that) through the service's HTTP
// handler, token check and access log included, one after the other.
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
	b.Logf("%d students were made in %.0f s", n, time.Since(began).Seconds())
	s := searcher{b: b, pool: pool, service: serve(b, pool)}
	s.explain(cfg)
	before := s.number("select seq_scan from pg_stat_user_tables where relname = 'student'")
	for b.Loop() {
		s.pages()
		s.texts()
		s.walks()
	}
	for range s.sequentialScans(before) {
		b.Error("a table was scanned sequentially")
	}
}
