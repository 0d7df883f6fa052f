package gateway

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
)

// straighten takes out of a request, before anything looks at it, what somebody else could read in another way than we do.
func straighten(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http drops a Content-Length that comes with chunks, and chunks that come in HTTP/1.0, without a word, so
		// that what somebody in front took for a body could follow as a request of its own. RFC 9112, section 6.1, has the
		// connection closed then.
		if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) {
			w.Header().Set("Connection", "close")
		}
		for name := range r.Header {
			if !usual(name) { // X_User_ID is X-User-ID to whoever makes variables of headers
				delete(r.Header, name)
			}
		}
		if len(r.Header["Authorization"]) > 1 { // nobody could say which of two tokens counts
			delete(r.Header, "Authorization")
		}
		if to := r.Header["Upgrade"]; len(to) > 0 && (len(to) > 1 || !strings.EqualFold(to[0], "websocket")) {
			delete(r.Header, "Upgrade") // h2c would be a way past the gateway for all requests after this one
		}
		r.Trailer = nil // no service asks for any, and a forged header could come as one
		next.ServeHTTP(w, r)
	})
}

// refuseDisguises refuses addresses that are written in another way than anybody has a reason to.
func refuseDisguises(c *gin.Context) {
	uri := c.Request.RequestURI
	if !strings.HasPrefix(uri, "/") {
		server.WriteProblem(c, server.NewProblem(http.StatusBadRequest, "validation-error", "the address must be a path here, without a host"))
		return
	}
	path, _, _ := strings.Cut(uri, "?")
	if disguised(path, c.Request.URL.Path) {
		server.WriteProblem(c, server.NewProblem(http.StatusBadRequest, "validation-error",
			"the path holds letters, digits or control characters in disguise, or text that is not UTF-8"))
	}
}

// disguised reports whether a path, as sent and as read, holds what can only be there to mislead: letters, digits, hyphens
// and underscores that need no escape (RFC 3986, section 2.3), control characters, bytes that are not UTF-8, such as a
// slash in more bytes than it needs, and segments of nothing but dots.
func disguised(sent, read string) bool {
	if !utf8.ValidString(read) {
		return true
	}
	for rest := sent; ; {
		at := strings.IndexByte(rest, '%')
		if at < 0 || at+2 >= len(rest) {
			break
		}
		if c := unhex(rest[at+1])<<4 | unhex(rest[at+2]); needsNoEscape(c) || c < ' ' || c == 0x7f {
			return true
		}
		rest = rest[at+3:]
	}
	for segment := range strings.SplitSeq(read, "/") {
		if len(segment) > 1 && strings.Trim(segment, ".") == "" {
			return true
		}
	}
	return false
}

func needsNoEscape(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// unhex reads a digit that net/url has accepted.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// callersBody remembers how a body failed, so that no instance is blamed for it. The error itself gets lost on the way:
// net/http ends the request's context with it.
type callersBody struct {
	io.ReadCloser
	mu    sync.Mutex
	fault error
}

func (b *callersBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.fault = err
	}
	return n, err
}

// ownBodies lets what goes wrong with a body be told from what goes wrong with an instance.
func ownBodies(c *gin.Context) {
	if c.Request.ContentLength != 0 && c.Request.Body != nil {
		c.Request.Body = &callersBody{ReadCloser: c.Request.Body}
	}
}

// bodyFault is why the body of a request that has come back from the proxy could not be read; nil when it could. The proxy
// has closed the body, so that nobody is reading it for long.
func bodyFault(r *http.Request) error {
	body, ok := r.Body.(*callersBody)
	if !ok {
		return nil
	}
	body.mu.Lock()
	defer body.mu.Unlock()
	return body.fault
}
