package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/test/processes"
)

// TestRolloutsAreJudgedByPrometheus has all rules asked of a Prometheus, which finds whom it reads in the platform's registry as
// docs/operations.md says. While there is none, nothing is moved; a release is no better for its death.
func TestRolloutsAreJudgedByPrometheus(t *testing.T) {
	t.Parallel()
	address := processes.FreeAddress(t)
	p := up(t, newDataDir(t), "PROMETHEUS_URL=http://"+address, "PROMETHEUS_FOR_ALL_RULES=true", "PROMETHEUS_MIN_WINDOW=2s")
	stable := p.instances("student-service")
	faulty, err := os.ReadFile(build(t, "faulty", "./faulty"))
	if err != nil {
		t.Fatal(err)
	}
	roll := func(service, release, soak string) []string {
		return []string{"rollout", "start", service + "=" + release, "--env", "production", "--unproven", "a test", "--weights", "100", "--soak", soak, "--sure-within", "5s"}
	}
	back := func(out string, code int, why ...string) {
		t.Helper()
		for _, part := range append(why, "rolled-back") {
			if code != 1 || !strings.Contains(out, part) {
				t.Errorf("exit %d, want 1 with %q\n%s", code, part, out)
			}
		}
	}

	out, code := p.sms(append(roll("student-service", releaseOf(t, "student-service", "early"), "1s"), "--wait")...)
	back(out, code, "Prometheus", "connection refused")

	p.refresh()
	server := processes.Prometheus(t, address, fmt.Sprintf(`
- job_name: sms
  metrics_path: /actuator/prometheus
  eureka_sd_configs:
  - {server: "http://127.0.0.1:%d/eureka", refresh_interval: 250ms}
`, p.status.Ports["eureka-server"]))
	out, code = p.sms(append(roll("student-service", writeRelease(t, "student-service", string(faulty)+"\nerrors"), "30s"), "--wait")...)
	back(out, code, "error rate")
	if now := p.instances("student-service"); !slices.Equal(now, stable) {
		t.Errorf("%v run, want %v", now, stable)
	}
	p.mustSMS(append(roll("api-gateway", releaseOf(t, "api-gateway", "good"), "2s"), "--wait")...)

	id := p.begin(roll("student-service", releaseOf(t, "student-service", "alone"), "2s")...)
	eventually(t, operationWithin, "its first share", func() (bool, string) {
		out := p.mustSMS("rollout", "list")
		return strings.Contains(out, "running at 100 %"), out
	})
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	out, code = p.sms("rollout", "watch", id)
	back(out, code, "could not be said within 5s", "Prometheus")
}
