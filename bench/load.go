package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// generator sends HTTP requests over keep-alive connections from one thread of this process, and waits in ppoll(2), as
// pgbench does: both share the machine with what they measure, so neither may cost much more than the other. While it runs
// this process does nothing else, and it allocates nothing, so that Go's collector does not run.
type generator struct {
	address     string
	connections int
	duration    time.Duration
	// rate, in requests a second, schedules them as a Poisson process; 0 means as fast as they go.
	rate int
	// next fills in the next request: the bytes that are sent, and text that its answer holds.
	next func() (request, holds []byte)
	// status that every answer must have.
	status int
}

type connection struct {
	fd      int
	due     time.Time
	answer  []byte // read so far
	holds   []byte
	waiting bool
}

// checkEvery so many answers the body is looked into.
const checkEvery = 64

func (g generator) run() (load, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	connections, polled, err := g.connect()
	defer func() {
		for _, c := range connections {
			_ = unix.Close(c.fd)
		}
	}()
	if err != nil {
		return load{}, err
	}
	latencies := make([]time.Duration, 0, g.rate*int(g.duration/time.Second+1)*2)
	began := time.Now()
	end, due, answered, open := began.Add(g.duration), began, 0, 0
	for now := began; now.Before(end) || open > 0; now = time.Now() {
		for i := range connections {
			if c := &connections[i]; !c.waiting && now.Before(end) && !due.After(now) {
				c.due, c.waiting, open = due, true, open+1
				if err := g.send(c); err != nil {
					return load{}, err
				}
				if g.rate > 0 {
					due = due.Add(time.Duration(rand.ExpFloat64() / float64(g.rate) * float64(time.Second)))
				}
			}
		}
		if err := wait(polled, g.pause(due, open)); err != nil {
			return load{}, err
		}
		for i := range polled {
			if polled[i].Revents == 0 {
				continue
			}
			c := &connections[i]
			done, err := g.receive(c, answered%checkEvery == 0)
			if err != nil {
				return load{}, err
			}
			if done {
				c.waiting, open, answered = false, open-1, answered+1
				if g.rate > 0 && c.due.Sub(began) > warmUp {
					latencies = append(latencies, time.Since(c.due))
				}
			}
		}
	}
	return load{perSecond: float64(answered) / time.Since(began).Seconds(), p99: percentile(latencies, 99)}, nil
}

// pause is how long to wait for answers before the next request is due.
func (g generator) pause(due time.Time, open int) time.Duration {
	if g.rate > 0 && open < g.connections {
		return max(0, time.Until(due))
	}
	const patience = 30 * time.Second
	return patience
}

func (g generator) connect() ([]connection, []unix.PollFd, error) {
	address, err := net.ResolveTCPAddr("tcp4", g.address)
	if err != nil {
		return nil, nil, err
	}
	to := &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())}
	var connections []connection
	var polled []unix.PollFd
	for range g.connections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return connections, nil, err
		}
		connections = append(connections, connection{fd: fd, answer: make([]byte, 0, 1<<14)})
		polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		if err := unix.Connect(fd, to); err != nil {
			return connections, nil, fmt.Errorf("connect to %s: %w", g.address, err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return connections, nil, err
		}
	}
	return connections, polled, nil
}

func wait(polled []unix.PollFd, pause time.Duration) error {
	timeout := unix.NsecToTimespec(pause.Nanoseconds())
	n, err := unix.Ppoll(polled, &timeout, nil)
	if err == syscall.EINTR {
		return nil
	}
	if n == 0 && pause > time.Second {
		return fmt.Errorf("no answer for %s", pause)
	}
	return err
}

func (g generator) send(c *connection) error {
	request, holds := g.next()
	c.answer, c.holds = c.answer[:0], append(c.holds[:0], holds...)
	for len(request) > 0 {
		n, err := unix.Write(c.fd, request)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		request = request[n:]
	}
	return nil
}

var (
	endOfHeaders  = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

// receive reads what is there of an answer and reports whether it is whole.
func (g generator) receive(c *connection, check bool) (bool, error) {
	n, err := unix.Read(c.fd, c.answer[len(c.answer):cap(c.answer)])
	if err != nil || n <= 0 {
		return false, fmt.Errorf("the connection ended: %v", err)
	}
	c.answer = c.answer[:len(c.answer)+n]
	headers := bytes.Index(c.answer, endOfHeaders)
	if headers < 0 {
		return false, nil
	}
	const statusAt = len("HTTP/1.1 ")
	if status := number(c.answer[statusAt:]); status != g.status {
		return false, fmt.Errorf("status %d, want %d: %s", status, g.status, c.answer)
	}
	at := bytes.Index(c.answer[:headers], contentLength)
	if at < 0 {
		return false, fmt.Errorf("no Content-Length: %s", c.answer)
	}
	whole := headers + len(endOfHeaders) + number(c.answer[at+len(contentLength):])
	if len(c.answer) > whole {
		return false, fmt.Errorf("more than one answer: %s", c.answer)
	}
	if len(c.answer) < whole {
		return false, nil
	}
	if check && !bytes.Contains(c.answer[headers:], c.holds) {
		return false, fmt.Errorf("the answer does not hold %s: %s", c.holds, c.answer)
	}
	return true, nil
}

// number reads the digits at the start of text.
func number(text []byte) (n int) {
	for _, digit := range text {
		if digit < '0' || digit > '9' {
			break
		}
		n = n*10 + int(digit-'0')
	}
	return n
}

// putNumber writes n over the digits of text, with zeros in front.
func putNumber(text []byte, n int) {
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = byte('0' + n%10)
		n /= 10
	}
}

// request is the text of a request with a body, none when empty.
func request(method, path, token, body string) []byte {
	text := method + " " + path + " HTTP/1.1\r\nHost: sms\r\nAuthorization: Bearer " + token + "\r\n"
	if body != "" {
		text += "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return []byte(text + "\r\n" + body)
}
