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
	"errors"
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

// Front stands before a http.Server. Its timeouts for headers and for idle connections are the server's.
type Front struct {
	cfg Config

	mu      sync.Mutex
	conns   map[*conn]struct{}
	watched bool
	closing atomic.Bool // written under mu
	running sync.WaitGroup
}

// NewFront makes a front; Listener puts it before a listener.
func NewFront(cfg Config) *Front { return &Front{cfg: cfg, conns: map[*conn]struct{}{}} }

// Listener answers plain requests on the connections of l. It yields the connections that are net/http's matter, as a *Passed.
func (f *Front) Listener(l net.Listener) net.Listener {
	front := &listener{Listener: l, front: f, passed: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{})}
	go front.accept()
	return front
}

type listener struct {
	net.Listener
	front  *Front
	passed chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
}

func (l *listener) accept() {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			if temporary, ok := errors.AsType[net.Error](err); ok && temporary.Timeout() {
				continue
			}
			if lacks(err) { // files, for example: some are free again in a moment
				l.front.cfg.Log.Warn("a connection cannot be accepted", "error", err.Error())
				select {
				case <-time.After(acceptAgain):
					continue
				case <-l.closed:
				}
			}
			l.failed <- err
			return
		}
		l.front.serve(raw, l)
	}
}

// acceptAgain is the pause after a connection could not be accepted because something is short.
const acceptAgain = 20 * time.Millisecond

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.passed:
		return c, nil
	case err := <-l.failed:
		l.failed <- err
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// pass hands a connection to net/http; false when that takes none any more.
func (l *listener) pass(c net.Conn) bool {
	select {
	case l.passed <- c:
		return true
	case <-l.closed:
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

// Shutdown closes idle connections and waits for the requests that run. When ctx ends first it closes them too, and returns its
// error. The listeners must have been closed before.
func (f *Front) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	f.closing.Store(true)
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

func (f *Front) serve(raw net.Conn, from *listener) {
	c := newConn(raw, f, from)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing.Load() {
		raw.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.tell(raw, http.StateNew)
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
