package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
)

// operationWithin is how long an operation may take to end once everything is back.
const operationWithin = 5 * time.Minute

type operationRecord struct {
	ID, State, Summary string
	WorkflowID, RunID  string
	EndedAt            *time.Time
	Outcome            struct{ From, To string }
}

// roundsVariable asks TestKilledProcesses for more rounds; each kills a little later in the operations than the one before,
// and every second one rolls out a release that dies after some seconds, so that a rollback is under way.
const (
	roundsVariable = "SMS_E2E_ROUNDS"
	laterEachRound = 1300 * time.Millisecond
)

// TestKilledProcesses kills each process of the platform while a backup and a rollout run: the platform comes back by
// itself, and both operations end truthfully.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		rounds = n
	}
	p := up(t, newDataDir(t))
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000002")).into(t, &made)
	for round := range rounds {
		for _, victim := range []string{"ops-worker", "ops-service", "temporal-server", "postgres", "eureka-server",
			"production/student-service", "production/api-gateway", "production/configuration-service"} {
			p.run(t, fmt.Sprintf("%s %d", victim, round), func(t *testing.T, p *platform) {
				release := releaseOf(t, "configuration-service", t.Name())
				if round%2 == 1 {
					release = p.diesLater(t, "configuration-service")
				}
				backup := p.begin("backup", "run", "student_db")
				rollout := p.begin("rollout", "start", "configuration-service="+release, "--env", "production", "--unproven", "a test", "--soak", "1s")
				<-time.After(time.Duration(round) * laterEachRound)
				before := p.standing("rollouts", rollout)
				p.kill9(victim)
				p.healthy()
				b, r := p.ended("backups", backup), p.ended("rollouts", rollout)
				t.Logf("killed %s during %q: backup %s, rollout %s", victim, before, b.State, r.State)
				p.backupTruthful(b)
				p.rolloutTruthful(r, "configuration-service")
				if round%2 == 1 && r.State == "succeeded" {
					t.Errorf("a release that dies was taken for good: %s", r.Summary)
				}
				if a := p.call(http.MethodGet, "/api/v1/students/"+made.StudentID, nil); a.Status != http.StatusOK {
					t.Errorf("the student is gone: %d %s", a.Status, a.Body)
				}
			})
		}
	}
}

// diesLater makes a release that works until it kills itself: during the first weights of its rollout.
func (p *platform) diesLater(t *testing.T, service string) string {
	digest := strings.TrimPrefix(p.releases(service)[0], "sha256:")
	return writeRelease(t, service, fmt.Sprintf("#!/bin/sh\n# %s\n(sleep 5; kill -9 $$) &\nexec %s\n", t.Name(),
		filepath.Join(p.dataDir, "releases", service, digest, service)))
}

// standing is where an operation stands, in its own words.
func (p *platform) standing(kind, id string) string {
	var r operationRecord
	_ = json.Unmarshal(p.call(http.MethodGet, "/api/v1/ops/"+kind+"/"+id, nil).Body, &r)
	return r.Summary
}

// begin starts an operation and returns its id.
func (p *platform) begin(args ...string) string {
	p.t.Helper()
	var r operationRecord
	out := p.mustSMS(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.ID == "" {
		p.t.Fatalf("sms %v: %v\n%s", args, err, out)
	}
	return r.ID
}

func (p *platform) kill9(name string) {
	p.t.Helper()
	if err := syscall.Kill(p.process(name).PID, syscall.SIGKILL); err != nil {
		p.t.Fatalf("kill %s: %v", name, err)
	}
}

// ended waits for the end of an operation.
func (p *platform) ended(kind, id string) operationRecord {
	p.t.Helper()
	var r operationRecord
	eventually(p.t, operationWithin, kind+"/"+id+" ends", func() (bool, string) {
		a, err := send(http.DefaultClient, http.MethodGet, p.status.URLs["gateway"]+"/api/v1/ops/"+kind+"/"+id, nil, "Authorization", "Bearer "+p.token())
		if err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &r) != nil {
			return false, fmt.Sprintf("%d %s %v", a.Status, a.Body, err)
		}
		return r.EndedAt != nil, r.State + ": " + r.Summary
	})
	return r
}

