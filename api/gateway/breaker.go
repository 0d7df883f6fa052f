package gateway

import (
	"sync/atomic"
	"time"
)

// breakerState is whether an instance is trusted, by what it has done to requests.
type breakerState int

const (
	closed   breakerState = iota // it gets requests
	open                         // it gets none
	halfOpen                     // it gets one at a time, to see
)

func (s breakerState) String() string { return [...]string{"closed", "open", "half-open"}[s] }

// breaker is the circuit breaker of one instance: when it opens, for how long, and how it closes again. It decides by
// itself only how the states follow each other; whether it may open is up to the fleet. It is not safe for concurrent use.
type breaker struct {
	state     breakerState
	until     time.Duration // open: the end of the ejection
	since     time.Duration // closed: since when
	ejections int           // one after the other, without having been sound for long in between
	passed    int           // half-open: trials that went well
}

// trip opens the breaker.
func (b *breaker) trip(now time.Duration, cfg UpstreamConfig) {
	if b.state == closed && now-b.since >= cfg.EjectTimeMax {
		b.ejections = 0
	}
	length := cfg.EjectTimeMax
	if doubled := cfg.EjectTime << min(b.ejections, 20); doubled > 0 {
		length = min(doubled, cfg.EjectTimeMax)
	}
	b.ejections++
	b.state, b.until, b.passed = open, now+length, 0
}

// probe half-opens the breaker when its time has come and a health check has passed.
func (b *breaker) probe(now time.Duration) {
	if b.state == open && now >= b.until {
		b.state, b.passed = halfOpen, 0
	}
}

// pass takes in that a trial went well; enough of them close the breaker.
func (b *breaker) pass(now time.Duration, cfg UpstreamConfig) {
	if b.state != halfOpen {
		return
	}
	if b.passed++; b.passed >= cfg.Trials {
		b.state, b.since = closed, now
	}
}

// faults weighs the proven faults of an instance against its good answers: each fault counts one, each good answer takes
// one away. It reaches a bound only when the faults are the greater part, however many requests there are, and costs a
// sound instance one look at a zero for each answer.
type faults struct{ n atomic.Int32 }

// good takes in an answer that was none of the instance's faults.
func (f *faults) good() {
	for n := f.n.Load(); n > 0; n = f.n.Load() {
		if f.n.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// proven takes in a fault, and returns by how many the faults exceed. They are not counted beyond most.
func (f *faults) proven(most int) int {
	for {
		n := f.n.Load()
		if int(n) >= most {
			return int(n)
		}
		if f.n.CompareAndSwap(n, n+1) {
			return int(n) + 1
		}
	}
}

func (f *faults) forget() { f.n.Store(0) }
