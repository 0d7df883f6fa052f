// Package plain answers plain requests before net/http sees them: a GET without a body, in one piece, on a connection that is kept.
// net/http's server keeps a goroutine at each waiting caller, and copies and times every request; a gateway before fast services
// spends more on that than on its own work.
//
// What is plain is a strict part of HTTP/1.1 (see parse), in which there is nothing that two readers could read in two ways.
// With the first request that is anything else, the connection goes to net/http for good, with every byte that was read of it. So
// what is refused, and how, is decided there and nowhere else. docs/decisions/0018 says why, and what it is worth.
package plain

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Front needs. All fields but ConnState are required.
type Config struct {
	// Server is who gets the connections that have asked for anything else, and whose Handler answers plain requests too.
	Server *http.Server
	// Watch is how often waiting callers are looked at: how late it may be noticed that one has gone, or was idle for too long.
	Watch time.Duration
	// ConnState is told StateNew and StateClosed of every connection, but StateNew not again when it goes to net/http.
	ConnState func(net.Conn, http.ConnState)
	Log       *slog.Logger
}

// Front stands before a http.Server, whose timeouts for headers and idle connections are its own too. It accepts by Serve, and is
// itself the listener by which the server gets what is not plain, as a *Passed: the server serves the front, and nothing else.
type Front struct {
	cfg    Config
	passed chan net.Conn
	closed chan struct{} // the server takes no more connections
	once   sync.Once

	mu        sync.Mutex
	listeners []net.Listener
	conns     map[*conn]struct{}
	watched   bool
	closing   atomic.Bool // written under mu
	running   sync.WaitGroup
}

// NewFront makes a front.
func NewFront(cfg Config) *Front {
	return &Front{cfg: cfg, passed: make(chan net.Conn), closed: make(chan struct{}), conns: map[*conn]struct{}{}}
}

// acceptAgain is the pause after a connection could not be accepted because something is short, files for example.
const acceptAgain = 20 * time.Millisecond

// Serve accepts connections of l until that is closed, by Shutdown for example, and returns why it ended.
func (f *Front) Serve(l net.Listener) error {
	f.mu.Lock()
	f.listeners = append(f.listeners, l)
	f.mu.Unlock()
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			f.serve(raw)
		case lacks(err):
			f.cfg.Log.Warn("a connection cannot be accepted", "error", err.Error())
			select {
			case <-time.After(acceptAgain):
			case <-f.closed:
				return err
			}
		default:
			return err
		}
	}
}

// Accept implements net.Listener for the server.
func (f *Front) Accept() (net.Conn, error) {
	select {
	case c := <-f.passed:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: the server takes no more connections.
func (f *Front) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener. A front has none of its own.
func (f *Front) Addr() net.Addr { return &net.TCPAddr{} }

// pass hands a connection to the server; false when that takes none any more.
func (f *Front) pass(c net.Conn) bool {
	select {
	case f.passed <- c:
		return true
	case <-f.closed:
		return false
	}
}

// Passed is a connection on which something was read before it came to net/http.
type Passed struct {
	net.Conn
	read []byte
}

func (p *Passed) Read(b []byte) (int, error) {
	if len(p.read) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.read)
	p.read = p.read[n:]
	return n, nil
}

// CloseWrite is what net/http asks for, so that a caller still gets the end of an answer to a body that was not read.
func (p *Passed) CloseWrite() error {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Shutdown closes the listeners and idle connections, and waits for the plain requests that run. When ctx ends first it closes
// their connections too, and returns its error. The server is shut down after it.
func (f *Front) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	f.closing.Store(true)
	for _, l := range f.listeners {
		l.Close()
	}
	for c := range f.conns {
		c.closeIdle()
	}
	f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		f.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.conns {
			c.Close()
		}
		return ctx.Err()
	}
}

func (f *Front) serve(raw net.Conn) {
	f.tell(raw, http.StateNew)
	c := newConn(raw, f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing.Load() {
		raw.Close()
		f.tell(raw, http.StateClosed)
		return
	}
	f.conns[c] = struct{}{}
	if !f.watched {
		f.watched = true
		go f.watch()
	}
	f.running.Go(c.serve)
}

func (f *Front) tell(c net.Conn, state http.ConnState) {
	if f.cfg.ConnState != nil {
		f.cfg.ConnState(c, state)
	}
}

func (f *Front) forget(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// watch looks at the connections from time to time, for as long as there are any. So no request has to move a deadline or to keep
// a goroutine that would notice that its caller has gone.
func (f *Front) watch() {
	tick := time.NewTicker(f.cfg.Watch)
	defer tick.Stop()
	for now := range tick.C {
		f.mu.Lock()
		for c := range f.conns {
			c.look(now)
		}
		if f.watched = len(f.conns) > 0; !f.watched {
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
}
