package gateway

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// How many checks in a row may go without an answer. A busy machine is not a broken one: an instance that answers
// requests meanwhile may miss one check. One that misses many is as good as gone, and not only ejected.
const (
	missesAllowed = 1
	missesGone    = 5
)

// finding is what a check has found.
type finding int

const (
	isReady   finding = iota
	notReady          // it says so, or refuses connections
	noAnswer          // in the time of a check
	notTested         // the gateway itself could not ask
)

// follow checks an instance again and again until it is no longer registered.
func (f *fleet) follow(ctx context.Context, u *upstream) {
	for first := true; ctx.Err() == nil; first = false {
		started := sinceStart()
		found := f.check(ctx, u)
		if ctx.Err() != nil {
			return
		}
		f.judge(u, found, started)
		if first {
			close(u.checked)
		}
		f.pause(ctx, u)
	}
}

// pause waits for the next check: its time, or that one is asked for. Those do not follow each other at once, or an
// instance that closes every connection would be checked all the time.
func (f *fleet) pause(ctx context.Context, u *upstream) {
	least := time.NewTimer(f.cfg.CheckInterval / 10)
	defer least.Stop()
	select {
	case <-ctx.Done():
		return
	case <-least.C:
	}
	rest := time.NewTimer(f.cfg.CheckInterval*8/10 + rand.N(f.cfg.CheckInterval/5+1))
	defer rest.Stop()
	select {
	case <-ctx.Done():
	case <-u.checkNow:
	case <-rest.C:
	}
}

// check asks an instance whether it is ready.
func (f *fleet) check(ctx context.Context, u *upstream) finding {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.CheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Address()+"/actuator/health/readiness", nil)
	if err != nil {
		return notReady
	}
	res, err := f.http.Do(req)
	switch {
	case err == nil:
	case isLocal(err):
		return notTested
	case isTimeout(err):
		return noAnswer
	default:
		return notReady
	}
	defer res.Body.Close()
	const enough = 64 << 10
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, enough)) // so that the connection can be used again
	if res.StatusCode != http.StatusOK {
		return notReady
	}
	return isReady
}

// judge takes in what a check that was started at a time has found.
func (f *fleet) judge(u *upstream, found finding, started time.Duration) {
	f.change(u, func() (reason string) {
		switch found {
		case isReady:
			u.ready, u.silent, u.misses = true, false, 0
			u.breaker.probe(sinceStart())
		case notReady:
			u.ready, u.misses = false, 0
			return ejectedUnready
		case noAnswer:
			u.misses++
			// With requests under way of which none was answered either, one check is enough.
			deaf := u.outstanding.Load() > 0 && time.Duration(u.answered.Load()) < started
			switch {
			case u.misses >= missesGone:
				u.ready, u.silent = false, false
			case (u.misses > missesAllowed || deaf) && f.mayEject(u):
				u.silent = true
			}
			return ejectedSilent
		}
		return ""
	})
}

// refused takes an instance that refuses connections out until a check passes, and has it checked at once.
func (f *fleet) refused(u *upstream) {
	f.change(u, func() string {
		u.ready = false
		return ejectedRefused
	})
	f.recheck(u)
}

// proven takes in that an instance failed a request that another one of its release answered well. When there are too
// many of them it is ejected, if enough others are left.
func (f *fleet) proven(u *upstream) {
	if u.faults.proven(f.cfg.EjectAfter) < f.cfg.EjectAfter {
		return
	}
	f.change(u, func() string {
		if u.breaker.state == closed && f.mayEject(u) {
			u.breaker.trip(sinceStart(), f.cfg.UpstreamConfig)
			u.faults.forget()
		}
		return ejectedFaults
	})
}

// mayEject reports whether an instance may be ejected for what is not certain: enough others of its release must be
// left, and the last one always stays. What is wrong with all of them is not an instance's fault. The caller holds mu.
func (f *fleet) mayEject(u *upstream) bool {
	registered, left := 0, 0
	for _, other := range f.upstreams {
		if other.Release != u.Release {
			continue
		}
		registered++
		if other != u && other.usable() {
			left++
		}
	}
	return left > 0 && (registered-left)*100 <= registered*f.cfg.MaxEjectedPercent
}

// outcome is how a trial went.
type outcome int

const (
	undecided outcome = iota // the request failed elsewhere too, or was broken off by its caller
	passed
	failed
)

// tried takes in how the trial of an instance went, and lets the next one begin.
func (f *fleet) tried(u *upstream, went outcome) {
	if went != undecided {
		f.change(u, func() string {
			if went == passed {
				u.breaker.pass(sinceStart(), f.cfg.UpstreamConfig)
				return ""
			}
			if u.breaker.state == halfOpen {
				u.breaker.trip(sinceStart(), f.cfg.UpstreamConfig)
			}
			return ejectedFaults
		})
	}
	u.trial.Store(false)
}

// change changes the standing of an instance. When that makes a difference, it is logged, counted by the reason that
// alter returns, and in force from then on.
func (f *fleet) change(u *upstream, alter func() (reason string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, was := u.state(), u.usable()
	reason := alter()
	state, is := u.state(), u.usable()
	if state == before {
		return
	}
	if is && !was {
		f.warmUp(u)
	}
	if was && !is {
		f.counts.add(reason)
	}
	f.log.Info("an instance has changed", "app", f.app, "instance", u.ID, "release", u.Release, "was", before, "is", state)
	f.lineUp()
}

// warmUp begins the slow start of an instance, which is taken to be as fast as the others until it is known. The caller
// holds mu.
func (f *fleet) warmUp(u *upstream) {
	now := sinceStart()
	u.warmSince.Store(int64(now))
	u.faults.forget()
	sum, known := 0., 0
	for _, other := range f.upstreams {
		if seconds := other.latency.seconds(now, f.cfg.LatencyHalfLife); other != u && seconds > 0 {
			sum, known = sum+seconds, known+1
		}
	}
	if known > 0 {
		u.latency.seed(now, sum/float64(known))
	}
}

// recheck has an instance checked soon.
func (f *fleet) recheck(u *upstream) {
	select {
	case u.checkNow <- struct{}{}:
	default: // a check is asked for already
	}
}
