package plain

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

type verdict int

const (
	isPlain    verdict = iota
	unfinished         // may become plain
	other              // net/http's matter
)

// request reads a plain request. Only what RFC 9112 lets be written in one way is plain:
//
//	GET /path?query HTTP/1.1␍␊      of printable ASCII; single spaces; nothing but a path
//	Name: value␍␊                   a name of letters, digits, - and _; one space at most; a value of printable ASCII
//	␍␊                              and nothing after it
//
// with exactly one Host, and no field that says anything about a body, an upgrade or the connection, but for
// `Connection: keep-alive`, which is the rule anyway.
func (c *conn) request(in []byte) (*http.Request, verdict) {
	if v := begins(in); v != isPlain {
		return nil, v
	}
	end := bytes.Index(in, []byte("\r\n\r\n"))
	if end < 0 {
		if lines := bytes.LastIndex(in, []byte("\r\n")) + 2; !inLines(in) || lines >= 2 && c.read(string(in[:lines])) == nil {
			return nil, other // at once: what never becomes plain must not be waited for
		}
		return nil, unfinished
	}
	if end+4 != len(in) {
		return nil, other
	}
	r := c.read(string(in[:end+2]))
	if r == nil || r.Host == "" {
		return nil, other
	}
	return r, isPlain
}

// read makes a request of whole lines; nil when they are not plain. Host is empty when there is none.
func (c *conn) read(lines string) *http.Request {
	line, fields, _ := strings.Cut(lines, "\r\n")
	target, ok := strings.CutSuffix(line[len(method):], " HTTP/1.1")
	if !ok || !within(target, '!') {
		return nil
	}
	address, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	header, ok := Fields(fields)
	if !ok || header["Content-Length"] != nil {
		return nil
	}
	host, ok := host(header)
	if !ok {
		return nil
	}
	r := http.Request{Method: http.MethodGet, URL: address, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header, Body: http.NoBody,
		Host: host, RequestURI: target, RemoteAddr: c.remote}
	return r.WithContext(c.ctx)
}

const method = "GET "

// begins tells by its first bytes what cannot be plain.
func begins(in []byte) verdict {
	const start = method + "/"
	if n := min(len(in), len(start)); string(in[:n]) != start[:n] {
		return other
	}
	if len(in) <= len(start) {
		return unfinished
	}
	if in[len(start)] == '/' { // net/url could take it for a host
		return other
	}
	return isPlain
}

// inLines reports whether what has come is of printable ASCII and whole line ends.
func inLines(in []byte) bool {
	for i, c := range in {
		switch {
		case c == '\n' && in[i-1] == '\r', c == '\r' && (i+1 == len(in) || in[i+1] == '\n'):
		case c < ' ' || c > '~':
			return false
		}
	}
	return true
}

// Fields reads the lines of a header, all of which end with ␍␊. False: they are not plain, or say something about the framing, an
// upgrade or the connection, but for Content-Length. The keys are as net/http spells them.
func Fields(lines string) (header http.Header, ok bool) {
	n := strings.Count(lines, "\n")
	header, values := make(http.Header, n), make([]string, n)
	for {
		line, rest, more := strings.Cut(lines, "\r\n")
		if !more {
			return header, true
		}
		lines = rest
		name, value, found := strings.Cut(line, ":")
		if !found || !isName(name) {
			return nil, false
		}
		value = strings.TrimPrefix(value, " ")
		if !Printable(value) || strings.HasPrefix(value, " ") || strings.HasSuffix(value, " ") {
			return nil, false
		}
		switch name = textproto.CanonicalMIMEHeaderKey(name); name {
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return nil, false
			}
		case "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection", "Pragma":
			return nil, false
		}
		if said := header[name]; said != nil {
			header[name] = append(said, value)
			continue
		}
		values[0] = value
		header[name], values = values[:1:1], values[1:]
	}
}

// host takes the one that a request must have, and may have while it is read, out of its header.
func host(header http.Header) (host string, ok bool) {
	said := header["Host"]
	if len(said) == 0 {
		return "", true
	}
	delete(header, "Host")
	return said[0], len(said) == 1 && isHost(said[0])
}

// Printable reports whether text is of printable ASCII and spaces.
func Printable(text string) bool { return within(text, ' ') }

// within reports whether text is of ASCII from lowest to ~.
func within(text string, lowest byte) bool {
	for i := range len(text) {
		if c := text[i]; c < lowest || c > '~' {
			return false
		}
	}
	return true
}

func isName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return name != ""
}

// isHost takes names, IPv4 and bracketed IPv6 addresses, with a port or without.
func isHost(host string) bool {
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return host != ""
}
