package registry

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/school-sms/sms/internal/postgres"
)

// link is the way to a database, which can be cut.
type link struct {
	config postgres.Config

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

func newLink(t *testing.T, to postgres.Config) *link {
	t.Helper()
	address, err := url.Parse(to.URL)
	if err != nil {
		t.Fatal(err)
	}
	target := address.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address.Host = listener.Addr().String()
	to.URL = address.String()
	l := &link{config: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { listener.Close(); l.cut() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(conn, target)
		}
	}()
	return l
}

func (l *link) carry(from net.Conn, target string) {
	defer from.Close()
	to, err := net.Dial("tcp", target)
	if err != nil || !l.keep(from, to) {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(to, from); to.Close() }()
	_, _ = io.Copy(from, to)
}

// keep remembers a connection, unless the link is cut.
func (l *link) keep(ends ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range ends {
		if l.down {
			end.Close()
			continue
		}
		l.conns[end] = true
	}
	return !l.down
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for conn := range l.conns {
		conn.Close()
		delete(l.conns, conn)
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
