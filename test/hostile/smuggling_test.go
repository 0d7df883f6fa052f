package hostile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// TestSmuggling sends requests whose end two readers could see in different places, each with a second request in its tail.
// The second one must not be served, and what is refused must not reach the service in any form.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	token := "Authorization: " + p.bearer(identity.Admin)
	const chunked = "Transfer-Encoding: chunked"
	ended := "0\r\n\r\n"
	for i, c := range []struct {
		name string
		// head stands after the request line, Host and the token.
		head []string
		body string
		// status that is right; 0 for a connection that is closed without a word.
		status []int
		// served says that the request itself is a good one.
		served bool
	}{
		{"content length and chunks", []string{"Content-Length: 6", chunked}, ended, []int{200, 400}, true},
		{"chunks and content length", []string{chunked, "Content-Length: 3"}, "5\r\nhello\r\n" + ended, []int{200, 400}, true},
		{"chunks, and a length over all", []string{chunked, "Content-Length: 400"}, ended, []int{200, 400}, true},
		{"space before the colon", []string{"Transfer-Encoding : chunked"}, ended, []int{400}, false},
		{"tab before the colon", []string{"Transfer-Encoding\t: chunked"}, ended, []int{400}, false},
		{"xchunked", []string{"Transfer-Encoding: xchunked"}, ended, []int{400, 501}, false},
		{"chunked, identity", []string{"Transfer-Encoding: chunked, identity"}, ended, []int{400, 501}, false},
		{"identity, chunked", []string{"Transfer-Encoding: identity, chunked"}, ended, []int{400, 501}, false},
		{"gzip, chunked", []string{"Transfer-Encoding: gzip, chunked"}, ended, []int{400, 501}, false},
		{"identity", []string{"Transfer-Encoding: identity", "Content-Length: 5"}, ended, []int{400, 501}, false},
		{"two encodings", []string{chunked, "Transfer-Encoding: identity"}, ended, []int{400, 501}, false},
		{"two encodings alike", []string{chunked, chunked}, ended, []int{400, 501}, false},
		{"empty encoding", []string{"Transfer-Encoding:", "Content-Length: 5"}, ended, []int{400, 501}, false},
		{"tab before the encoding", []string{"Transfer-Encoding:\tchunked"}, ended, []int{200, 400, 501}, true},
		{"vertical tab before the encoding", []string{"Transfer-Encoding: \x0bchunked"}, ended, []int{400, 501}, false},
		{"vertical tab after the encoding", []string{"Transfer-Encoding: chunked\x0b"}, ended, []int{400, 501}, false},
		{"quoted encoding", []string{`Transfer-Encoding: "chunked"`}, ended, []int{400, 501}, false},
		{"encoding with a parameter", []string{"Transfer-Encoding: chunked;x=y"}, ended, []int{400, 501}, false},
		{"folded encoding", []string{"Transfer-Encoding:\r\n chunked"}, ended, []int{200, 400, 501}, true},
		{"bare line feed before the encoding", []string{"X: y\n" + chunked}, ended, []int{200, 400}, true},
		{"carriage return before the encoding", []string{"X: y\r" + chunked}, ended, []int{400}, false},
		{"two lengths", []string{"Content-Length: 5", "Content-Length: 6"}, ended, []int{400}, false},
		{"two lengths in one", []string{"Content-Length: 5, 6"}, ended, []int{400}, false},
		{"a length twice in one", []string{"Content-Length: 5,5"}, ended, []int{400}, false},
		{"length with a plus", []string{"Content-Length: +5"}, ended, []int{400}, false},
		{"negative length", []string{"Content-Length: -1"}, "", []int{400}, false},
		{"hexadecimal length", []string{"Content-Length: 0x5"}, ended, []int{400}, false},
		{"length with an underscore", []string{"Content-Length: 0_5"}, ended, []int{400}, false},
		{"empty length", []string{"Content-Length:"}, ended, []int{400}, false},
		{"length beyond all numbers", []string{"Content-Length: 99999999999999999999"}, ended, []int{400}, false},
		{"space before the colon of a length", []string{"Content-Length : 5"}, ended, []int{400}, false},
		{"carriage return in a value", []string{"X: a\rb", "Content-Length: 5"}, ended, []int{400}, false},
		{"zero byte in a value", []string{"X: a\x00b", "Content-Length: 5"}, ended, []int{400}, false},
		{"zero byte in a name", []string{"X\x00Y: a", "Content-Length: 5"}, ended, []int{400}, false},
		{"header without a colon", []string{"X", "Content-Length: 5"}, ended, []int{400}, false},
		{"header without a name", []string{": a", "Content-Length: 5"}, ended, []int{400}, false},
		{"name with a bracket", []string{"X[]: a", "Content-Length: 5"}, ended, []int{400}, false},
		{"second host", []string{"Host: other"}, "", []int{400}, false},
		{"chunk size beyond all numbers", []string{chunked}, "fffffffffffffffff\r\nx\r\n" + ended, []int{400}, false},
		{"negative chunk size", []string{chunked}, "-1\r\nx\r\n" + ended, []int{400}, false},
		{"chunk size with a prefix", []string{chunked}, "0x1\r\nx\r\n" + ended, []int{400}, false},
		{"chunk longer than it says", []string{chunked}, "1\r\nxyz\r\n" + ended, []int{400}, false},
		{"bare line feeds of a chunk", []string{chunked}, "1\nx\n0\n\n", []int{400}, false},
		{"bare line feed in an extension", []string{chunked}, "1;a\nb\r\nx\r\n" + ended, []int{400}, false},
		{"chunk extensions without end", []string{chunked}, strings.Repeat("1;"+strings.Repeat("e", 4000)+"\r\nx\r\n", 10) + ended, []int{400}, false},
		{"unknown expectation", []string{"Expect: tea", "Content-Length: 5"}, ended, []int{417}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			outer, inner := fmt.Sprintf("outer-%d-", i), fmt.Sprintf("inner-%d-", i)
			head := append([]string{"POST " + students + "/" + outer + " HTTP/1.1", "Host: sms", token}, c.head...)
			tail := lines("GET "+students+"/"+inner+" HTTP/1.1", "Host: sms", token, "Connection: close")
			a := send(t, p.gateway, lines(head...)+c.body+tail)
			if !slices.Contains(c.status, a.first()) || len(a.status) > 1 || !a.closed {
				t.Errorf("answered %v, closed %t; want one of %v: %q", a.status, a.closed, c.status, a.bodies)
			}
			if got := p.service.got(inner); len(got) > 0 || p.service.sawBytes(inner) {
				t.Errorf("the second request came through: %v", got)
			}
			if got := p.service.got(outer); len(got) > 0 && (!c.served || a.first() != 200) {
				t.Errorf("what was refused came through: %v", got)
			}
		})
	}
}

