package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/workflows/rollout"
)

// life is one life of an instance: another process is another life.
type life struct {
	Name, Release string
	PID           int
}

// instances are the production instances of a service.
func (p *platform) instances(service string) []life {
	p.refresh()
	var all []life
	for _, ps := range p.status.Processes {
		if strings.HasPrefix(ps.Name, "production/"+service+"-") {
			all = append(all, life{ps.Name, ps.Release, ps.PID})
		}
	}
	return all
}

// TestBadReleases starts rollouts of releases that are bad in different ways while requests run. Each is rolled back with its cause
// named; until then at most 5 % of the requests fail, afterwards none; the stable instances are never touched.
func TestBadReleases(t *testing.T) {
	t.Parallel()
	p := up(t, newDataDir(t))
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000002")).into(t, &made)
	stable := p.instances("student-service")
	program := filepath.Join(p.dataDir, "releases", "student-service", strings.TrimPrefix(stable[0].Release, "sha256:"), "student-service")
	faulty, err := os.ReadFile(build(t, "faulty", "./faulty"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(fault string) string { return string(faulty) + "\n" + fault }

	for _, bad := range []struct{ name, content, reason string }{
		{"exits 0", "#!/bin/sh\nexit 0\n", "does not stay up: ended with status 0"},
		{"wrong port", "#!/bin/sh\nunset SERVER_LISTEN_FD SERVER_SHARED_FD\nSERVER_ADDRESS=127.0.0.1:0 exec " + program + "\n", "not ready in time"},
		{"half of its answers are errors", with("errors"), "error rate"},
		{"slow", with("slow"), "p95 latency"},
		{"leaks", with("leak"), "memory"},
		{"crashes later", with("crash"), "ended with status 4"},
	} {
		p.run(t, bad.name, func(t *testing.T, p *platform) {
			l := startLoad(p, "/api/v1/students/"+made.StudentID)
			out, code := p.sms("rollout", "start", "student-service="+writeRelease(t, "student-service", bad.content), "--env", "production", "--unproven", "a test",
				"--soak", "10s", "--ready-within", "10s", "--wait")
			if code != 1 || !strings.Contains(out, bad.reason) || !strings.Contains(out, "rolled-back") {
				t.Errorf("exit %d, want 1 with %q\n%s", code, bad.reason, out)
			}
			l.endWithin(t, 0.05)
			after := startLoad(p, "/api/v1/students/"+made.StudentID)
			if now := p.instances("student-service"); !slices.Equal(now, stable) {
				t.Errorf("%v run, want %v", now, stable)
			}
			p.mustSMS("smoke", "run", "--env", "production", "--wait")
			after.endWithin(t, 0)
		})
	}

	p.run(t, "a good one, and back by a rollback", func(t *testing.T, p *platform) {
		l := startLoad(p, "/api/v1/students/"+made.StudentID)
		p.mustSMS("rollout", "start", "student-service="+releaseOf(t, "student-service", "next"), "--env", "production", "--unproven", "a test", "--weights", "100", "--soak", "1s", "--wait")
		if p.releases("student-service")[0] == stable[0].Release {
			t.Fatal("the release is not another")
		}
		if out := p.mustSMS("rollout", "rollback", "student-service", "--wait"); !strings.Contains(out, "succeeded") {
			t.Errorf("rollback:\n%s", out)
		}
		if now := p.releases("student-service"); !slices.Equal(now, []string{stable[0].Release}) {
			t.Errorf("%v runs after the rollback", now)
		}
		if out, code := p.sms("rollout", "rollback", "student-service", "--wait"); code != 1 || !strings.Contains(out, "no earlier release is known to be good") {
			t.Errorf("a rollback to nothing: exit %d\n%s", code, out)
		}
		l.endWithin(t, 0)
	})

	p.run(t, "decided by people, then terminated", func(t *testing.T, p *platform) {
		l := startLoad(p, "/api/v1/students/"+made.StudentID)
		stable := p.instances("student-service")
		id := p.begin("rollout", "start", "student-service="+releaseOf(t, "student-service", "held"), "--env", "production", "--unproven", "a test", "--soak", "10m")
		at := func(weight string) {
			eventually(t, operationWithin, weight, func() (bool, string) {
				out := p.mustSMS("rollout", "list")
				return strings.Contains(out, "running at "+weight), out
			})
		}
		at("10 %")
		p.mustSMS("rollout", "pause", id, "--reason", "the office calls")
		if out, code := p.sms("rollout", "pause", id, "--reason", "again"); code != 1 || !strings.Contains(out, "it is paused already") {
			t.Errorf("a second pause: exit %d\n%s", code, out)
		}
		if out := p.mustSMS("rollout", "show", id); !strings.Contains(out, "Paused by admin: the office calls") {
			t.Errorf("a paused rollout:\n%s", out)
		}
		p.mustSMS("rollout", "resume", id, "--reason", "false alarm")
		p.mustSMS("rollout", "skip-step", id, "--reason", "enough seen")
		at("50 %")

		c := p.temporal()
		if err := c.TerminateWorkflow(t.Context(), "rollout/production/student-service", "", "a test"); err != nil {
			t.Fatal(err)
		}
		if err := c.ScheduleClient().GetHandle(t.Context(), rollout.JanitorID).Trigger(t.Context(), client.ScheduleTriggerOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, operationWithin, "the stable instances alone", func() (bool, string) {
			now, out := p.instances("student-service"), p.mustSMS("rollout", "list")
			return slices.Equal(now, stable) && !strings.Contains(out, "running"), out
		})
		if out := p.mustSMS("rollout", "show", id); !strings.Contains(out, "terminated or lost") {
			t.Errorf("the terminated rollout:\n%s", out)
		}
		if out := p.mustSMS("rollout", "list", "-o", "json"); strings.Count(out, "had left is gone") != 1 || !strings.Contains(out, rollout.JanitorID) {
			t.Errorf("the janitor's rollout:\n%s", out)
		}
		l.endWithin(t, 0)
	})
	for _, fault := range []string{"errors", "crash"} {
		p.run(t, "rolled forward from a stable release that "+fault, func(t *testing.T, p *platform) {
			broken := filepath.Join(p.dataDir, fault)
			roll := []string{"rollout", "start", "--env", "production", "--unproven", "a test", "--weights", "50,100", "--soak", "1s", "--wait"}
			p.mustSMS(append(roll, "student-service="+writeRelease(t, "student-service", with(fault+" "+broken)))...)
			if err := os.WriteFile(broken, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, operationWithin, "that it shows", func() (bool, string) {
				a := p.call(http.MethodGet, "/api/v1/students/"+made.StudentID, nil)
				return a.Status >= http.StatusInternalServerError, fmt.Sprint(a.Status)
			})
			p.mustSMS(append(roll, "student-service="+releaseOf(t, "student-service", "good after "+fault))...)
			l := startLoad(p, "/api/v1/students/"+made.StudentID)
			p.mustSMS("smoke", "run", "--env", "production", "--wait")
			l.endWithin(t, 0)
		})
	}
	p.recordRollouts("")
	p.recordLongest("Janitor")
}
