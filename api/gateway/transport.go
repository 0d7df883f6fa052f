package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// errNoInstance says that no instance could take the request in the time that it may wait.
var errNoInstance = errors.New("no instance can take the request now")

// call is one request on its way through the gateway.
type call struct {
	fleet *fleet
	// wanted are the releases that the caller restricts the request to; none: the split decides.
	wanted []string
	// used is the instance that answered, or was tried last.
	used *upstream
	// answer is the header that the caller gets, with what the gateway has set so far.
	answer http.Header
	// err is why there is no answer.
	err   error
	timer *time.Timer
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// deadline fires when the request has waited long enough for an instance, counted from the first time that it had to.
func (c *call) deadline() <-chan time.Time {
	if c.timer == nil {
		c.timer = time.NewTimer(c.fleet.cfg.WaitForInstance)
	}
	return c.timer.C
}

// end gives back what the call holds.
func (c *call) end() {
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.used != nil {
		c.used.done()
	}
}

// transport sends a request to an instance of its call's fleet. What no instance can have seen is tried on another one,
// and so is a GET or HEAD whose connection broke before an answer; anything else might be done twice.
type transport struct {
	base    http.RoundTripper
	retries int
	retried func(c *call)
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callOf(req.Context())
	body := guard(req)
	var tried []*upstream
	for {
		u := c.fleet.choose(req.Context(), c.wanted, tried, c.deadline)
		if u == nil {
			if err := req.Context().Err(); err != nil {
				return nil, err
			}
			return nil, errNoInstance
		}
		c.use(u)
		res, err := t.base.RoundTrip(aim(req, u, body))
		if err == nil || req.Context().Err() != nil {
			return res, err
		}
		neverSent := isDial(err)
		if neverSent {
			c.fleet.eject(u)
		} else {
			c.fleet.recheck(u)
		}
		safe := neverSent || (isRead(req.Method) && !isTimeout(err))
		if !safe || body.touched() || len(tried) >= t.retries {
			return nil, err
		}
		tried = append(tried, u)
		t.retried(c)
	}
}

// use makes u the instance that the call stands on.
func (c *call) use(u *upstream) {
	if c.used != nil {
		c.used.done()
	}
	c.used = u
}

// aim copies the request for one try on one instance.
func aim(req *http.Request, u *upstream, body *guardedBody) *http.Request {
	try := req.WithContext(req.Context())
	address := *req.URL
	address.Host = u.Address()
	try.URL, try.Host = &address, ""
	if body != nil {
		try.Body = body
	}
	return try
}

// guardedBody is a request's body that stays open for another try until somebody has read from it.
type guardedBody struct {
	io.ReadCloser
	read atomic.Bool
}

// guard wraps the request's body; nil when there is none.
func guard(req *http.Request) *guardedBody {
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	return &guardedBody{ReadCloser: req.Body}
}

func (b *guardedBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.ReadCloser.Read(p)
}

// Close leaves an untouched body open: the reverse proxy closes the one that it was given.
func (b *guardedBody) Close() error {
	if !b.read.Load() {
		return nil
	}
	return b.ReadCloser.Close()
}

// touched reports whether a part of the body has been read, and so may be lost for another try.
func (b *guardedBody) touched() bool { return b != nil && b.read.Load() }

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// isDial reports whether a request failed before there was a connection to send it on.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
