package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/standalone"
)

// TestReplica reads from a replica what was written through the primary, and kills the replica under the reads.
func TestReplica(t *testing.T) {
	t.Parallel()
	p := up(t, newDataDir(t), "--replica", "--no-staging")
	p.replicaUsed()
	made := p.call(http.MethodPost, "/api/v1/students", student("9000000010"))
	position, path := made.Header.Get("X-SMS-Position"), made.Header.Get("Location")
	if made.Status != http.StatusCreated || position == "" {
		t.Fatalf("%d %s, position %q", made.Status, made.Body, position)
	}
	read := func(when string) {
		t.Helper()
		if a := p.call(http.MethodGet, path, nil, "X-SMS-Position", position); a.Status != http.StatusOK {
			t.Errorf("%s: %d %s", when, a.Status, a.Body)
		}
	}
	before := p.replicaReads()
	read("at once")
	eventually(t, startWithin, "the replica answers", func() (bool, string) {
		read("while the replica replays")
		now := p.replicaReads()
		return now > before, fmt.Sprint(now)
	})

	restarts := p.process("postgres-replica").Restarts
	p.kill9("postgres-replica")
	eventually(t, startWithin, "the replica is back", func() (bool, string) {
		read("while the replica is away")
		ps := p.process("postgres-replica")
		return ps.Restarts > restarts && ps.State == standalone.Ready, ps.State + " " + ps.Failure
	})
	p.replicaUsed()
	before = p.replicaReads()
	eventually(t, startWithin, "the replica answers again", func() (bool, string) {
		read("after the replica came back")
		now := p.replicaReads()
		return now > before, fmt.Sprint(now)
	})
	p.mustSMS("smoke", "run", "--env", "production", "--wait") // writes and reads back, too
	if out := p.mustSMS("status"); !strings.Contains(out, "postgres-replica") {
		t.Errorf("sms status does not show the replica:\n%s", out)
	}
}

// replicaUsed waits until both student services read from the replica.
func (p *platform) replicaUsed() {
	p.t.Helper()
	eventually(p.t, startWithin, "reads go to the replica", func() (bool, string) {
		used := p.studentMetric("sms_database_replica_used")
		return used == 2, fmt.Sprint(used)
	})
}

func (p *platform) replicaReads() float64 {
	return p.studentMetric(`sms_database_reads_total{reason="fresh",target="replica"}`)
}

// studentMetric is the sum of a metric over the student services.
func (p *platform) studentMetric(name string) (sum float64) {
	p.t.Helper()
	p.refresh()
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.+)$`)
	for _, ps := range p.status.Processes {
		if !strings.HasPrefix(ps.Name, "production/student-service") {
			continue
		}
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/actuator/prometheus", ps.Port))
		if err != nil {
			p.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			p.t.Fatal(err)
		}
		if found := line.FindSubmatch(body); found != nil {
			value, _ := strconv.ParseFloat(string(found[1]), 64)
			sum += value
		}
	}
	return sum
}
