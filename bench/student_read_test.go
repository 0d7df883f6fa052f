package bench

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// selectStudent is what the service asks for, one student at a time.
const selectStudent = `\set n random(100001, 200000)
select student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
    email, guardian_name, mother_name, caste, moles, aadhaar_number, status, synthetic, version,
    created_at, created_by, updated_at, updated_by
from student where student_id = 'STU-2026-' || :n;
`

// BenchmarkStudentRead measures GET of one student by a random id against pgbench reading the same rows, everything on this
// machine. Both load generators have one thread; what pgbench does with two is shown besides.
func BenchmarkStudentRead(b *testing.B) {
	s := startStudentService(b)
	for b.Loop() {
		for _, connections := range []int{16, 64} {
			name := "GET-" + strconv.Itoa(connections)
			perSecond := against(b, name, "/s", func() float64 { return s.read(b, connections, 0).perSecond },
				measure{"pgbench", func() float64 { return s.pgbenchRead(b, connections, 1, 0).perSecond }},
				measure{"pgbench-two-threads", func() float64 { return s.pgbenchRead(b, connections, 2, 0).perSecond }})
			against(b, name+"-p99-half-load", "ms", func() float64 { return milliseconds(s.read(b, connections, int(perSecond[0]/2)).p99) },
				measure{"pgbench", func() float64 { return milliseconds(s.pgbenchRead(b, connections, 1, int(perSecond[1]/2)).p99) }})
		}
	}
	rss, _ := memory(s.pid)
	b.ReportMetric(rss, "RSS-MB")
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

func (s *studentService) pgbenchRead(b *testing.B, clients, threads, rate int) load {
	b.Helper()
	return pgbench{database: s.database, bin: s.Bin, script: selectStudent, clients: clients, threads: threads, duration: short(), rate: rate}.run(b)
}

func (s *studentService) read(b *testing.B, connections, rate int) load {
	b.Helper()
	text := request(http.MethodGet, "/api/v1/students/STU-2026-000000", s.token, "")
	at := bytes.Index(text, []byte("000000"))
	digits, id := text[at:at+6], text[at-len("STU-2026-"):at+6]
	got, err := generator{address: s.address, connections: connections, duration: short(), rate: rate, status: http.StatusOK,
		next: func() ([]byte, []byte) {
			putNumber(digits, firstStudent+rand.IntN(students))
			return text, id
		}}.run()
	check(b, err)
	return got
}
