package child

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sayVariable makes the test's own program a child that stops.
const sayVariable = "TEST_CHILD_SAYS"

func TestMain(m *testing.M) {
	if os.Getenv(sayVariable) == "" {
		os.Exit(m.Run())
	}
	if err := Notify(ReadyNotice); err != nil {
		os.Exit(3)
	}
	if err := Notify(StoppingNotice); err != nil {
		os.Exit(4)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Barrier(ctx); err != nil {
		os.Exit(5)
	}
}

// A child is told apart by its pid as the kernel knows it, and goes on when its barrier is released, not before.
func TestNotices(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "say.sock")
	notices, err := ListenNotices(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{sayVariable + "=1", NotifySocket + "=" + path}
	if err := Start(cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var stopping, held int
	for held == 0 {
		notice, err := notices.Next()
		if err != nil {
			t.Fatal(err)
		}
		if notice.PID != cmd.Process.Pid {
			t.Errorf("a notice of %d, the child is %d", notice.PID, cmd.Process.Pid)
		}
		if notice.Stopping {
			stopping++
		}
		if notice.Barrier != nil {
			held++
			select {
			case err := <-ended:
				t.Errorf("the child did not wait: %v", err)
			default:
			}
			notice.Release()
		}
	}
	if err := <-ended; err != nil || stopping != 1 {
		t.Errorf("the child ended with %v and said %d times that it stops", err, stopping)
	}
	if err := notices.Close(); err != nil {
		t.Error(err)
	}
	if _, err := notices.Next(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// These set the environment, so they do not run in parallel.

func TestBarrierWithoutSupervisorAndWithOneThatIsSlow(t *testing.T) {
	t.Setenv(NotifySocket, "")
	if err := errors.Join(Notify(StoppingNotice), Barrier(t.Context())); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "say.sock")
	notices, err := ListenNotices(path)
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	t.Setenv(NotifySocket, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a supervisor that does not answer: %v", err)
	}
	t.Setenv(NotifySocket, filepath.Join(t.TempDir(), "nobody"))
	if err := Barrier(t.Context()); err == nil {
		t.Error("nobody listens, and nothing is said about it")
	}
}
