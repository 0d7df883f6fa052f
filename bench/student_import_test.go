package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// BenchmarkStudentImport compares an import by the student service with COPY of the same rows into the same indexed table, and the
// service's peak memory at many rows with that at few.
func BenchmarkStudentImport(b *testing.B) {
	const few, rows, many = 10_000, 100_000, 1_000_000
	for b.Loop() {
		var imports, copies, peaks []float64
		for range runs {
			copies = append(copies, copyStudents(b, rows).Seconds())
			took, _ := importStudents(b, rows)
			imports = append(imports, took.Seconds())
			_, peak := importStudents(b, few)
			peaks = append(peaks, peak)
		}
		b.ReportMetric(median(copies), "copy-s")
		b.ReportMetric(median(imports), "import-s")
		b.ReportMetric(median(imports)/median(copies), "import/copy")
		took, peak := importStudents(b, many)
		b.ReportMetric(took.Seconds(), "import-1M-s")
		b.ReportMetric(median(peaks), "peak-10k-MB")
		b.ReportMetric(peak, "peak-1M-MB")
		b.ReportMetric(peak/median(peaks), "peak-1M/10k")
	}
}

// studentRows generates students, the same ones each time, a line each. It holds one line.
type studentRows struct {
	format func(n int) string
	next   int
	last   int
	rest   []byte
}

func (s *studentRows) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.next > s.last {
			return 0, io.EOF
		}
		s.rest = append(s.rest[:0], s.format(s.next)...)
		s.next++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

var (
	firstNames = strings.Fields("Asha Ravi Meera Arjun Divya Kiran Lakshmi Mohan Nisha Omkar Priya Rahul Sita Tara Uday Varun")
	lastNames  = strings.Fields("Patil Sharma Rao Iyer Khan Das Joshi Nair Gupta Singh Bose Menon Reddy")
	cities     = strings.Fields("Pune Mumbai Nagpur Nashik Thane")
	castes     = strings.Fields("General OBC SC ST Other")
)

// studentCells are the cells of student n after the id.
func studentCells(n int) []any {
	pick := func(from []string, salt int) string { return from[(n*7919+salt*104729)%len(from)] }
	last := pick(lastNames, 2)
	born := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n*31%3650)
	return []any{pick(firstNames, 1), last, born.Format(time.DateOnly), fmt.Sprintf("%d Lake Road", n%997+1), pick(cities, 3), "Maharashtra",
		fmt.Sprint(411001 + n%60), "India", fmt.Sprintf("%010d", 6_000_000_000+n), fmt.Sprintf("student%d@example.com", n),
		pick(firstNames, 4) + " " + last, pick(firstNames, 5) + " " + last, pick(castes, 6), "", fmt.Sprintf("%012d", 100_000_000_000+n)}
}

const (
	csvHeader = "firstName,lastName,dateOfBirth,street,city,state,pinCode,country,mobile,email,fatherNameOrGuardian,motherName,caste,moles,aadhaarNumber\n"
	copyInto  = `copy student (first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile, email, guardian_name,
		mother_name, caste, moles, aadhaar_number, student_id, created_by, updated_by) from stdin with (format csv, null '-')`
)

// freshDatabase has the student service's tables, empty.
func freshDatabase(b *testing.B) postgres.Config {
	b.Helper()
	return pgtest.New(b, migrations.Student())
}

// copyStudents is what PostgreSQL alone takes.
func copyStudents(b *testing.B, n int) time.Duration {
	b.Helper()
	pool, err := postgres.Open(b.Context(), freshDatabase(b), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	conn, err := pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	file, err := io.ReadAll(&studentRows{next: 1, last: n, format: func(n int) string {
		return joined(append(studentCells(n), fmt.Sprintf("STU-2026-%05d", n), "bench", "bench"))
	}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), "set statement_timeout = 0"); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if _, err := conn.Conn().PgConn().CopyFrom(b.Context(), bytes.NewReader(file), copyInto); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func joined(cells []any) string {
	var line strings.Builder
	for i, cell := range cells {
		if i > 0 {
			line.WriteByte(',')
		}
		fmt.Fprint(&line, cell)
	}
	line.WriteByte('\n')
	return line.String()
}

// importStudents is what a caller of a student service of its own waits, and the most memory that the service held, in MB.
func importStudents(b *testing.B, n int) (took time.Duration, peakMB float64) {
	b.Helper()
	address, token, pid, stop := launch(b, freshDatabase(b), "STUDENT_IMPORT_WAIT=1h", "LOG_LEVEL=error")
	defer stop()
	file := &studentRows{last: n, format: func(n int) string {
		if n == 0 {
			return csvHeader
		}
		return joined(studentCells(n))
	}}
	request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+address+"/api/v1/students/imports", file)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "text/csv")
	began := time.Now()
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	var report struct {
		State       string `json:"state"`
		RowsCreated int    `json:"rowsCreated"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&report); err != nil || report.State != "SUCCEEDED" || report.RowsCreated != n {
		b.Fatalf("imported %+v (%v), want %d rows", report, err, n)
	}
	return time.Since(began), peakMemory(b, pid)
}

// peakMemory is the most that a process has held, in MB (proc(5), VmHWM).
func peakMemory(b *testing.B, pid int) float64 {
	b.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(content), "VmHWM:")
	kB, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB / 1000
}
