package plain

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pair is one handler behind net/http alone and behind a front.
type pair struct {
	alone, fronted string // addresses
	front          *Front
	server         *http.Server
	listener       net.Listener
	states         chan http.ConnState // of the front
}

func start(t testing.TB, handler http.HandlerFunc, with func(*http.Server)) *pair {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	alone, fronted := &http.Server{Handler: handler, ErrorLog: quiet}, &http.Server{Handler: handler, ErrorLog: quiet}
	if with != nil {
		with(fronted)
	}
	p := &pair{server: fronted, listener: listen(), states: make(chan http.ConnState, 10)}
	p.front = NewFront(Config{Server: fronted, Watch: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		ConnState: func(_ net.Conn, state http.ConnState) {
			select {
			case p.states <- state:
			default: // more than any test that looks at them makes
			}
		}})
	direct := listen()
	p.alone, p.fronted = direct.Addr().String(), p.listener.Addr().String()
	go func() { _ = alone.Serve(direct) }()
	go func() { _ = fronted.Serve(p.front) }()
	go func() { _ = p.front.Serve(p.listener) }()
	t.Cleanup(func() {
		_ = alone.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.front.Shutdown(ctx)
		_ = fronted.Close()
	})
	return p
}

// caller is one connection.
type caller struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func dial(t testing.TB, address string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &caller{t, conn, bufio.NewReader(conn)}
}

func (c *caller) send(text string) *caller {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// refused is what net/http says to what is no request, where it says anything: it closes the connection with it, and what had
// been sent after it makes the kernel reset the connection, so that sometimes the caller does not hear it.
const refused = "refused"

// said is what a connection answers: status line, header and body as read, and whether the body broke off.
func (c *caller) said() string {
	res, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodGet})
	if err != nil {
		return refused
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if res.Close && res.Header.Get("Date") == "" && res.StatusCode >= http.StatusBadRequest {
		return refused // by net/http itself: no handler's answer is without a date
	}
	if d := res.Header.Get("Date"); d != "" && d != "fixed" {
		if _, err := http.ParseTime(d); err != nil {
			c.t.Errorf("date %q: %v", d, err)
		}
		res.Header.Set("Date", "now")
	}
	return fmt.Sprintf("%s %s length %d chunks %v close %v %v %q broken %t", res.Proto, res.Status, res.ContentLength, res.TransferEncoding, res.Close, res.Header, body, err != nil)
}

// echo answers with all that a handler can know of a request, but for what differs between two connections.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_, local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	_, server := r.Context().Value(http.ServerContextKey).(*http.Server)
	fmt.Fprintf(w, "%s %q %#v %s %d %d %q %v %q %d %v %v %v %v %q %v", r.Method, r.RequestURI, *r.URL, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Host,
		r.Header, body, r.ContentLength, r.TransferEncoding, r.Close, r.Trailer, err, r.Form, local && server)
}

