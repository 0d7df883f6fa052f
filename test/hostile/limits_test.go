package hostile

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
)

// TestHugeHeads sends more before a body than anybody needs.
func TestHugeHeads(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	token := "Authorization: " + p.bearer(identity.Admin)
	many := func(n int) (headers []string) {
		for i := range n {
			headers = append(headers, fmt.Sprintf("X-%d: %s", i, strings.Repeat("y", 8)))
		}
		return headers
	}
	for _, c := range []struct {
		name    string
		target  string
		headers []string
		status  []int
	}{
		{"one huge header", "/one", []string{"X: " + strings.Repeat("y", 64<<10)}, []int{431}},
		{"one enormous header", "/enormous", []string{"X: " + strings.Repeat("y", 8<<20)}, []int{431, 0}},
		{"a header with a huge name", "/name", []string{strings.Repeat("X", 64<<10) + ": y"}, []int{431}},
		{"many small headers", "/many", many(5000), []int{431}},
		{"one header many times", "/again", slices.Repeat([]string{"Cookie: abcdefgh"}, 5000), []int{431}},
		{"huge path", "/" + strings.Repeat("path", 16<<10), nil, []int{414, 431}},
		{"huge query", "/query?q=" + strings.Repeat("q", 64<<10), nil, []int{414, 431}},
		{"large, but not too large", "/large?q=" + strings.Repeat("q", 4<<10), append(many(20), "X: "+strings.Repeat("y", 16<<10)), []int{200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			head := append([]string{"GET " + students + c.target + " HTTP/1.1", "Host: sms", token, "Connection: close"}, c.headers...)
			a := send(t, p.gateway, lines(head...))
			if !slices.Contains(c.status, a.first()) || len(a.status) > 1 || !a.closed {
				t.Errorf("answered %v, closed %t, want one of %v", a.status, a.closed, c.status)
			}
			if came := p.service.sawBytes(c.target[:4]); came != slices.Contains(c.status, 200) {
				t.Errorf("came to the service: %t", came)
			}
		})
	}
}

// impatient is a gateway whose callers must hurry.
var impatient = []string{"SERVER_READ_HEADER_TIMEOUT=2s", "SERVER_BODY_IDLE_TIMEOUT=2s", "SERVER_IDLE_TIMEOUT=2s", "SERVER_WRITE_IDLE_TIMEOUT=2s"}

// soon is far more than two seconds, and far less than somebody slow would like to stay.
const soon = 20 * time.Second

// drip sends bytes one by one until the other side closes, and returns what it answered before.
func drip(t *testing.T, address, begin, drops string) string {
	conn := dial(t, address)
	closed := make(chan struct{})
	var answer []byte
	go func() {
		defer close(closed)
		answer, _ = io.ReadAll(conn)
	}()
	began := time.Now()
	_, _ = io.WriteString(conn, begin)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-closed:
			if took := time.Since(began); took > soon {
				t.Errorf("it was let go on for %s", took)
			}
			return string(answer)
		case <-ticker.C:
			if drops != "" {
				_, _ = conn.Write([]byte{drops[i%len(drops)]})
			}
		}
	}
}

// TestSlowCallers holds connections open by the hundred. Each is closed, and meanwhile others are served.
func TestSlowCallers(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, map[string]http.HandlerFunc{}, impatient...)
	token := p.bearer(identity.Admin)
	request := "Host: sms\r\nAuthorization: " + token + "\r\n"
	const each = 100
	var slow sync.WaitGroup
	for _, c := range []struct{ name, begin, drops string }{
		{"nothing at all", "", ""},
		{"a request line", "", "GET " + students + "/slow HTTP/1.1"},
		{"headers without end", "GET " + students + "/slow HTTP/1.1\r\n" + request, "X: y\r\n"},
		{"headers of a second request", "GET " + students + "/quick HTTP/1.1\r\n" + request + "\r\n" +
			"GET " + students + "/slow HTTP/1.1\r\n" + request, "X: y\r\n"},
	} {
		for range each {
			slow.Go(func() {
				answer := drip(t, p.gateway, c.begin, c.drops)
				if served := strings.Count(answer, "200 OK"); served != strings.Count(c.begin, "/quick") {
					t.Errorf("%s: %d requests were served: %q", c.name, served, answer)
				}
			})
		}
	}
	over := make(chan struct{})
	go func() { slow.Wait(); close(over) }()
	client := &http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true}}
	for served, waiting := 0, true; waiting || served == 0; served++ {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.gateway+students+"/good", nil)
		must(t, err)
		req.Header.Set("Authorization", token)
		res, err := client.Do(req)
		must(t, err)
		if must(t, res.Body.Close()); res.StatusCode != http.StatusOK {
			t.Fatalf("a good request among slow ones: %d", res.StatusCode)
		}
		select {
		case <-over:
			t.Logf("%d slow callers, and %d requests beside them", 4*each, served+1)
			waiting = false
		default:
		}
	}
	if got := p.service.got("/slow"); len(got) > 0 {
		t.Errorf("half a request came through: %v", got)
	}
}

// TestHalfSentBodies stops in the middle of a body: by silence, by hanging up, and by a broken chunk.
func TestHalfSentBodies(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, map[string]http.HandlerFunc{}, impatient...)
	head := func(mark, length string) string {
		return lines("POST "+students+"/"+mark+" HTTP/1.1", "Host: sms", "Authorization: "+p.bearer(identity.Admin), length)
	}
	for mark, half := range map[string]string{"half-length": head("half-length", "Content-Length: 100") + "half",
		"half-chunk":    head("half-chunk", "Transfer-Encoding: chunked") + "64\r\nhalf",
		"no-last-chunk": head("no-last-chunk", "Transfer-Encoding: chunked") + "4\r\nhalf\r\n",
		"no-body":       head("no-body", "Content-Length: 100")} {
		t.Run(mark, func(t *testing.T) {
			t.Parallel()
			if answer := drip(t, p.gateway, half, ""); !strings.HasPrefix(answer, "HTTP/1.1 408 ") {
				t.Errorf("silence in a body: %q", answer)
			}
			conn := dial(t, p.gateway)
			_, err := io.WriteString(conn, half)
			must(t, err)
			must(t, conn.(*net.TCPConn).CloseWrite())
			if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
				t.Errorf("hung up in a body: %v %q", err, answer)
			}
			if got := p.service.got(mark); len(got) > 0 {
				t.Errorf("half a body came through as a whole one: %v", got)
			}
		})
	}
}

// TestUnreadAnswers asks for an answer without end and takes nothing of it: the service is let go.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	gone := make(chan error, 1)
	p := newPlatform(t, map[string]http.HandlerFunc{"/endless": func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for piece := make([]byte, 64<<10); err == nil; {
			_, err = w.Write(piece)
		}
		gone <- err
	}}, impatient...)
	conn := dial(t, p.gateway)
	_, err := io.WriteString(conn, lines("GET "+students+"/endless HTTP/1.1", "Host: sms", "Authorization: "+p.bearer(identity.Admin)))
	must(t, err)
	select {
	case <-gone:
	case <-time.After(soon):
		t.Errorf("after %s the service still waits for somebody who does not read", soon)
	}
}
