package operations

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
	"github.com/school-sms/sms/workflows/backup"
)

// get asks a process that listens.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(raw)
}

// metric is the value of a metric as Prometheus reads it; empty when it is not there.
func metric(t *testing.T, process, name string) string {
	t.Helper()
	_, body := get(t, process+"/actuator/prometheus")
	if found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body); found != nil {
		return found[1]
	}
	return ""
}

// An ops-service of its own process, whose Temporal is at no address and which has no worker, tells that student_db has no
// verified backup once it was due, stays ready, and recovers when there is one.
func TestTheWatchdogNeedsNeitherTemporalNorAWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := pgtest.New(t, migrations.Ops())
	_, public, err := identity.NewKeyPair()
	must(t, err)
	write(t, filepath.Join(dir, "public.pem"), string(public))
	write(t, filepath.Join(dir, "ops.password"), database.Password)
	port, err := pgtest.FreePort()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	log, err := os.Create(filepath.Join(dir, "service.log"))
	must(t, err)
	defer log.Close()
	cmd := exec.Command(self)
	cmd.Stderr = log
	cmd.Env = []string{asService + "=1", fmt.Sprintf("SERVER_ADDRESS=127.0.0.1:%d", port), "IDENTITY_PUBLIC_KEY_FILE=" + filepath.Join(dir, "public.pem"),
		"DATABASE_URL=" + database.URL, "DATABASE_PASSWORD_FILE=" + filepath.Join(dir, "ops.password"), "TEMPORAL_ADDRESS=127.0.0.1:1",
		"DISCOVERY_URL=http://127.0.0.1:1/eureka", "SERVER_DRAIN_DELAY=0s", "BACKUP_DATABASES=student_db=postgres://x@127.0.0.1:1/student_db",
		"BACKUP_PROMISE=12s", "BACKUP_WATCH_INTERVAL=1s"}
	must(t, child.Start(cmd, syscall.SIGKILL))
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	process := fmt.Sprintf("http://127.0.0.1:%d", port)
	const overdue = `sms_backup_overdue{database="student_db"}`

	until := func(value, words string) {
		t.Helper()
		var code int
		var health struct {
			Components map[string]struct {
				Status  string
				Details map[string]string
			}
		}
		eventually(t, func() bool {
			var body string
			code, body = get(t, process+"/actuator/health/readiness")
			_ = json.Unmarshal([]byte(body), &health)
			backups := health.Components["backups"]
			return metric(t, process, overdue) == value && strings.Contains(backups.Details["student_db"], words) &&
				backups.Status == map[string]string{"0": "UP", "1": "DOWN"}[value] // DOWN too while ops_db cannot be read
		}, func() string { return fmt.Sprintf("%s, %+v", metric(t, process, overdue), health) })
		if code != http.StatusOK {
			t.Errorf("readiness answers %d: %+v", code, health)
		}
	}
	until("0", "awaited: no verified backup is on record yet")
	until("1", "overdue: no verified backup is on record")

	pool, err := postgres.Open(t.Context(), database, "test")
	must(t, err)
	defer pool.Close()
	ended := time.Now().Add(4 * time.Second) // so that it stays in time for long enough to be seen: health waits 3 s for Temporal
	must(t, operation.NewStore(pool).Record(t.Context(), operation.Record{ID: "aaaaaaaaaa", Kind: operation.Backup, WorkflowID: "x", RunID: "x", Subject: "student_db",
		State: backup.StateVerified, StartedAt: ended.Add(-time.Second), EndedAt: &ended, Revision: 1}))
	until("0", "in-time")
	until("1", "promised are at most 12s")
	said, err := os.ReadFile(log.Name())
	must(t, err)
	if n := strings.Count(string(said), "backup overdue"); n != 2 || !strings.Contains(string(said), "backup in time again") {
		t.Errorf("said %d times that it is overdue:\n%s", n, said)
	}
}
