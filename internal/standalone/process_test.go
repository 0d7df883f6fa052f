package standalone

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
)

// shell makes a process of a shell script; it is ready when the file ready exists.
func shell(t *testing.T, script string, stopTimeout time.Duration) (p *process, ready string) {
	t.Helper()
	dir := t.TempDir()
	ready = filepath.Join(dir, "ready")
	return newProcess(spec{
		name: "script", stopSignal: syscall.SIGTERM, stopTimeout: stopTimeout, logFile: filepath.Join(dir, "logs", "script.log"),
		command: func() (*exec.Cmd, func(), error) {
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Env = []string{"READY=" + ready}
			return cmd, func() {}, nil
		},
		probe: func(context.Context) error {
			if _, err := os.Stat(ready); err != nil {
				return errors.New("not there yet")
			}
			return nil
		},
	}), ready
}

func await(t *testing.T, p *process, what string, reached func(ProcessStatus) bool) ProcessStatus {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if s := p.snapshot(); reached(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: not reached, now %+v", what, p.snapshot())
		}
	}
}

func TestProcessThatDiesIsRestartedAndSaysWhy(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `echo '{"message":"cannot serve","error.message":"no such table"}' >&2; exit 3`, time.Second)
	p.start()
	s := await(t, p, "two restarts", func(s ProcessStatus) bool { return s.Restarts >= 2 && s.Failure != "" })
	if want := "ended with status 3: cannot serve: no such table"; s.Failure != want {
		t.Errorf("failure %q, want %q", s.Failure, want)
	}
	p.askToStop()
	<-p.done
}

func TestProcessKilledComesBack(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `touch "$READY"; exec tail -f /dev/null`, time.Second)
	p.start()
	first := await(t, p, "ready", func(s ProcessStatus) bool { return s.State == Ready })
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := await(t, p, "ready again", func(s ProcessStatus) bool { return s.State == Ready && s.PID != first.PID })
	if second.Restarts != 1 || second.Failure != "" || !strings.Contains(second.Ended, "killed") {
		t.Errorf("%d restarts, want 1; failure %q, ended %q", second.Restarts, second.Failure, second.Ended)
	}
	p.askToStop()
	<-p.done
	if err := syscall.Kill(second.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("still there after the stop: %v", err)
	}
}

// A child that says that it stops is succeeded at once. It may wait until its successor is ready, and its end is no failure.
func TestProcessThatSaysItStopsIsSucceeded(t *testing.T) {
	t.Parallel()
	p, ready := shell(t, `trap 'exit 0' TERM; tail -f /dev/null & wait`, time.Minute)
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	old := await(t, p, "ready", func(s ProcessStatus) bool { return s.State == Ready })
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	waiting, barrier, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if p.heard(child.Notice{PID: old.PID + 1, Stopping: true}) {
		t.Error("took another's word for its own")
	}
	if !p.heard(child.Notice{PID: old.PID, Stopping: true}) || !p.heard(child.Notice{PID: old.PID, Barrier: barrier}) {
		t.Fatal("does not know its own child")
	}
	now := await(t, p, "the successor", func(s ProcessStatus) bool { return s.PID != old.PID && s.State == Starting })
	if !slices.Equal(now.Draining, []int{old.PID}) {
		t.Errorf("draining %v, want %d", now.Draining, old.PID)
	}
	p.mu.Lock()
	for l := range p.former {
		if l.barrier.Barrier == nil {
			t.Error("the old one goes before the new one is ready")
		}
	}
	p.mu.Unlock()
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, p, "the successor is ready", func(s ProcessStatus) bool { return s.State == Ready })
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the old one is not let go: %v", err)
	}
	if err := syscall.Kill(old.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	now = await(t, p, "the old one is gone", func(s ProcessStatus) bool { return len(s.Draining) == 0 })
	if now.Restarts != 0 || now.Failure != "" {
		t.Errorf("a good end counts: %+v", now)
	}
	p.heard(child.Notice{PID: now.PID, Stopping: true})
	await(t, p, "the third", func(s ProcessStatus) bool { return s.State == Ready && s.PID != now.PID })
	if err := syscall.Kill(now.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, p, "a bad end counts", func(s ProcessStatus) bool { return s.Restarts == 1 && len(s.Draining) == 0 })
	p.askToStop()
	<-p.done
}

