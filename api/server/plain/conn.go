package plain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"
)

// maxHead is the longest head of a plain request, in bytes. Longer ones are net/http's matter.
const maxHead = 4 << 10

// What a connection does.
const (
	fresh   = iota // nothing has come yet
	idle           // between two requests
	reading        // a part of a head has come
	busy           // a request runs
	ended          // closed, or net/http's
)

// conn is one connection that has asked only for what is plain so far.
type conn struct {
	net.Conn
	front  *Front
	ctx    context.Context    // of every request on it
	end    context.CancelFunc // ends ctx
	hangUp *hangUp
	remote string
	in     []byte
	state  atomic.Int32
	since  atomic.Int64 // when the state began, ns since 1970
	answer answer
}

func newConn(raw net.Conn, f *Front) *conn {
	c := &conn{Conn: raw, front: f, remote: raw.RemoteAddr().String(), in: make([]byte, maxHead), hangUp: newHangUp()}
	c.answer.conn = c
	ctx := context.WithValue(context.Background(), http.ServerContextKey, f.cfg.Server)
	ctx = context.WithValue(ctx, hangUpKey{}, c.hangUp)
	c.ctx, c.end = context.WithCancel(context.WithValue(ctx, http.LocalAddrContextKey, raw.LocalAddr()))
	c.hangUp.ended = c.ctx.Done()
	c.since.Store(time.Now().UnixNano())
	return c
}

// gone tells who works for the caller that it has gone.
func (c *conn) gone() {
	c.end()
	c.hangUp.tell()
}

// become changes the state, unless the connection was ended meanwhile.
func (c *conn) become(from, to int32) bool {
	if from != idle || to != busy { // for one who asks in one piece, the time when that came is good enough
		c.since.Store(time.Now().UnixNano())
	}
	return c.state.CompareAndSwap(from, to)
}

// serve answers what is plain, and passes the connection on with the first request that is not.
func (c *conn) serve() {
	passed := false
	defer func() {
		c.front.forget(c)
		if !passed {
			c.gone()
			c.Close()
			c.front.tell(c.Conn, http.StateClosed)
		}
	}()
	state, filled := int32(fresh), 0
	for {
		n, err := c.Read(c.in[filled:])
		filled += n
		if err != nil && filled == 0 {
			return
		}
		r, verdict := c.request(c.in[:filled])
		if err != nil && verdict == unfinished {
			verdict = other // net/http says what it says to half a request
		}
		switch {
		case verdict == unfinished && filled < maxHead:
			if state != reading && !c.become(state, reading) {
				return
			}
			state = reading
		case verdict != isPlain:
			if !c.become(state, ended) {
				return
			}
			passed = c.front.pass(&Passed{Conn: c.Conn, read: c.in[:filled:filled]})
			return
		default:
			if !c.become(state, busy) || !c.respond(r) || !c.become(busy, idle) || c.front.closing.Load() {
				return
			}
			state, filled = idle, 0
		}
	}
}

// respond runs the handler and reports whether the connection can be used again.
func (c *conn) respond(r *http.Request) (again bool) {
	defer func() {
		if cause := recover(); cause != nil {
			again = false
			if cause != http.ErrAbortHandler {
				c.front.cfg.Log.Error("a handler panicked", "error", fmt.Sprint(cause), "error.stack_trace", string(debug.Stack()))
			}
		}
	}()
	c.answer.reset()
	c.front.cfg.Server.Handler.ServeHTTP(&c.answer, r)
	return c.answer.finish()
}

func (c *conn) closeIdle() {
	for _, state := range []int32{fresh, idle, reading} {
		if c.state.CompareAndSwap(state, ended) {
			c.Close()
			return
		}
	}
}

// look ends what takes too long, and notices that a caller has gone.
func (c *conn) look(now time.Time) {
	state, server := c.state.Load(), c.front.cfg.Server
	since := now.Sub(time.Unix(0, c.since.Load()))
	switch {
	case state == busy && since >= c.front.cfg.Watch:
		if hungUp(c.Conn) {
			c.gone()
		}
	case state == idle && tooLong(since, server.IdleTimeout), (state == fresh || state == reading) && tooLong(since, server.ReadHeaderTimeout):
		if c.state.CompareAndSwap(state, ended) {
			c.Close()
		}
	}
}

// tooLong takes a limit of 0 for none, as net/http does.
func tooLong(since, limit time.Duration) bool { return limit > 0 && since > limit }

// hungUp reports whether the other side has closed the connection.
func hungUp(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	var n int
	failed := raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return failed != nil || n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
}

// lacks reports whether a connection could not be accepted because the system is short of something.
func lacks(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}