// TestRequestLines sends first lines and hosts that only look like HTTP.
func TestRequestLines(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	token := "Authorization: " + p.bearer(identity.Admin)
	keptAlive := "POST " + students + "/x HTTP/1.0\r\n" + token + "\r\nConnection: keep-alive\r\n"
	for i, c := range []struct {
		name   string
		raw    string // with MARK where a path goes
		status []int
	}{
		{"HTTP/0.9", "GET " + students + "/MARK\r\n", []int{400}},
		{"HTTP/0.9 with headers", lines("GET "+students+"/MARK", token), []int{400}},
		{"HTTP/1.0 with chunks", keptAlive + "Transfer-Encoding: chunked\r\n\r\n" + "0\r\n\r\n" + lines("GET "+students+"/MARK HTTP/1.0", token), []int{200, 400}},
		{"HTTP/1.0 with a length and chunks", keptAlive + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + "0\r\n\r\n" + lines("GET "+students+"/MARK HTTP/1.0", token), []int{200, 400}},
		{"HTTP/2.0", lines("GET "+students+"/MARK HTTP/2.0", "Host: sms", token), []int{400, 505}},
		{"HTTP/2 preface", lines("PRI * HTTP/2.0") + "SM\r\n\r\n", []int{400, 404, 505}},
		{"HTTP/9.9", lines("GET "+students+"/MARK HTTP/9.9", "Host: sms", token), []int{400, 505}},
		{"http in small letters", lines("GET "+students+"/MARK http/1.1", "Host: sms", token), []int{400}},
		{"no version", lines("GET "+students+"/MARK HTTP", "Host: sms", token), []int{400}},
		{"no host", lines("GET "+students+"/MARK HTTP/1.1", token), []int{400}},
		{"two hosts", lines("GET "+students+"/MARK HTTP/1.1", "Host: a", "Host: b", token), []int{400}},
		{"host with a space", lines("GET "+students+"/MARK HTTP/1.1", "Host: a b", token), []int{400}},
		{"host with a path", lines("GET "+students+"/MARK HTTP/1.1", "Host: a/../b", token), []int{400}},
		{"address of another host", lines("GET http://other"+students+"/MARK HTTP/1.1", "Host: sms", token, "Connection: close"), []int{400}},
		{"address of a file", lines("GET file://"+students+"/MARK HTTP/1.1", "Host: sms", token, "Connection: close"), []int{400}},
		{"space before the method", lines(" GET "+students+"/MARK HTTP/1.1", "Host: sms", token), []int{400}},
		{"tabs between the words", lines("GET\t"+students+"/MARK\tHTTP/1.1", "Host: sms", token), []int{400}},
		{"method with a separator", lines("GE(T "+students+"/MARK HTTP/1.1", "Host: sms", token), []int{400}},
		{"method in small letters", lines("get "+students+"/MARK HTTP/1.1", "Host: sms", token, "Connection: close"), []int{405}},
		{"TRACE", lines("TRACE "+students+"/MARK HTTP/1.1", "Host: sms", token, "Connection: close"), []int{405}},
		{"CONNECT", lines("CONNECT 127.0.0.1:1 HTTP/1.1", "Host: sms", token, "Connection: close"), []int{400, 404, 405}},
		{"a header folded from nothing", lines("GET "+students+"/MARK HTTP/1.1", " folded: yes", "Host: sms", token), []int{400}},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400, 0}},
		{"nothing but line ends", "\r\n\r\n\r\n\r\n", []int{400, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mark := "line-" + strconv.Itoa(i) + "-"
			a := send(t, p.gateway, strings.ReplaceAll(c.raw, "MARK", mark))
			if !slices.Contains(c.status, a.first()) || len(a.status) > 1 || !a.closed {
				t.Errorf("answered %v, closed %t; want one of %v: %q", a.status, a.closed, c.status, a.bodies)
			}
			if p.service.sawBytes(mark) {
				t.Error("it came through")
			}
		})
	}
}

