package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/school-sms/sms/api/server/plain"
)

// exchange sends requests without a body, which are nearly all, from the goroutine that serves the caller: http.Transport hands
// them to two goroutines of the connection and back, which costs as much as all the rest of the gateway. What has a body or
// changes the protocol goes through a http.Transport, because there both sides may speak at once.
type exchange struct {
	cfg    Config
	dialer net.Dialer
	other  http.RoundTripper

	mu       sync.Mutex
	idle     map[string][]*connection // by address, the one used last at the end
	sweeping bool
}

func newExchange(cfg Config) *exchange {
	x := &exchange{cfg: cfg, dialer: net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}, idle: map[string][]*connection{}}
	x.other = &http.Transport{
		DialContext:           dialer(cfg),
		ResponseHeaderTimeout: cfg.ResponseHeaderTimeout,
		ExpectContinueTimeout: cfg.ConnectTimeout,
		IdleConnTimeout:       cfg.IdleTimeout,
		MaxIdleConnsPerHost:   cfg.MaxIdlePerInstance,
		DisableCompression:    true,
	}
	return x
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	if (req.Body != nil && req.Body != http.NoBody) || len(req.Header["Upgrade"]) > 0 {
		return x.other.RoundTrip(req)
	}
	c := x.kept(req.URL.Host)
	if c == nil {
		raw, err := x.dial(req.Context(), req.URL.Host)
		if err != nil {
			return nil, err
		}
		c = x.connection(raw, req.URL.Host)
	}
	return c.roundTrip(req)
}

// dial opens a connection to an instance: by its Unix socket where it has one on this machine, and else, or when that cannot be
// opened, by TCP.
func (x *exchange) dial(ctx context.Context, address string) (net.Conn, error) {
	if call := callOf(ctx); call != nil && call.used != nil && call.used.socket != "" {
		if raw, err := x.dialer.DialContext(ctx, "unix", call.used.socket); err == nil {
			return raw, nil
		}
	}
	return x.dialer.DialContext(ctx, "tcp", address)
}

// connection is one connection to an instance. It serves one request at a time.
type connection struct {
	net.Conn
	of      *exchange
	address string
	raw     syscall.RawConn
	in      *bufio.Reader
	out     *bufio.Writer
	since   time.Time // kept and unused
	// peek looks whether the connection is silent and open, and says so in silent.
	peek   func(fd uintptr)
	silent bool
	// deadline is when the connection gives up, as allow has set it.
	deadline time.Time
	// ctx is the present request's, and forget ends the watching of it. giveUp makes whatever waits end now.
	ctx    context.Context
	forget func() bool
	giveUp func()
}

// past is a moment at which whatever waits gives up.
var past = time.Unix(1, 0)

// allow sets how long the exchange may go on: d, or up to an eighth more, because to move a deadline costs more than a short read.
// A caller who has gone may have left a moment ago, and the deadline that this set must not be lifted.
func (c *connection) allow(d time.Duration) error {
	now := time.Now()
	if left := c.deadline.Sub(now); left >= d && left <= d+d/8 {
		return nil
	}
	c.deadline = now.Add(d + d/8)
	err := c.SetDeadline(c.deadline)
	if c.ctx.Err() != nil {
		return c.SetDeadline(past)
	}
	return err
}

func (x *exchange) connection(raw net.Conn, address string) *connection {
	c := &connection{Conn: raw, of: x, address: address, in: bufio.NewReader(raw), out: bufio.NewWriter(raw)}
	c.peek = func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.silent = n <= 0 && err == syscall.EAGAIN
	}
	c.giveUp = func() { _ = raw.SetDeadline(past) }
	c.raw, _ = raw.(syscall.Conn).SyscallConn() // has no error for an open connection
	return c
}

// roundTrip sends a request and reads the head of its answer. After an error the connection is closed.
func (c *connection) roundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	c.ctx = ctx
	c.forget = plain.AfterHangUp(ctx, c.giveUp)
	res, err := c.head(req)
	if err != nil {
		c.forget()
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if res.Body == http.NoBody {
		c.end(!res.Close)
		return res, nil
	}
	res.Body = &answerBody{ReadCloser: res.Body, connection: c, keep: !res.Close}
	return res, nil
}

// maxInterim is how many interim answers (1xx) may come before the final one.
const maxInterim = 5

