package plain

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// held is how much of an answer is held back to be sent in one piece, with the length that it turns out to have.
const held = 8 << 10

// answer is the http.ResponseWriter of a plain request, used for one after the other. It says what net/http's would.
type answer struct {
	conn   *conn
	header http.Header
	out    []byte // what is to be sent next
	body   []byte // what is held of the body
	status int    // 0: not said yet
	length int64  // said by the handler; -1: not said
	wrote  int64  // bytes of the body
	// typed, dated and encoded say what the handler has said; closes that this is the connection's last answer.
	typed, dated, encoded, closes bool
	sent, chunked                 bool
	err                           error
}

// reset begins the next answer. Its header is the last one's, which as in net/http is no handler's after it has returned.
func (a *answer) reset() {
	if a.header == nil {
		a.header = make(http.Header, 16)
	}
	clear(a.header)
	*a = answer{conn: a.conn, header: a.header, out: a.out[:0], body: a.body[:0], length: -1}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter. What is in the header later is not said. Interim answers are not sent.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 || status < http.StatusOK {
		return
	}
	a.status = status
	a.out = append(a.out, "HTTP/1.1 "...)
	a.out = strconv.AppendInt(a.out, int64(status), 10)
	text := http.StatusText(status)
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	a.out = append(append(append(a.out, ' '), text...), "\r\n"...)
	for name, values := range a.header {
		if !a.note(name, values) {
			continue
		}
		for _, value := range values {
			a.say(name, value)
		}
	}
}

// note takes in what a field means for the answer itself, and reports whether it is written as it is.
func (a *answer) note(name string, values []string) bool {
	switch name {
	case "Content-Length":
		if len(values) == 1 && a.hasBody() {
			if n, err := strconv.ParseUint(strings.TrimSpace(values[0]), 10, 63); err == nil {
				a.length = int64(n)
			}
		}
		return false
	case "Connection":
		a.closes = a.closes || httpguts.HeaderValuesContainsToken(values, "close")
		return false
	case "Transfer-Encoding", "Trailer":
		return false
	case "Content-Type":
		a.typed = true
		return a.status != http.StatusNotModified // as net/http
	case "Content-Encoding":
		a.encoded = len(values) > 0 && values[0] != ""
	case "Date":
		a.dated = true
	default:
		return !strings.HasPrefix(name, http.TrailerPrefix) && httpguts.ValidHeaderFieldName(name)
	}
	return true
}

// say writes a field. A value's line ends become spaces, as in net/http, so that it cannot begin another field.
func (a *answer) say(name, value string) {
	a.out = append(append(append(a.out, name...), ": "...), value...)
	for i := len(a.out) - len(value); i < len(a.out); i++ {
		if a.out[i] == '\r' || a.out[i] == '\n' {
			a.out[i] = ' '
		}
	}
	a.out = append(a.out, "\r\n"...)
}

// hasBody reports whether an answer of this status may have a body (RFC 9110, section 6.4.1).
func (a *answer) hasBody() bool {
	return a.status != http.StatusNoContent && a.status != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	switch {
	case a.err != nil:
		return 0, a.err
	case !a.hasBody():
		return 0, http.ErrBodyNotAllowed
	}
	if a.wrote += int64(len(p)); a.length >= 0 && a.wrote > a.length {
		return 0, http.ErrContentLength
	}
	a.body = append(a.body, p...)
	if len(a.body) > held {
		a.send()
	}
	return len(p), a.err
}

// Flush implements http.Flusher.
func (a *answer) Flush() {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.send()
}

// send sends what is held, in chunks when nobody has said how long the body is.
func (a *answer) send() {
	if !a.sent {
		a.chunked = a.length < 0 && a.hasBody()
		a.endHead()
	}
	if a.chunked && len(a.body) > 0 {
		a.out = append(strconv.AppendInt(a.out, int64(len(a.body)), 16), "\r\n"...)
		a.out = append(append(a.out, a.body...), "\r\n"...)
	} else {
		a.out = append(a.out, a.body...)
	}
	a.body = a.body[:0]
	a.flushOut()
}

func (a *answer) flushOut() {
	if len(a.out) > 0 && a.err == nil {
		_, a.err = a.conn.Write(a.out)
	}
	a.out = a.out[:0]
}

// endHead says what the handler has left to the server.
func (a *answer) endHead() {
	a.sent = true
	if !a.typed && !a.encoded && len(a.body) > 0 {
		a.say("Content-Type", http.DetectContentType(a.body))
	}
	if !a.dated {
		a.say("Date", today())
	}
	switch {
	case a.chunked:
		a.say("Transfer-Encoding", "chunked")
	case a.length >= 0:
		a.out = append(strconv.AppendInt(append(a.out, "Content-Length: "...), a.length, 10), "\r\n"...)
	}
	if a.closes = a.closes || a.conn.front.closing.Load(); a.closes {
		a.say("Connection", "close")
	}
	a.out = append(a.out, "\r\n"...)
}

// finish sends the rest and reports whether the connection can be used again. An answer that is shorter than was said ends it.
func (a *answer) finish() (again bool) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	whole := a.length < 0 || a.wrote == a.length
	if !a.sent && a.length < 0 && a.hasBody() {
		a.length = a.wrote
	}
	a.send()
	if a.chunked {
		a.out = append(a.out, "0\r\n\r\n"...)
		a.flushOut()
	}
	const most = 64 << 10 // a buffer that one long answer has made is not kept for the next
	if cap(a.out)+cap(a.body) > most {
		a.out, a.body = nil, nil
	}
	return whole && !a.closes && a.err == nil
}

// SetWriteDeadline is for http.ResponseController.
func (a *answer) SetWriteDeadline(t time.Time) error { return a.conn.SetWriteDeadline(t) }

// date is the header of that name for one second.
type date struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[date]

func today() string {
	now := time.Now()
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
