//go:build clocks

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWorkerClocksDoNotMatter does the same rollout with a worker whose clock is right, 10 minutes ahead and 10 minutes behind. It takes the
// same steps, and no soak is shorter or much longer. It compiles Go's library anew, which takes minutes: hence the build constraint.
func TestWorkerClocksDoNotMatter(t *testing.T) {
	t.Parallel()
	dir := newDataDir(t)
	worker := build(t, "ops-worker", "../../cmd/ops-worker", "-overlay", shiftedClock(t))
	p := up(t, dir, "--no-staging", "SMS_START_TIMEOUT="+startWithin.String(), "SMS_BIN_DIR="+programsWith(t, worker))
	const soak, scheduling = 2 * time.Second, 20 * time.Second
	var first []string
	for _, offset := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute} {
		p.run(t, offset.String(), func(t *testing.T, p *platform) {
			give(t, dir, fmt.Sprintf("TEST_CLOCK_OFFSET=%.0f", offset.Seconds()))
			p.mustSMS("restart", "ops-worker")
			p.healthy()
			p.clockIs(offset)
			// Within less than the clock is off, so that a deadline reckoned from Temporal's clock would have passed.
			id := p.begin("rollout", "start", rolled+"="+releaseOf(t, rolled, offset.String()), "--env", "production", "--unproven", "a test",
				"--soak", soak.String(), "--sure-within", "2m")
			end := p.ended("rollouts", id)
			if end.State != "succeeded" {
				t.Errorf("%s: %s", end.State, end.Summary)
			}
			var whole struct {
				Steps []struct {
					Name, State string
					StartedAt   time.Time
					EndedAt     time.Time
				}
			}
			p.call(http.MethodGet, "/api/v1/ops/rollouts/"+id, nil).into(t, &whole)
			var steps []string
			var words strings.Builder
			for _, s := range whole.Steps {
				took := s.EndedAt.Sub(s.StartedAt)
				fmt.Fprintf(&words, "%6.1f s  %s\n", took.Seconds(), s.Name)
				steps = append(steps, regexp.MustCompile(`[0-9a-f]{12}`).ReplaceAllString(s.Name, "…")+" "+s.State)
				if strings.HasPrefix(s.Name, "Give it") && (took < soak || took > soak+scheduling) {
					t.Errorf("%s: took %s", s.Name, took)
				}
			}
			if first == nil {
				first = steps
			}
			if !slices.Equal(first, steps) {
				t.Errorf("the steps are %v, want %v", steps, first)
			}
			t.Logf("%s\n%s", end.State, words.String())
		})
	}
}

// clockIs waits until the worker's clock is so far ahead: the one before it may answer for a while.
func (p *platform) clockIs(ahead time.Duration) {
	p.t.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d/actuator/health/liveness", p.process("ops-worker").Port)
	eventually(p.t, startWithin, "the worker's clock is "+ahead.String()+" ahead", func() (bool, string) {
		a, err := send(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, http.MethodGet, url, nil)
		if err != nil {
			return false, err.Error()
		}
		its, err := http.ParseTime(a.Header.Get("Date"))
		found := time.Until(its)
		return err == nil && (found-ahead).Abs() < time.Minute, fmt.Sprint(found, err)
	})
}

// shiftedClock is an overlay (go help build) by which TEST_CLOCK_OFFSET, in seconds, is added to what time.Now says is the time. What is
// measured with it, and timers, are as before.
func shiftedClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	content, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const read = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	shifted := strings.Replace(string(content), read, read+"\tsec += clockOffset\n", 1)
	shifted = strings.Replace(shifted, "import (\n", "import (\n\t\"syscall\"\n", 1) + `
var clockOffset = func() (offset int64) {
	text, _ := syscall.Getenv("TEST_CLOCK_OFFSET")
	sign := int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
		} else {
			offset = 10*offset + int64(c-'0')
		}
	}
	return sign * offset
}()
`
	dir := t.TempDir()
	replacement := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err == nil {
		err = os.WriteFile(replacement, []byte(shifted), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600)
	}
	if err != nil || !strings.Contains(shifted, "sec += clockOffset") {
		t.Fatalf("shift the clock in %s: %v", original, err)
	}
	return filepath.Join(dir, "overlay.json")
}