// backupTruthful checks that there is a complete backup exactly when the record says so, and nothing half done.
func (p *platform) backupTruthful(r operationRecord) {
	p.t.Helper()
	if r.State != "verified" && r.State != "failed" {
		p.t.Errorf("backup: %+v", r)
	}
	eventually(p.t, time.Minute, "no half done file is left", func() (bool, string) {
		half, _ := filepath.Glob(filepath.Join(p.dataDir, "backups", "*", "*tmp*"))
		return len(half) == 0, strings.Join(half, ", ")
	})
	archives, _ := filepath.Glob(filepath.Join(p.dataDir, "backups", "*", "*-"+r.ID+".dump.zst.age"))
	manifests, _ := filepath.Glob(filepath.Join(p.dataDir, "backups", "*", "*-"+r.ID+".manifest.json"))
	if len(archives) > 1 || len(archives) > len(manifests) || r.State == "verified" && len(archives) != 1 {
		p.t.Errorf("%s, with archives %v and manifests %v", r.State, archives, manifests)
	}
}

// rolloutTruthful checks that one release runs, the new one exactly when the record says so.
func (p *platform) rolloutTruthful(r operationRecord, service string) {
	p.t.Helper()
	running := p.releases(service)
	if len(running) != 1 {
		p.t.Fatalf("after %s these run: %v", r.State, running)
	}
	isNew := running[0] == r.Outcome.To
	if r.State == "succeeded" && !isNew || r.State == "rolled-back" && isNew || r.State != "succeeded" && r.State != "rolled-back" {
		p.t.Errorf("%s runs, and the record says %s: %s", running[0], r.State, r.Summary)
	}
}

// TestKilledSupervisor kills `sms up` itself while a rollout runs. The next start finds nothing in its way, loses no
// row, and the rollout ends.
func TestKilledSupervisor(t *testing.T) {
	t.Parallel()
	dir := newDataDir(t)
	p := up(t, dir)
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000003")).into(t, &made)
	rollout := p.begin("rollout", "start", "student-service="+releaseOf(t, "student-service", "x"), "--env", "production", "--unproven", "a test", "--soak", "2s")
	p.kill()

	p = up(t, dir)
	if a := p.call(http.MethodGet, "/api/v1/students/"+made.StudentID, nil); a.Status != http.StatusOK {
		t.Errorf("the student is gone: %d %s", a.Status, a.Body)
	}
	p.rolloutTruthful(p.ended("rollouts", rollout), "student-service")
	if out := p.mustSMS("down"); !strings.Contains(out, "stopped") {
		t.Errorf("sms down: %s", out)
	}
	<-p.over
	if left := running(dir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if out, code := p.sms("status"); code != 1 || !strings.Contains(out, "not running") {
		t.Errorf("status after down: exit %d\n%s", code, out)
	}
}

// TestRefusedStarts checks that what stands in the way of a start is named, and nothing is damaged.
func TestRefusedStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // the subtests run when this function has returned
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)

	t.Run("port taken", func(t *testing.T) {
		t.Parallel()
		refused(t, newDataDir(t), []string{"SMS_GATEWAY_PORT=" + port}, port, "SMS_GATEWAY_PORT")
	})
	t.Run("disk full", func(t *testing.T) {
		t.Parallel()
		dir := newDataDir(t)
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs", dir).CombinedOutput(); err != nil {
			// Not everybody may mount: a limit above any disk's size stands for a small disk.
			t.Logf("mount: %s", out)
			refused(t, dir, []string{"SMS_MIN_FREE_DISK=99999999999"}, "nearly full", "SMS_MIN_FREE_DISK")
			return
		}
		t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
		refused(t, dir, nil, "nearly full", dir)
	})
	t.Run("data directory is a file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(newDataDir(t), "file")
		if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, file, nil, file, "--data-dir")
		if content, _ := os.ReadFile(file); string(content) != "precious" {
			t.Error("the file was changed")
		}
	})
	t.Run("PostgreSQL of another version", func(t *testing.T) {
		t.Parallel()
		dir := newDataDir(t)
		version := filepath.Join(dir, "postgres", "PG_VERSION")
		if err := os.Mkdir(filepath.Dir(version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(version, []byte("9.6\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, nil, "PostgreSQL 9.6", "pg_upgrade", "nothing was changed")
	})
}

// refused checks that a start ends with exit code 1 and an error that has every one of the words.
func refused(t *testing.T, dataDir string, set []string, words ...string) {
	t.Helper()
	cmd := upCommand(t, dataDir, set...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := child.Start(cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tooLate := time.AfterFunc(startWithin, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	err := cmd.Wait()
	tooLate.Stop()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit %d (%v), want 1", cmd.ProcessState.ExitCode(), err)
	}
	for _, word := range words {
		if !strings.Contains(stderr.String(), word) {
			t.Errorf("the error does not say %q:\n%s", word, stderr.String())
		}
	}
	if left := running(dataDir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}
