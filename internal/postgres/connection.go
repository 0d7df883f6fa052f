package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// connection is a connection to a server. That the server ends it is an error of the network: io.EOF might as well be the end
// of a caller's body.
type connection struct{ net.Conn }

func (c connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		err = &net.OpError{Op: "read", Net: c.RemoteAddr().Network(), Addr: c.RemoteAddr(), Err: syscall.ECONNRESET}
	}
	return n, err
}

// dial connects so that the connection ends when the host at the other end is silently gone for as long as a statement may
// take. The kernel's own patience is a quarter of an hour.
func (c Config) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: c.StatementTimeout}
	if c.StatementTimeout > 0 && network == "tcp" {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			failed := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(c.StatementTimeout.Milliseconds()))
			})
			return errors.Join(failed, err)
		}
	}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return connection{conn}, nil
}

// stillOpen refuses a connection that the server has closed, or said something on, while it lay idle: a server that stops
// says so last. Without it every connection of the pool would fail one request after a restart.
func stillOpen(_ context.Context, conn *pgx.Conn) (bool, error) {
	netConn := conn.PgConn().Conn()
	if encrypted, ok := netConn.(*tls.Conn); ok {
		netConn = encrypted.NetConn()
	}
	raw, err := netConn.(connection).Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false, nil
	}
	var peeked error
	err = raw.Control(func(fd uintptr) {
		_, _, peeked = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && errors.Is(peeked, unix.EAGAIN), nil
}
