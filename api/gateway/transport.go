package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"syscall"
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
	// route is the template of the route that answered; empty when none has.
	route string
	// err is why there is no answer.
	err   error
	timer *time.Timer
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
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

// use makes u the instance that the call stands on.
func (c *call) use(u *upstream) {
	if c.used != nil {
		c.used.done()
	}
	c.used = u
}

// transport sends a request to an instance of its call's fleet, and to others when that is of use and does no harm:
//
//   - What no instance can have seen is tried on another one, whatever it is.
//   - A GET or HEAD whose connection broke before an answer is, too. So is one that was answered 500, 502 or 503, within
//     the release: what another instance answers shows whose fault it was. When none does better, the answer stands.
//   - A timeout is not tried again: the caller has waited long enough.
//   - PUT and DELETE are idempotent by RFC 9110, section 9.2.2, but here they carry If-Match: a second one would be told
//     412 although the first one was done. POST and PATCH are not idempotent.
//
// All further tries together stay within the fleet's budget.
type transport struct {
	base    http.RoundTripper
	retries int
	retried func(c *call)
}

// try is one request to one instance.
type try struct {
	u     *upstream
	trial bool // the instance is on trial
	res   *http.Response
	err   error
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callOf(req.Context())
	body := guard(req)
	w := wish{now: sinceStart(), wanted: c.wanted, trial: body == nil && isRead(req.Method)}
	c.fleet.budget.request(w.now)
	var unanswered []try // tries on which the verdict is open
	for tries := 0; ; tries++ {
		u, trial := c.fleet.choose(req.Context(), c, &w)
		if u == nil {
			return c.giveUp(req.Context(), unanswered)
		}
		c.use(u)
		if tries > 0 {
			t.retried(c)
		}
		now := try{u: u, trial: trial}
		now.res, now.err = t.base.RoundTrip(aim(req, u, body, tries > 0))
		if now.err == nil && !isFault(now.res) {
			c.fleet.answered(now, w.now)
			c.fleet.settle(unanswered, true, u.Release)
			return now.res, nil
		}
		again := req.Context().Err() == nil && tries < t.retries && !body.touched() && c.mayTryAgain(req.Method, now, &w)
		unanswered = append(unanswered, now)
		if !again {
			return c.giveUp(req.Context(), unanswered)
		}
	}
}

// mayTryAgain takes in a try that has failed, and reports whether there may be another one. If so, w is what it needs.
func (c *call) mayTryAgain(method string, failed try, w *wish) bool {
	neverSent := failed.err != nil && isDial(failed.err)
	switch {
	case neverSent && isRefused(failed.err):
		c.fleet.refused(failed.u)
	case failed.err != nil && !isLocal(failed.err):
		c.fleet.recheck(failed.u) // its own word counts for more than one broken connection
	}
	if !neverSent && (!isRead(method) || failed.err != nil && isTimeout(failed.err)) {
		return false
	}
	w.now, w.tried, w.trial = sinceStart(), append(w.tried, failed.u), false
	if failed.err == nil {
		w.same = failed.u.Release
	}
	if u, _ := c.fleet.current.Load().pick(w); u == nil {
		if w.same != "" {
			return false
		}
		w.tried = nil // there is no other: the same one may do better, or show by refusing that it is gone
	}
	return c.fleet.budget.take(w.now)
}

// giveUp ends a call with what there is: an answer, though it is one of a failure, or else why there is none.
func (c *call) giveUp(ctx context.Context, tries []try) (*http.Response, error) {
	err := errNoInstance
	if cause := ctx.Err(); cause != nil {
		err = cause
	}
	c.fleet.settle(tries, false, "")
	for i := range slices.Backward(tries) {
		if last := tries[i]; last.res != nil {
			closeOthers(tries[:i])
			if c.used != last.u {
				last.u.outstanding.Add(1)
				c.use(last.u)
			}
			return last.res, nil
		}
	}
	if len(tries) > 0 && ctx.Err() == nil {
		err = tries[len(tries)-1].err
	}
	return nil, err
}

func closeOthers(tries []try) {
	for _, other := range tries {
		if other.res != nil {
			_ = other.res.Body.Close()
		}
	}
}

// answered takes in a good answer.
func (f *fleet) answered(good try, started time.Duration) {
	now, u := sinceStart(), good.u
	u.latency.observe(now, now-started, f.cfg.LatencyHalfLife)
	u.answered.Store(int64(now))
	u.faults.good()
	if good.trial {
		f.tried(u, passed)
	}
	if good.res.Close {
		f.recheck(u) // it may be leaving: its readiness tells. Until then it answers what it gets.
	}
}

// settle decides on tries that failed. Where another instance of the release has done better with the same request, they
// were the instances' own faults; else nobody knows.
func (f *fleet) settle(tries []try, better bool, release string) {
	for _, t := range tries {
		proven := better && t.u.Release == release && (t.err == nil || !isDial(t.err) && !isTimeout(t.err))
		if better && t.res != nil {
			_ = t.res.Body.Close()
		}
		if t.res != nil {
			t.u.answered.Store(int64(sinceStart()))
		}
		switch {
		case t.trial && (proven || t.err != nil && !errors.Is(t.err, context.Canceled)):
			f.tried(t.u, failed)
		case t.trial:
			f.tried(t.u, undecided)
		}
		if proven {
			f.proven(t.u)
		}
	}
}

// aim makes the request for one try on one instance. The first try is the request itself, which is the transport's own;
// a further one is a copy, because what remains of the one before may still be looking at it.
func aim(req *http.Request, u *upstream, body *guardedBody, further bool) *http.Request {
	if further {
		address := *req.URL
		req = req.WithContext(req.Context())
		req.URL = &address
	}
	req.URL.Host, req.Host = u.address, ""
	if body != nil {
		req.Body = body
	}
	return req
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

// isFault reports whether an answer says that the instance failed. 504 is somebody behind it who is slow.
func isFault(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable:
		return true
	}
	return false
}

// isDial reports whether a request failed before there was a connection to send it on.
func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// isRefused reports whether nobody listens where the instance should be.
func isRefused(err error) bool { return isDial(err) && !isTimeout(err) && !isLocal(err) }

// isLocal reports whether the gateway itself lacks what a connection needs: no instance is to blame for that.
func isLocal(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
