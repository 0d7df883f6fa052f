package hostile

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/test/processes"
)

// answers are what came back on one connection.
type answers struct {
	status []int
	header []http.Header
	bodies []string
	// closed says that the other side ended the connection; else the wait for that did.
	closed bool
}

// first is the status of the first answer; 0 when the connection was closed without one.
func (a answers) first() int {
	if len(a.status) == 0 {
		return 0
	}
	return a.status[0]
}

// dial opens a connection on which nothing takes longer than a test waits.
func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, processes.Patience)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(processes.Patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send writes bytes as they are and reads everything that comes back until the other side closes.
func send(t testing.TB, address, raw string) answers {
	t.Helper()
	conn := dial(t, address)
	go func() { _, _ = io.WriteString(conn, raw) }() // what is refused early is not read to its end
	method, _, _ := strings.Cut(raw, " ")
	reader := bufio.NewReader(conn)
	var a answers
	for {
		res, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			a.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			return a
		}
		body, err := io.ReadAll(res.Body)
		a.status, a.header, a.bodies = append(a.status, res.StatusCode), append(a.header, res.Header), append(a.bodies, string(body))
		if err != nil {
			a.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			return a
		}
	}
}

// lines joins the lines of a head as HTTP does, with the empty line after them.
func lines(head ...string) string { return strings.Join(head, "\r\n") + "\r\n\r\n" }

// get is a request for a path below the students, the last on its connection.
func get(path string, headers ...string) string {
	return lines(append([]string{"GET " + students + path + " HTTP/1.1", "Host: sms", "Connection: close"}, headers...)...)
}
