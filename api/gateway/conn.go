package gateway

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// dialer opens connections to instances, on which the phases of an exchange have their times: the opening, the sending,
// and the whole of it. How long an answer may take to begin is up to who reads it.
func dialer(cfg Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &timedConn{Conn: c, sendIdle: cfg.SendIdleTimeout, exchangeIdle: cfg.ExchangeIdleTimeout}, nil
	}
}

// timedConn fails when what is written is not taken for a while, and when nothing moves in either direction.
type timedConn struct {
	net.Conn
	sendIdle, exchangeIdle time.Duration
	readSet, writeSet      atomic.Int64 // when the deadlines were last moved, since the process began
}

// due reports whether a deadline that was set at a time has to be moved. It is let run down by an eighth, because moving
// it costs more than a short read.
func due(set *atomic.Int64, idle time.Duration) bool {
	now, last := sinceStart(), time.Duration(set.Load())
	if last != 0 && now-last < idle/8 {
		return false
	}
	set.Store(int64(now))
	return true
}

// alive moves the deadline of the exchange. It lies on reading, because somebody always waits to read.
func (c *timedConn) alive() error {
	if !due(&c.readSet, c.exchangeIdle) {
		return nil
	}
	return c.SetReadDeadline(time.Now().Add(c.exchangeIdle))
}

func (c *timedConn) Read(p []byte) (int, error) {
	if err := c.alive(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.alive()
	}
	return n, err
}

func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.alive(); err != nil {
		return 0, err
	}
	if due(&c.writeSet, c.sendIdle) {
		if err := c.SetWriteDeadline(time.Now().Add(c.sendIdle)); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Write(p)
	if err == nil {
		err = c.alive()
	}
	return n, err
}
