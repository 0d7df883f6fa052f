package plain

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// state waits for the next that the front tells.
func (p *pair) state(t *testing.T, want http.ConnState) {
	t.Helper()
	select {
	case got := <-p.states:
		if got != want {
			t.Errorf("state %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no state, want %s", want)
	}
}

func TestPlainRequestsDoNotReachNetHTTP(t *testing.T) {
	t.Parallel()
	accepted := make(chan http.ConnState, 100)
	p := start(t, echo, func(s *http.Server) { s.ConnState = func(c net.Conn, state http.ConnState) { accepted <- state } })
	c := dial(t, p.fronted)
	for range 3 {
		if said := c.send(get).said(); !strings.HasPrefix(said, "HTTP/1.1 200 OK") {
			t.Error(said)
		}
	}
	p.state(t, http.StateNew)
	if len(accepted) > 0 {
		t.Error("net/http has the connection")
	}
	if said := c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").said(); !strings.Contains(said, `\"hi\" 2`) {
		t.Error(said)
	}
	if len(accepted) == 0 {
		t.Error("net/http has not got the connection")
	}
	c.Close()
	if len(p.states) > 0 {
		t.Error("the front tells of a connection that is not its own any more")
	}
}

func TestHandlerHearsThatItsCallerHasGone(t *testing.T) {
	t.Parallel()
	running, heard := make(chan struct{}), make(chan struct{})
	p := start(t, func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done()
		close(heard)
	}, nil)
	c := dial(t, p.fronted).send(get)
	<-running
	c.Close()
	select {
	case <-heard:
	case <-time.After(20 * time.Second):
		t.Error("it was not told")
	}
}

func TestWhoTakesTooLongIsCutOff(t *testing.T) {
	t.Parallel()
	for name, sends := range map[string]string{"nothing": "", "half a request": get[:20]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, echo, func(s *http.Server) { s.ReadHeaderTimeout = 20 * time.Millisecond })
			if n, err := dial(t, p.fronted).send(sends).Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%d bytes, %v, want the end", n, err)
			}
			p.state(t, http.StateNew)
			p.state(t, http.StateClosed)
		})
	}
	t.Run("a pause", func(t *testing.T) {
		t.Parallel()
		p := start(t, echo, func(s *http.Server) { s.IdleTimeout = 20 * time.Millisecond })
		c := dial(t, p.fronted).send(get)
		c.said()
		if said := c.said(); said != refused {
			t.Error(said)
		}
	})
}

func TestShutdownWaitsForWhatRuns(t *testing.T) {
	t.Parallel()
	running, finish := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(running)
			<-finish
		}
		_, _ = io.WriteString(w, "done")
	}, nil)
	idle, busy, posting := dial(t, p.fronted), dial(t, p.fronted), dial(t, p.fronted)
	idle.send(get).said()
	posting.send(get).said()
	busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-running
	if said := posting.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").said(); !strings.Contains(said, "done") {
		t.Error(said)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- p.front.Shutdown(context.Background()) }()
	if said := idle.said(); said != refused {
		t.Error(said)
	}
	// What net/http has got goes on until its own shutdown.
	if said := posting.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").said(); !strings.Contains(said, "done") {
		t.Error(said)
	}
	select {
	case err := <-stopped:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	close(finish)
	if said := busy.said(); !strings.Contains(said, `close true`) || !strings.Contains(said, "done") {
		t.Error(said)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A door that has been left does not keep the connections that came by it from asking for anything.
func TestAClosedListenerLosesNoRequest(t *testing.T) {
	t.Parallel()
	p := start(t, echo, nil)
	c := dial(t, p.fronted)
	c.send(get).said()
	if err := p.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if said := c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").said(); !strings.HasPrefix(said, "HTTP/1.1 200") {
		t.Error(said)
	}
}

func TestShutdownEndsInTime(t *testing.T) {
	t.Parallel()
	running := make(chan struct{})
	p := start(t, func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done()
	}, nil)
	c := dial(t, p.fronted).send(get)
	<-running
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.front.Shutdown(ctx); err != context.Canceled {
		t.Errorf("%v, want that the time is over", err)
	}
	if said := c.said(); said != refused {
		t.Error(said)
	}
}

// net/http answers these before they are whole.
func TestWhatNeverBecomesPlainIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := start(t, echo, nil)
	for _, begun := range []string{"GET /a\r\n", "GET /a HTTP/1.1\nHost: a\n\n", "GET /a HTTP/1.1\r\n folded: a\r\n", "G\tT /a HTTP/1.1\r\n"} {
		c := dial(t, p.fronted)
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.send(begun).in.Peek(1); err != nil {
			t.Errorf("%q: %v", begun, err)
		}
	}
}
