package e2e

import (
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// proxy stands between the workers and a server, and passes on what they say. It can swallow all, or hold one request.
type proxy struct {
	address string
	mu      sync.Mutex
	network string
	server  string // to be set before anything is passed on
	black   bool
	hold    string
	held    chan *late
}

// late is a request that is held, on its way to the server.
type late struct {
	deliver chan struct{}
	answer  chan string // its first line
}

// newProxy listens at an address.
func newProxy(t testing.TB, network, address, server string) *proxy {
	t.Helper()
	l, err := net.Listen(network, address)
	if err == nil && network == "unix" {
		err = os.Chmod(address, 0o666) // the worker has an account of its own
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{address: l.Addr().String(), network: network, server: server, held: make(chan *late, 1)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// swallow begins or ends a time in which nothing passes and nothing is answered. What was swallowed stays so.
func (p *proxy) swallow(black bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.black = black
}

// holdNext holds the next request that begins like this.
func (p *proxy) holdNext(request string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = request
}

func (p *proxy) at(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

// look decides about a piece of what a client says.
func (p *proxy) look(said string) (swallowed bool, held *late) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.black && p.hold != "" && strings.HasPrefix(said, p.hold) {
		p.hold = ""
		held = &late{make(chan struct{}), make(chan string, 1)}
		p.held <- held
	}
	return p.black, held
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	var server net.Conn
	gone := make(chan struct{})
	defer close(gone)
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		swallowed, held := p.look(string(buf[:n]))
		if swallowed {
			_, _ = io.Copy(io.Discard, client)
			return
		}
		if held != nil {
			<-held.deliver
		}
		if server == nil || held != nil { // a server does not wait long for the first word
			if server, err = p.dial(); err != nil {
				return
			}
			defer server.Close()
			go p.answer(server, client, held, gone)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) dial() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return net.Dial(p.network, p.server)
}

// answer passes on what the server says, of which the first line is that to a held request.
func (p *proxy) answer(server, client net.Conn, held *late, gone <-chan struct{}) {
	defer client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if swallowed, _ := p.look(""); swallowed {
			<-gone // the client waits for an answer that never comes
			return
		}
		if held != nil {
			line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
			held.answer <- line
			held = nil
		}
		if err != nil {
			return
		}
		_, _ = client.Write(buf[:n]) // who has gone does not hear it
	}
}
