package gateway

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// upstream is one instance as the gateway sees it.
type upstream struct {
	discovery.Instance
	address     string       // host:port
	socket      string       // the Unix socket to prefer; empty when there is none
	outstanding atomic.Int64 // requests whose answers have not ended
	latency     latency
	faults      faults
	answered    atomic.Int64 // when it last answered a request, since the process began
	warmSince   atomic.Int64 // when its slow start began, since the process began; 0: it has none
	trial       atomic.Bool  // half-open: a trial is under way
	checkNow    chan struct{}
	checked     chan struct{} // closed after the first check
	stop        context.CancelFunc

	standing // guarded by the mu of its fleet
}

// standing is what is held of an instance.
type standing struct {
	ready   bool // the last check said so, and no connection was refused since
	misses  int  // checks in a row that got no answer
	silent  bool // it is ejected because it answers nothing
	breaker breaker
}

// The states of an instance, as the metrics name them.
const (
	stateUnready = "unready" // it says that it is not ready, or refuses connections: it gets nothing
	stateSilent  = "silent"  // it is ejected because its checks get no answer
)

// state is the standing in one word.
func (s *standing) state() string {
	switch {
	case !s.ready:
		return stateUnready
	case s.silent:
		return stateSilent
	}
	return s.breaker.state.String()
}

// usable reports whether the instance gets its part of the requests.
func (s *standing) usable() bool { return s.ready && !s.silent && s.breaker.state == closed }

// onTrial reports whether the instance gets single requests, to see whether it has recovered.
func (s *standing) onTrial() bool { return s.ready && !s.silent && s.breaker.state == halfOpen }

func (u *upstream) done() { u.outstanding.Add(-1) }

// coldest is the part of its requests that an instance gets when its slow start begins.
const coldest = .1

// warmth is the part of its requests that an instance gets by its slow start.
func (u *upstream) warmth(now, slowStart time.Duration) float64 {
	since := time.Duration(u.warmSince.Load())
	if since == 0 || now-since >= slowStart {
		return 1
	}
	return max(coldest, float64(now-since)/float64(slowStart))
}

// leastLatency counts for any shorter one: below it, differences are noise.
const leastLatency = 50e-6

// cost is how long another request would take there, by what runs there and how fast it answers.
func (u *upstream) cost(now, halfLife time.Duration) float64 {
	return float64(u.outstanding.Load()+1) * max(u.latency.seconds(now, halfLife), leastLatency)
}