// TestRequestsInOneGo sends good requests that look like smuggling: each is one request, with its own caller.
func TestRequestsInOneGo(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	admin, viewer := "Authorization: "+p.bearer(identity.Admin), "Authorization: "+p.bearer(identity.Viewer)
	inner := func(mark, token string) string {
		return lines("GET "+students+"/"+mark+" HTTP/1.1", "Host: sms", token, "Connection: close")
	}
	post := func(mark, body, token string) string {
		return lines("POST "+students+"/"+mark+" HTTP/1.1", "Host: sms", token, fmt.Sprintf("Content-Length: %d", len(body))) + body
	}

	if a := send(t, p.gateway, post("first", "hello", admin)+inner("nobody", "X: y")); !slices.Equal(a.status, []int{200, 401}) {
		t.Errorf("a second request without a token: %v", a.status)
	}
	if a := send(t, p.gateway, inner("closing", admin)+inner("late", admin)); !slices.Equal(a.status, []int{200}) {
		t.Errorf("a request after a farewell: %v", a.status)
	}
	lesser := post("second", "hello", admin) + post("writer", "hello", viewer) + inner("third", viewer)
	if a := send(t, p.gateway, lesser); !slices.Equal(a.status, []int{200, 403, 200}) {
		t.Errorf("a second request with a lesser token: %v", a.status)
	}
	folded := strings.Replace(post("folded", "hello", admin), "Content-Length", "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length", 1)
	if a := send(t, p.gateway, folded+inner("fifth", admin)); !slices.Equal(a.status, []int{200, 200}) {
		t.Errorf("a header on two lines: %v", a.status)
	}
	if got := p.service.got("/folded"); len(got) != 1 || got[0].body != "hello" || got[0].header.Get("X") != "y Transfer-Encoding: chunked" {
		t.Errorf("a header on two lines is one value (RFC 9112, section 5.2), but came as %v", got)
	}
	hidden := inner("hidden", admin)
	carrier := strings.Replace(post("carrier", hidden, admin), "POST", "GET", 1)
	if a := send(t, p.gateway, carrier+inner("fourth", admin)); !slices.Equal(a.status, []int{200, 200}) {
		t.Errorf("a request in the body of a GET: %v %q", a.status, a.bodies)
	}
	for mark, want := range map[string]int{"first": 1, "second": 1, "third": 1, "fourth": 1, "fifth": 1, "folded": 1, "closing": 1, "carrier": 1,
		"nobody": 0, "writer": 0, "late": 0, "hidden": 0} {
		if got := p.service.got("/" + mark); len(got) != want {
			t.Errorf("%s: the service got %d, want %d", mark, len(got), want)
		}
	}
	if got := p.service.got("/carrier"); len(got) == 1 && got[0].body != hidden {
		t.Errorf("the body of a GET came as %q", got[0].body)
	}
}
