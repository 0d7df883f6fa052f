package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// restartsVariable asks TestRestartsLoseNothing for more rounds and kills than one; `make soak` does.
const restartsVariable = "SMS_E2E_RESTARTS"

const (
	// killShare is how many of the requests after a kill are looked at, and the most of them in a thousand that may fail.
	requestsEachKill = 1000
	failedOfThousand = 1
	drainWithin      = 2 * time.Minute
)

// TestRestartsLoseNothing restarts every service, the gateways and the registry one after the other, with the command of operators,
// which sends SIGTERM, under the traffic of a school's day: no request fails. Then it kills one of two student services: at most
// one idempotent request in a thousand fails.
func TestRestartsLoseNothing(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv(restartsVariable)); err == nil {
		rounds = n
	}
	dir := newDataDir(t)
	writeSettings(t, dir, "configuration-service", "CONFIGURATION_WATCH_WAIT=5s")
	p := up(t, dir, "--no-staging")
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000004")).into(t, &made)
	l := startTraffic(p, schoolDay("/api/v1/students/"+made.StudentID))
	defer l.end()

	p.run(t, "SIGTERM", func(t *testing.T, p *platform) {
		for round := range rounds {
			p.restartAll(t, l, round+1)
		}
	})
	p.run(t, "settings", func(t *testing.T, p *platform) { p.changeSettings(t, l) })
	p.run(t, "SIGKILL", func(t *testing.T, p *platform) {
		for kill := range rounds {
			p.killStudentService(t, l, kill)
		}
	})
}

// restartAll is one rolling restart. It ends when the last of the old processes has.
func (p *platform) restartAll(t *testing.T, l *traffic, round int) {
	t.Helper()
	before := p.pids()
	began := time.Now()
	out := p.mustSMS("restart")
	took := time.Since(began)
	eventually(t, drainWithin, "the old processes end", func() (bool, string) {
		p.refresh()
		left := 0
		for _, ps := range p.status.Processes {
			left += len(ps.Draining)
		}
		return left == 0, fmt.Sprintf("%d drain", left)
	})
	table, all, _, failures := l.reset()
	t.Logf("round %d: %d processes restarted in %.1f s, the old ones gone after %.1f s\n%s", round, strings.Count(out, " restarted in "),
		took.Seconds(), time.Since(began).Seconds(), table)
	for _, ps := range p.status.Processes {
		if old := before[ps.Name]; ps.PID == old && ps.Name != "postgres" && ps.Name != "temporal-server" {
			t.Errorf("%s was not restarted", ps.Name)
		}
		if ps.Restarts > 0 {
			t.Errorf("%s counts %d failures: %s", ps.Name, ps.Restarts, ps.Failure)
		}
	}
	if all.failed > 0 || all.sent == 0 {
		t.Errorf("round %d: %d of %d requests failed:\n%s", round, all.failed, all.sent, strings.Join(failures, "\n"))
	}
}

// changeSettings brings a setting into force, and then one that no process can start with: of the two student services the first does
// not come back until it is mended, the second stays as it is, and no request fails.
func (p *platform) changeSettings(t *testing.T, l *traffic) {
	l.reset()
	write := func(line string) { writeSettings(t, p.dataDir, "student-service", line) }
	write("SERVER_IDLE_TIMEOUT=90s")
	p.mustSMS("restart", "student-service")
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.process("production/student-service-2").PID))
	if err != nil || !strings.Contains(string(environ), "\x00SERVER_IDLE_TIMEOUT=90s\x00") && !strings.HasPrefix(string(environ), "SERVER_IDLE_TIMEOUT=90s\x00") {
		t.Errorf("the setting is not in force: %v", err)
	}
	before := p.pids()
	write("SERVER_IDLE_TIMEOUT=soon")
	if out, code := p.sms("restart", "student-service"); code != 1 || !strings.Contains(out, "SERVER_IDLE_TIMEOUT: want a time.Duration") {
		t.Errorf("a setting that is no duration: exit %d\n%s", code, out)
	}
	for name, pid := range p.pids() {
		if name == "production/student-service-2" && pid != before[name] {
			t.Errorf("%s was restarted all the same", name)
		}
	}
	write("")
	p.healthy()
	if table, all, _, failures := l.reset(); all.failed > 0 || all.sent == 0 {
		t.Errorf("%d of %d requests failed:\n%s\n%s", all.failed, all.sent, strings.Join(failures, "\n"), table)
	}
}

func writeSettings(t *testing.T, dataDir, service, line string) {
	t.Helper()
	dir := filepath.Join(dataDir, "settings")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, service+".env"), []byte("# of this school\n"+line+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// killStudentService kills one of the two, the other one the next time, and looks at the thousand requests from then on.
func (p *platform) killStudentService(t *testing.T, l *traffic, kill int) {
	t.Helper()
	l.reset()
	victim := fmt.Sprintf("production/student-service-%d", kill%2+1)
	p.kill9(victim)
	eventually(t, drainWithin, "a thousand requests", func() (bool, string) {
		n := l.sent()
		return n >= requestsEachKill, fmt.Sprint(n)
	})
	p.healthy()
	table, all, idempotent, failures := l.reset()
	t.Logf("kill %d, of %s: %d of %d idempotent requests failed, %d of %d others\n%s\n%s", kill+1, victim, idempotent.failed, idempotent.sent,
		all.failed-idempotent.failed, all.sent-idempotent.sent, strings.Join(failures, "\n"), table)
	if idempotent.failed*1000 > idempotent.sent*failedOfThousand {
		t.Errorf("%d of %d idempotent requests failed", idempotent.failed, idempotent.sent)
	}
}

func (p *platform) pids() map[string]int {
	p.t.Helper()
	p.refresh()
	pids := map[string]int{}
	for _, ps := range p.status.Processes {
		pids[ps.Name] = ps.PID
	}
	return pids
}
