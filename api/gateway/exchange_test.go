package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// speaker is an instance that says to each request on a connection what it is told to, byte for byte.
func speaker(t *testing.T, network, address string, say func(nth int, req *http.Request, conn net.Conn)) (listener net.Listener, connections *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	connections = &atomic.Int64{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for nth := 0; ; nth++ {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					say(nth, req, conn)
				}
			}()
		}
	}()
	return listener, connections
}

func get(t *testing.T, x *exchange, ctx context.Context, method, address string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/api/v1/students?q=a%20b", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := x.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	return res, string(body), err
}

func TestExchangeReadsEveryFraming(t *testing.T) {
	t.Parallel()
	const end = "\r\n\r\n"
	for name, c := range map[string]struct {
		method, answer, body string
		kept                 bool
	}{
		"length":            {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5" + end + "hello", "hello", true},
		"chunks":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked" + end + "2\r\nhe\r\n3\r\nllo\r\n0" + end, "hello", true},
		"until the end":     {"GET", "HTTP/1.0 200 OK" + end + "hello", "hello", false},
		"none":              {"GET", "HTTP/1.1 204 No Content" + end, "", true},
		"not modified":      {"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"1\"" + end, "", true},
		"head":              {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5" + end, "", true},
		"interim":           {"GET", "HTTP/1.1 103 Early Hints\r\nLink: x" + end + "HTTP/1.1 200 OK\r\nContent-Length: 5" + end + "hello", "hello", true},
		"said to close":     {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5" + end + "hello", "hello", false},
		"more than is said": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5" + end + "helloHTTP/1.1 200 OK" + end, "hello", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			instance, connections := speaker(t, "tcp", "127.0.0.1:0", func(_ int, req *http.Request, conn net.Conn) {
				if req.RequestURI != "/api/v1/students?q=a%20b" || req.Method != c.method {
					t.Errorf("%s %s came", req.Method, req.RequestURI)
				}
				_, _ = io.WriteString(conn, c.answer)
				if strings.HasPrefix(c.answer, "HTTP/1.0") {
					conn.Close()
				}
			})
			x := newExchange(testConfig)
			const times = 3
			for range times {
				_, body, err := get(t, x, t.Context(), c.method, instance.Addr().String())
				if err != nil || body != c.body {
					t.Fatalf("%q, %v", body, err)
				}
			}
			if n := connections.Load(); (n == 1) != c.kept || n > times {
				t.Errorf("%d connections for %d requests", n, times)
			}
		})
	}
}

func TestExchangeTellsWhatWentWrong(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.ResponseHeaderTimeout = 300 * time.Millisecond
	for name, c := range map[string]struct {
		say   func(conn net.Conn)
		fault func(error) bool
	}{
		"silence":     {func(net.Conn) {}, func(err error) bool { return isTimeout(err) && errors.Is(err, os.ErrDeadlineExceeded) }},
		"hung up":     {func(conn net.Conn) { conn.Close() }, func(err error) bool { return errors.Is(err, io.EOF) }},
		"half a head": {func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConte"); conn.Close() }, func(err error) bool { return err != nil }},
		"half a body": {func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
			conn.Close()
		}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"no HTTP": {func(conn net.Conn) { _, _ = io.WriteString(conn, "220 smtp.example ESMTP\r\n\r\n") }, func(err error) bool { return err != nil }},
		"two lengths": {func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello")
		}, func(err error) bool { return err != nil }},
		"interim only": {func(conn net.Conn) {
			_, _ = io.WriteString(conn, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInterim+1))
		}, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			instance, _ := speaker(t, "tcp", "127.0.0.1:0", func(_ int, _ *http.Request, conn net.Conn) { c.say(conn) })
			x := newExchange(cfg)
			if _, body, err := get(t, x, t.Context(), http.MethodGet, instance.Addr().String()); !c.fault(err) {
				t.Errorf("%q, %v", body, err)
			}
			if len(x.idle) > 0 && len(x.idle[instance.Addr().String()]) > 0 {
				t.Error("the connection is kept all the same")
			}
		})
	}
}

func TestExchangeNoticesClosedConnections(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	closed := make(chan struct{}, 1)
	instance, connections := speaker(t, "tcp", "127.0.0.1:0", func(_ int, _ *http.Request, conn net.Conn) {
		_, _ = io.WriteString(conn, ok)
		conn.Close() // without a word
		closed <- struct{}{}
	})
	x := newExchange(testConfig)
	const times = 20
	for range times {
		if _, body, err := get(t, x, t.Context(), http.MethodGet, instance.Addr().String()); err != nil || body != "ok" {
			t.Fatalf("%q, %v", body, err)
		}
		<-closed
	}
	if n := connections.Load(); n != times {
		t.Errorf("%d connections for %d requests", n, times)
	}
}

func TestExchangeEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	instance, _ := speaker(t, "tcp", "127.0.0.1:0", func(_ int, _ *http.Request, conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
		_, _ = conn.Read(make([]byte, 1)) // ends with the connection
		close(ended)
	})
	x := newExchange(testConfig)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+instance.Addr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := x.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("an answer that was broken off looks whole")
	}
	<-ended
}

func TestExchangePrefersTheLocalSocket(t *testing.T) {
	t.Parallel()
	say := func(text string) func(int, *http.Request, net.Conn) {
		return func(_ int, _ *http.Request, conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"+text)
		}
	}
	tcp, _ := speaker(t, "tcp", "127.0.0.1:0", say("tcp"))
	local, _ := speaker(t, "unix", discovery.SocketPrefix+t.Name(), say("loc"))
	for socket, want := range map[string]string{local.Addr().String(): "loc", discovery.SocketPrefix + "nobody": "tcp", "": "tcp"} {
		ctx := context.WithValue(t.Context(), callKey{}, &call{used: &upstream{socket: socket}})
		if _, body, err := get(t, newExchange(testConfig), ctx, http.MethodGet, tcp.Addr().String()); err != nil || body != want {
			t.Errorf("socket %q: %q, %v", socket, body, err)
		}
	}
}
