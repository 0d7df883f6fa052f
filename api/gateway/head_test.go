package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What readHead takes, it reads as net/http does, and what it does not take it leaves as it was.
func TestPlainAnswersAreReadAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	line := rapid.SampledFrom([]string{"HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 204 No Content",
		"HTTP/1.1 304 Not Modified", "HTTP/1.1 103 Early Hints", "HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 +20 OK", "HTTP/1.1 2000 OK",
		"HTTP/1.1  200 OK", "HTTP/1.1 599 \xff", "HTTP/1.1 999 x", "HTTP/1.1 099 x", "HTTP/2.0 200 OK", "http/1.1 200 OK"})
	field := rapid.SampledFrom([]string{"Content-Length: 5", "Content-Length: 5", "content-length: 5", "Content-Length: 0", "Content-Length: +5", "Content-Length: 5, 5",
		"Content-Length: -1", "Content-Length: 9999999999999999999", "Content-Length:  5", "Content-Length: 7", "Content-Length: ", "Transfer-Encoding: chunked",
		"Transfer-Encoding: x", "Connection: close", "Connection: keep-alive", "Connection: x", "Trailer: X", "Upgrade: x", "Pragma: no-cache", "Etag: \"1\"",
		"x-lower: a", "X: a", "X: b", "X:", "X: ", "X:a", "X:\ta", "X: a ", "X a: b", "X: \x01", "X: é", " folded", ": x", "X", "Host: a", "Keep-Alive: timeout=5"})
	rapid.Check(t, func(rt *rapid.T) {
		fields := rapid.SliceOfN(field, 0, 4).Draw(rt, "fields")
		if rapid.IntRange(0, 3).Draw(rt, "sized") > 0 {
			fields = append(fields, "Content-Length: 5")
		}
		ending := rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n"}).Draw(rt, "ending")
		text := strings.Join(append([]string{line.Draw(rt, "line")}, fields...), ending) + ending + ending +
			rapid.SampledFrom([]string{"", "hel", "hello", "hello", "hello", "hello, HTTP/1.1 200 OK\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"}).Draw(rt, "body")
		text = text[:rapid.OneOf(rapid.Just(len(text)), rapid.IntRange(1, len(text))).Draw(rt, "come")]
		req := &http.Request{Method: rapid.SampledFrom([]string{"GET", "GET", "GET", "HEAD"}).Draw(rt, "method")}

		ours, theirs := bufio.NewReader(strings.NewReader(text)), bufio.NewReader(strings.NewReader(text))
		_, _ = ours.Peek(1)
		res := readHead(ours, req)
		if res == nil {
			if left, _ := io.ReadAll(ours); string(left) != text {
				rt.Fatalf("%q is left of %q", left, text)
			}
			return
		}
		want, err := http.ReadResponse(theirs, req)
		if err != nil {
			rt.Fatalf("%q is read, but net/http says %v", text, err)
		}
		type read struct {
			Status, Proto, Body, Left string
			Code                      int
			Length                    int64
			Close, None               bool
			Header                    http.Header
			Err                       error
		}
		all := func(res *http.Response, in *bufio.Reader) read {
			none := res.Body == http.NoBody
			body, err := io.ReadAll(res.Body)
			left, _ := io.ReadAll(in)
			return read{res.Status, res.Proto, string(body), string(left), res.StatusCode, res.ContentLength, res.Close, none, res.Header, err}
		}
		if diff := cmp.Diff(all(want, theirs), all(res, ours), cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
			rt.Fatalf("%q (net/http -, ours +): %s", text, diff)
		}
	})
}

// The answers of our own services are plain, or all of this would be for nothing.
func TestUsualAnswersArePlain(t *testing.T) {
	t.Parallel()
	const body = `{"studentId":"STU-2026-1"}`
	for name, text := range map[string]string{
		"student": "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nEtag: \"1\"\r\nX-Request-Id: A\r\n" +
			"X-Sms-Route: /api/v1/students/{studentId}\r\nDate: Fri, 27 Nov 2026 14:59:43 GMT\r\nContent-Length: 26\r\n\r\n" + body,
		"problem": "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\nDate: Fri, 27 Nov 2026 14:59:43 GMT\r\nContent-Length: 26\r\n\r\n" + body,
	} {
		in := bufio.NewReader(bytes.NewBufferString(text))
		_, _ = in.Peek(1)
		res := readHead(in, &http.Request{Method: http.MethodGet})
		if res == nil {
			t.Fatalf("%s: it is not read", name)
		}
		if got, err := io.ReadAll(res.Body); string(got) != body || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
