package server

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
)

// behindDoor starts a server on a socket that the test holds too, as `sms up` does.
func behindDoor(t *testing.T, cfg Config) (s *Server, door net.Listener) {
	t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close() })
	file, err := door.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if cfg.SharedFD, err = syscall.Dup(int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	_, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address, cfg.MaxBodyBytes = "127.0.0.1:0", 1<<10
	s = New(cfg, Info{Service: "test"}, verifier, slog.New(slog.DiscardHandler))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, door
}

// client is one connection, used as its owner likes.
type client struct {
	net.Conn
	*bufio.Reader
}

func connect(t *testing.T, address string) client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return client{conn, bufio.NewReader(conn)}
}

// get asks on the connection whether the service is ready, and reports whether the answer says that the connection closes.
func (c client) get(t *testing.T, want int) (closes bool) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://test/actuator/health/readiness", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(c.Conn); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.Reader, req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != want {
		t.Errorf("status %d, want %d", res.StatusCode, want)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.Close
}

// A client that pauses longer than the drain lasts is not cut off: the server waits until it has told it.
func TestStopWaitsForIdleConnectionsOfTheSharedSocket(t *testing.T) {
	t.Parallel()
	s, door := behindDoor(t, Config{DrainIdle: time.Minute, ShutdownTimeout: time.Minute})
	address := door.Addr().String()
	pausing, other := connect(t, address), connect(t, address)
	pausing.get(t, http.StatusOK)
	other.get(t, http.StatusOK)
	draining, stopped := make(chan struct{}), make(chan error, 1)
	s.OnDrain(func(context.Context) { close(draining) })
	go func() { stopped <- s.Stop(context.Background()) }()
	<-draining
	if !other.get(t, http.StatusServiceUnavailable) {
		t.Error("the answer does not say that the connection closes")
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while a connection was open: %v", err)
	default:
	}
	if !pausing.get(t, http.StatusServiceUnavailable) {
		t.Error("the answer does not say that the connection closes")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	// The socket lives on: who comes now waits for the next process.
	late := connect(t, address)
	accepted, err := door.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if accepted.RemoteAddr().String() != late.LocalAddr().String() {
		t.Errorf("accepted %s, want %s", accepted.RemoteAddr(), late.LocalAddr())
	}
}

func TestStopWaitsForIdleConnectionsOnlySoLong(t *testing.T) {
	t.Parallel()
	hurry := make(chan struct{})
	close(hurry)
	for name, c := range map[string]struct {
		idle time.Duration
		ctx  context.Context
	}{
		"the configured time": {20 * time.Millisecond, context.Background()},
		"not when all ends":   {time.Hour, withHurry(context.Background(), hurry)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, door := behindDoor(t, Config{DrainIdle: c.idle, ShutdownTimeout: time.Minute})
			idle := connect(t, door.Addr().String())
			idle.get(t, http.StatusOK)
			if err := s.Stop(c.ctx); err != nil {
				t.Error(err)
			}
			if _, err := idle.ReadByte(); err == nil {
				t.Error("the connection is still open")
			}
		})
	}
}

// While its successor starts, a process that is told to stop goes on as if nothing were. It sets the environment, so it does not
// run in parallel.
func TestStopWaitsForTheSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "say.sock")
	notices, err := child.ListenNotices(path)
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	t.Setenv(child.NotifySocket, path)
	s, door := behindDoor(t, Config{HandoverTimeout: time.Minute, DrainIdle: time.Minute, ShutdownTimeout: time.Minute})
	caller := connect(t, door.Addr().String())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.Background()) }()
	said := false
	for {
		notice, err := notices.Next()
		if err != nil {
			t.Fatal(err)
		}
		said = said || notice.Stopping
		if notice.Barrier == nil {
			continue
		}
		if caller.get(t, http.StatusOK) {
			t.Error("it drains before there is a successor")
		}
		notice.Release()
		break
	}
	if !said {
		t.Error("it did not say that it stops")
	}
	caller.Close() // the one that it would wait for
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