// Who was never ready is not succeeded at once, or a child that cannot serve would be started without a pause.
func TestProcessThatWasNeverReadyIsNotSucceeded(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `exec tail -f /dev/null`, time.Minute)
	p.start()
	s := await(t, p, "a child", func(s ProcessStatus) bool { return s.PID != 0 })
	waiting, barrier, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if !p.heard(child.Notice{PID: s.PID, Stopping: true, Barrier: barrier}) {
		t.Error("does not know its own child")
	}
	if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it waits for a successor that does not come: %v", err)
	}
	if now := p.snapshot(); now.PID != s.PID || len(now.Draining) != 0 {
		t.Errorf("now %+v", now)
	}
	p.askToStop()
	<-p.done
}

// At the end of all, those that still drain are hurried too.
func TestProcessHurriesAllItsLives(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `trap '' TERM; trap 'exit 0' INT; touch "$READY"; tail -f /dev/null & wait`, time.Minute)
	p.hurrySignal = syscall.SIGINT
	p.start()
	old := await(t, p, "ready", func(s ProcessStatus) bool { return s.State == Ready })
	p.heard(child.Notice{PID: old.PID, Stopping: true})
	await(t, p, "the successor", func(s ProcessStatus) bool { return s.State == Ready && s.PID != old.PID })
	p.askToHurry()
	<-p.done
	if s := p.snapshot(); s.State != Stopped || len(s.Draining) != 0 {
		t.Errorf("in the end: %+v", s)
	}
}

func TestProcessThatIgnoresTheStopIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `trap '' TERM; tail -f /dev/null & echo $! > "$READY"; wait; tail -f /dev/null`, 300*time.Millisecond)
	p.start()
	await(t, p, "ready", func(s ProcessStatus) bool { return s.State == Ready })
	p.askToStop()
	<-p.done
	if s := p.snapshot(); s.State != Stopped || s.PID != 0 {
		t.Errorf("after the stop: %+v", s)
	}
}

func TestWaitReadyNamesTheFailureAndTheLog(t *testing.T) {
	t.Parallel()
	p, _ := shell(t, `echo "port 8080 is taken" >&2; exit 1`, time.Second)
	p.start()
	await(t, p, "a restart", func(s ProcessStatus) bool { return s.Ended != "" && s.Failure == s.Ended })
	ctx, cancel := context.WithCancel(context.Background())
	var said []string
	err := p.waitReady(ctx, func(why string) {
		said = append(said, why)
		cancel()
	})
	if len(said) != 1 || !strings.Contains(said[0], "port 8080 is taken") {
		t.Errorf("meanwhile it was said: %q", said)
	}
	if err == nil || !strings.Contains(err.Error(), "port 8080 is taken") || !strings.Contains(err.Error(), "script.log") {
		t.Errorf("got %v", err)
	}
	p.askToStop()
	<-p.done
}

func TestLeftoversOfAKilledStartEnd(t *testing.T) {
	t.Parallel()
	l := Layout{Root: t.TempDir()}
	cmd := exec.Command("/bin/sh", "-c", "exec tail -f /dev/null")
	cmd.Env = []string{"A=b", supervisedBy + "=" + l.Root}
	if err := child.Start(cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	other := Layout{Root: l.Root + "-other"}
	if found := other.leftovers(); len(found) > 0 {
		t.Fatalf("found %v of another data directory", found)
	}
	if err := l.endLeftovers(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestLastWordsBesideAFormerLife(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	const request = `{"log.level":"INFO","message":"request"}` + "\n"
	if err := os.WriteFile(path, []byte(request+"service: cannot start: no such table\n"+request), 0o600); err != nil {
		t.Fatal(err)
	}
	if words := lastWords(path, 0, true); words != "service: cannot start: no such table" {
		t.Errorf("beside a former life: %q", words)
	}
	if words := lastWords(path, 0, false); words != "request" {
		t.Errorf("alone: %q", words)
	}
}