func (c *connection) head(req *http.Request) (*http.Response, error) {
	if err := c.allow(c.of.cfg.ResponseHeaderTimeout); err != nil {
		return nil, err
	}
	c.write(req)
	if err := c.out.Flush(); err != nil {
		return nil, err
	}
	if _, err := c.in.Peek(1); err != nil { // as it is, so that others see a timeout or a reset in it
		return nil, err
	}
	if res := readHead(c.in, req); res != nil {
		return c.begun(res)
	}
	for range maxInterim + 1 {
		res, err := http.ReadResponse(c.in, req)
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if res.StatusCode < http.StatusOK {
			continue
		}
		return c.begun(res)
	}
	return nil, errors.New("the instance sends no final answer")
}

// begun gives the rest of an answer its time.
func (c *connection) begun(res *http.Response) (*http.Response, error) {
	if res.ContentLength >= 0 && res.ContentLength <= int64(c.in.Buffered()) {
		return res, nil // all of it is here
	}
	return res, c.allow(c.of.cfg.ExchangeIdleTimeout)
}

// write puts the request into the buffer. Its path, names and values have been read by net/http, which lets nothing pass that
// would end a line.
func (c *connection) write(req *http.Request) {
	w := c.out
	put := func(texts ...string) {
		for _, text := range texts {
			_, _ = w.WriteString(text) // the error stays until Flush
		}
	}
	put(req.Method, " ", req.URL.RequestURI(), " HTTP/1.1\r\nHost: ", c.address, "\r\n")
	for name, values := range req.Header {
		if name == "Content-Length" { // of no body
			continue
		}
		for _, value := range values {
			put(name, ": ", value, "\r\n")
		}
	}
	put("\r\n")
}

// end gives the connection back, or closes it when it cannot serve another request.
func (c *connection) end(keep bool) {
	if undisturbed := c.forget(); keep && undisturbed && c.in.Buffered() == 0 {
		c.of.keep(c)
		return
	}
	c.Close()
}

// answerBody gives the connection back at its end.
type answerBody struct {
	io.ReadCloser
	*connection
	keep, ended bool
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.in.Buffered() == 0 {
		_ = b.allow(b.of.cfg.ExchangeIdleTimeout) // fails with the connection, as the read does
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !b.ended {
		b.ended = true
		b.end(b.keep && err == io.EOF)
	}
	return n, err
}

// Close ends the connection with an answer that nobody wants to the end: that tells the instance.
func (b *answerBody) Close() error {
	if !b.ended {
		b.ended = true
		b.end(false)
	}
	return nil
}

// whole is the body when all of it has come already and nothing of it has been read, and else nil. It is good until finish.
func (b *answerBody) whole() []byte {
	sized, ok := b.ReadCloser.(*sizedBody)
	if !ok || sized.left > int64(b.in.Buffered()) {
		return nil
	}
	come, _ := b.in.Peek(int(sized.left)) // has no error for what is there
	return come
}

// finish ends the exchange after the whole body.
func (b *answerBody) finish(whole []byte) {
	_, _ = b.in.Discard(len(whole))
	b.ended = true
	b.end(b.keep)
}

// kept returns an unused connection that the instance has not closed, or nil.
func (x *exchange) kept(address string) *connection {
	for {
		x.mu.Lock()
		unused := x.idle[address]
		if len(unused) == 0 {
			x.mu.Unlock()
			return nil
		}
		c := unused[len(unused)-1]
		x.idle[address] = unused[:len(unused)-1]
		x.mu.Unlock()
		if c.open() {
			return c
		}
		c.Close()
	}
}

// open reports whether the other side neither has closed the connection nor said anything unasked.
func (c *connection) open() bool {
	return c.raw.Control(c.peek) == nil && c.silent
}

func (x *exchange) keep(c *connection) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.idle[c.address]) >= x.cfg.MaxIdlePerInstance {
		c.Close()
		return
	}
	c.since = time.Now()
	x.idle[c.address] = append(x.idle[c.address], c)
	if !x.sweeping {
		x.sweeping = true
		time.AfterFunc(x.cfg.IdleTimeout/2, x.sweep)
	}
}

// sweep closes what has not been used for the idle timeout, and comes again while something is kept.
func (x *exchange) sweep() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for address, unused := range x.idle {
		old := 0
		for old < len(unused) && time.Since(unused[old].since) > x.cfg.IdleTimeout {
			unused[old].Close()
			old++
		}
		if x.idle[address] = unused[old:]; len(unused) == old {
			delete(x.idle, address)
		}
	}
	if x.sweeping = len(x.idle) > 0; x.sweeping {
		time.AfterFunc(x.cfg.IdleTimeout/2, x.sweep)
	}
}
