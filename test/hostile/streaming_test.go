package hostile

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
)

const (
	bodyBytes = 500_000_000
	// mayGrow is what the gateway's resident memory may grow by under a body of that size, in KiB.
	mayGrow = 32 << 10
)

// generated is a body that nobody holds: blocks of noise, each with its number.
type generated struct {
	left  int64
	block []byte
	rest  []byte
	count uint64
}

func newGenerated() *generated {
	block := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(block)
	return &generated{left: bodyBytes, block: block}
}

func (g *generated) Read(p []byte) (int, error) {
	if g.left == 0 {
		return 0, io.EOF
	}
	if len(g.rest) == 0 {
		g.count++
		binary.BigEndian.PutUint64(g.block, g.count)
		g.rest = g.block
	}
	n := copy(p[:min(int64(len(p)), g.left)], g.rest)
	g.rest, g.left = g.rest[n:], g.left-int64(n)
	return n, nil
}

// sum is what a body came as: its length and its hash.
func sum(r io.Reader) (string, error) {
	hash := sha256.New()
	n, err := io.CopyBuffer(hash, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return fmt.Sprintf("%d %s", n, hex.EncodeToString(hash.Sum(nil))), err
}

// TestLargeBodies sends and takes 500 MB through the gateway, which holds none of it.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	want, err := sum(newGenerated())
	must(t, err)
	p := newPlatform(t, map[string]http.HandlerFunc{
		"/upload": func(w http.ResponseWriter, r *http.Request) {
			came, err := sum(r.Body)
			_, _ = fmt.Fprint(w, came, err)
		},
		"/download": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/csv")
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, newGenerated(), make([]byte, 256<<10))
		},
	}, "LOG_LEVEL=info")
	call := func(method, path string, body io.Reader, length int64) io.ReadCloser {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.gateway+students+path, body)
		must(t, err)
		req.ContentLength = length
		req.Header.Set("Authorization", p.bearer(identity.Clerk))
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %d", method, path, res.StatusCode)
		}
		return res.Body
	}
	before := p.memory("VmRSS")
	for name, length := range map[string]int64{"announced": bodyBytes, "in chunks": -1} {
		body := call(http.MethodPost, "/upload", newGenerated(), length)
		said, err := io.ReadAll(body)
		must(t, err)
		if got := string(said); got != want+"<nil>" {
			t.Errorf("upload %s came as %s, want %s", name, got, want)
		}
		t.Logf("after an upload %s the gateway had grown by %d KiB", name, p.memory("VmHWM")-before)
	}
	got, err := sum(call(http.MethodGet, "/download", nil, 0))
	if must(t, err); got != want {
		t.Errorf("the download came as %s, want %s", got, want)
	}
	grown := p.memory("VmHWM") - before
	t.Logf("at most it had grown by %d KiB, from %d", grown, before)
	if grown > mayGrow {
		t.Errorf("the gateway grew by %d KiB", grown)
	}
}

// memory reads a figure of the gateway's process from proc(5), in KiB.
func (p *platform) memory(field string) int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.process.Process.Pid))
	must(p.t, err)
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		p.t.Fatalf("there is no %s in %s", field, status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	must(p.t, err)
	return kib
}

// TestEventsComeAtOnce sends an event only after the one before it has come.
func TestEventsComeAtOnce(t *testing.T) {
	t.Parallel()
	received := make(chan struct{})
	p := newPlatform(t, map[string]http.HandlerFunc{"/events": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 20 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-received
		}
	}})
	conn := dial(t, p.gateway)
	_, err := io.WriteString(conn, get("/events", "Authorization: "+p.bearer(identity.Viewer), "Accept: text/event-stream"))
	must(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	events := bufio.NewScanner(res.Body)
	for i := range 20 {
		for events.Scan() && events.Text() == "" {
		}
		if want := fmt.Sprintf("data: %d", i); events.Text() != want {
			t.Fatalf("%q, %v, want %s", events.Text(), events.Err(), want)
		}
		received <- struct{}{}
	}
}

// TestWebSocket upgrades a connection (RFC 6455) and has bytes go both ways on it, for callers with a token only.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	asked := make(chan http.Header, 10)
	p := newPlatform(t, map[string]http.HandlerFunc{"/socket": func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Clone()
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			_, _ = io.WriteString(w, "served")
			return
		}
		conn, stream, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, _ = io.WriteString(conn, lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
			"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(accept[:]))+"hello")
		_, _ = io.Copy(conn, stream)
		ended <- struct{}{}
	}})
	upgrade := func(protocol string, headers ...string) string {
		return lines(append([]string{"GET " + students + "/socket HTTP/1.1", "Host: sms", "Connection: Upgrade",
			"Upgrade: " + protocol, "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, headers...)...)
	}
	token := "Authorization: " + p.bearer(identity.Viewer)

	conn := dial(t, p.gateway)
	_, err := io.WriteString(conn, upgrade("websocket"))
	must(t, err)
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 401 || len(asked) > 0 {
		t.Errorf("without a token: %v, %v", res, err)
	}

	conn = dial(t, p.gateway)
	_, err = io.WriteString(conn, upgrade("websocket", token))
	must(t, err)
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v, %v", res, err)
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	expect("hello")
	for i := range 20 { // each only after the one before has come back
		frame := "\x81\x85\x01\x02\x03\x04frame" + strconv.Itoa(i)
		_, err = io.WriteString(conn, frame)
		must(t, err)
		expect(frame)
	}
	must(t, conn.Close())
	select {
	case <-ended:
	case <-time.After(soon):
		t.Error("the service keeps a socket whose caller has gone")
	}
	<-asked

	// Another protocol would let all that follows pass the gateway by.
	h2c := upgrade("h2c", token, "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
	a := send(t, p.gateway, strings.Replace(h2c, "Connection: Upgrade", "Connection: Upgrade, HTTP2-Settings, close", 1))
	if got := <-asked; a.first() != 200 || got.Get("Upgrade") != "" || got.Get("HTTP2-Settings") != "" {
		t.Errorf("h2c: %v, %q", a.status, got["Upgrade"])
	}
}

// TestCallerGoesAway hangs up while a service works: its work is ended at once.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan struct{})
	p := newPlatform(t, map[string]http.HandlerFunc{"/work": func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Query().Has("answer") {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	}})
	const times = 10 // as it may happen at any moment of the gateway's work
	for i, begin := range slices.Repeat([]string{"GET " + students + "/work HTTP/1.1",
		"POST " + students + "/work HTTP/1.1\r\nContent-Length: 5", "GET " + students + "/work?answer HTTP/1.1"}, times) {
		conn := dial(t, p.gateway)
		body := ""
		if strings.HasPrefix(begin, "POST") {
			body = "hello"
		}
		_, err := io.WriteString(conn, lines(begin, "Host: sms", "Authorization: "+p.bearer(identity.Admin))+body)
		must(t, err)
		await(t, fmt.Sprintf("begins: %d, %s", i, begin), began)
		must(t, conn.Close())
		await(t, fmt.Sprintf("ends: %d, %s", i, begin), ended)
	}
}

func await(t *testing.T, what string, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(soon):
		t.Fatalf("the service's work never %s", what)
	}
}
