package server

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// impatientListener gives up on callers that take nothing of their answer for a while: one that never reads would hold a
// request, and an instance behind a gateway, for ever. A deadline for the whole answer would cut streams and long downloads.
type impatientListener struct {
	net.Listener
	patience time.Duration // 0: endless
}

func (l impatientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || l.patience == 0 {
		return conn, err
	}
	return &impatientConn{Conn: conn, patience: l.patience}, nil
}

// impatientConn bounds each write, unless a handler has set a deadline of its own.
type impatientConn struct {
	net.Conn
	patience time.Duration
	own      atomic.Bool
	until    atomic.Int64 // ns since 1970: when a write gives up
}

func (c *impatientConn) Write(p []byte) (int, error) {
	// The deadline is moved when an eighth of the patience is over: that costs as much as a short write.
	if now := time.Now(); !c.own.Load() && c.until.Load()-now.UnixNano() < int64(c.patience) {
		until := now.Add(c.patience + c.patience/8)
		if err := c.Conn.SetWriteDeadline(until); err != nil {
			return 0, err
		}
		c.until.Store(until.UnixNano())
	}
	return c.Conn.Write(p)
}

func (c *impatientConn) SetWriteDeadline(t time.Time) error {
	c.own.Store(!t.IsZero())
	c.until.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

func (c *impatientConn) SetDeadline(t time.Time) error {
	c.own.Store(!t.IsZero())
	c.until.Store(0)
	return c.Conn.SetDeadline(t)
}

// CloseWrite is what net/http asks for, so that a caller still gets the end of an answer to a body that was not read.
func (c *impatientConn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// SyscallConn lets the state of the connection be looked at.
func (c *impatientConn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}
