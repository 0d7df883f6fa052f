package standalone

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
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
	if second.Restarts != 1 {
		t.Errorf("%d restarts, want 1", second.Restarts)
	}
	p.askToStop()
	<-p.done
	if err := syscall.Kill(second.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("still there after the stop: %v", err)
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
	await(t, p, "a restart", func(s ProcessStatus) bool { return s.Failure != "" })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.waitReady(ctx)
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