// Whatever is sent, in whatever pieces, the handler sees and the caller gets what they would without the front.
func TestNobodySeesADifference(t *testing.T) {
	t.Parallel()
	p := start(t, echo, nil)
	line := rapid.SampledFrom([]string{"GET /a HTTP/1.1", "GET /a?b=c%20d&e HTTP/1.1", "GET /a%2fb/%41 HTTP/1.1", "GET //host/a HTTP/1.1", "GET / HTTP/1.1",
		"GET /a HTTP/1.0", "GET /a  HTTP/1.1", "GET  /a HTTP/1.1", "GET /a b HTTP/1.1", "GET /a HTTP/1.1 ", "get /a HTTP/1.1", "GET http://x/a HTTP/1.1",
		"POST /a HTTP/1.1", "HEAD /a HTTP/1.1", "GET * HTTP/1.1", "GET /a%zz HTTP/1.1", "GET /a#b HTTP/1.1", "GET /é HTTP/1.1", "GET /a\tb HTTP/1.1", "GET /a",
		"GET /a HTTP/2.0", "GET /a;b=c:d@e HTTP/1.1", "GET /a|b\"{}^ HTTP/1.1", "GETX /a HTTP/1.1", "OPTIONS /a HTTP/1.1", "GET /a?b#c HTTP/1.1"})
	field := rapid.SampledFrom([]string{"Host: b", "Host: [::1]:80", "Host: a b", "Host:", "Host: a/b", "hOsT: c", "Host : d", "X: y", "X:y", "X:  y", "X: y ", "x: z", "X:",
		"X: ", "X_Y: z", "X Y: z", ": z", "X", "X:\ty", "X: a\tb", "X: é", "X: \x01", "X[]: y", " X: y", "\tfolded", "Authorization: Bearer x", "Connection: keep-alive",
		"Connection: Keep-Alive", "Connection: close", "Connection: x", "Connection: keep-alive, x", "Content-Length: 0", "Content-Length: 3", "Transfer-Encoding: chunked",
		"Upgrade: websocket", "Expect: 100-continue", "Te: trailers", "Trailer: X", "Pragma: no-cache", "Cookie: a=b; c=d", "Accept: a/b,*/*;q=0.1", "X-Request-Id: 1"})
	rapid.Check(t, func(rt *rapid.T) {
		lines := []string{line.Draw(rt, "line")}
		if rapid.IntRange(0, 9).Draw(rt, "host") > 0 {
			lines = append(lines, "Host: a")
		}
		lines = append(lines, rapid.SliceOfN(field, 0, 4).Draw(rt, "fields")...)
		ending := rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n"}).Draw(rt, "ending")
		tail := rapid.SampledFrom([]string{"", "", "", "", "wxyz", "3\r\nxyz\r\n0\r\n\r\n", "GET /second HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n"}).Draw(rt, "tail")
		text := strings.Join(lines, ending) + ending + ending + tail
		cut := rapid.IntRange(0, len(text)).Draw(rt, "cut")
		before := rapid.Bool().Draw(rt, "before") // a plain request has been answered already
		talk := func(address string) []string {
			c := dial(t, address)
			defer c.Close()
			var heard []string
			if before {
				heard = append(heard, c.send("GET /before HTTP/1.1\r\nHost: a\r\n\r\n").said())
			}
			_, _ = io.WriteString(c.Conn, text[:cut]) // fails when the server has closed already, which it then says
			if cut > 0 && cut < len(text) {
				time.Sleep(time.Millisecond / 2) // so that the pieces arrive as two: nothing waits for it
			}
			_, _ = io.WriteString(c.Conn, text[cut:])
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			for range 4 {
				said := c.said()
				if heard = append(heard, said); said == refused {
					break
				}
			}
			return heard
		}
		if diff := cmp.Diff(talk(p.alone), talk(p.fronted)); diff != "" {
			rt.Fatalf("%q, cut at %d (net/http -, front +): %s", text, cut, diff)
		}
	})
}

// answers are what handlers do with a ResponseWriter, each a step.
var answers = map[string]func(http.ResponseWriter){
	"write":        func(w http.ResponseWriter) { _, _ = io.WriteString(w, "hello") },
	"html":         func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
	"long":         func(w http.ResponseWriter) { _, _ = w.Write(bytes.Repeat([]byte("a"), 3*held)) },
	"nothing":      func(w http.ResponseWriter) { _, _ = w.Write(nil) },
	"200":          func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
	"404":          func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
	"204":          func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
	"304":          func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotModified) },
	"499":          func(w http.ResponseWriter) { w.WriteHeader(499) },
	"flush":        func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	"length":       func(w http.ResponseWriter) { w.Header().Set("Content-Length", "5") },
	"long length":  func(w http.ResponseWriter) { w.Header().Set("Content-Length", "7") },
	"short length": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "3") },
	"type":         func(w http.ResponseWriter) { w.Header().Set("Content-Type", "a/b") },
	"no type":      func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil },
	"encoding":     func(w http.ResponseWriter) { w.Header().Set("Content-Encoding", "x") },
	"date":         func(w http.ResponseWriter) { w.Header().Set("Date", "fixed") },
	"field":        func(w http.ResponseWriter) { w.Header().Add("X", "a\r\nY: b") },
	"again":        func(w http.ResponseWriter) { w.Header().Add("X", "c") },
	"close":        func(w http.ResponseWriter) { w.Header().Set("Connection", "close") },
	"odd name":     func(w http.ResponseWriter) { w.Header()["X Y"] = []string{"z"} },
	"abort":        func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	"panic":        func(http.ResponseWriter) { panic("on purpose") },
}

// Whatever a handler does, its caller gets what net/http would have sent, and the connection goes on or ends alike.
func TestAnswersAreNetHTTPs(t *testing.T) {
	t.Parallel()
	var names []string
	for name := range answers {
		names = append(names, name)
	}
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		for _, step := range r.URL.Query()["step"] {
			answers[step](w)
		}
	}, nil)
	rapid.Check(t, func(rt *rapid.T) {
		path := "/?"
		for _, step := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 5).Draw(rt, "steps") {
			path += "step=" + strings.ReplaceAll(step, " ", "+") + "&"
		}
		talk := func(address string) []string {
			c := dial(t, address)
			defer c.Close()
			request := "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"
			heard := []string{c.send(request).said()}
			_, _ = io.WriteString(c.Conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			return append(heard, c.said())
		}
		if diff := cmp.Diff(talk(p.alone), talk(p.fronted)); diff != "" {
			rt.Fatalf("%s (net/http -, front +): %s", path, diff)
		}
	})
}
