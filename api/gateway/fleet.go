package gateway

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// upstream is one instance as the gateway sees it.
type upstream struct {
	discovery.Instance
	// healthy is what the last check found, or what a refused connection has shown since.
	healthy     atomic.Bool
	outstanding atomic.Int64
	checkNow    chan struct{}
	checked     chan struct{} // closed after the first check
	stop        context.CancelFunc
}

// fleet is the instances of one service that are registered as UP, each under its own checks.
type fleet struct {
	app  string
	cfg  Config
	log  *slog.Logger
	http *http.Client
	// waiting are the requests that wait for an instance.
	waiting slots

	mu        sync.Mutex
	ctx       context.Context
	checks    sync.WaitGroup
	upstreams map[string]*upstream
	current   atomic.Pointer[lineup]
}

// lineup is a fleet at one moment. It does not change; the health of its instances does.
type lineup struct {
	instances []*upstream
	split     discovery.Split
	// changed is closed when the health of an instance has changed or another lineup is in force.
	changed chan struct{}
}

func newFleet(ctx context.Context, app string, cfg Config, log *slog.Logger) *fleet {
	f := &fleet{
		app: app, cfg: cfg, log: log, ctx: ctx, upstreams: map[string]*upstream{}, waiting: slots{most: cfg.Door.MaxWaiting},
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: cfg.ConnectTimeout}).DialContext,
				MaxIdleConnsPerHost: 1, IdleConnTimeout: cfg.IdleTimeout,
			},
		},
	}
	f.current.Store(&lineup{changed: make(chan struct{})})
	return f
}

// instanceKey tells instances apart: one that came back under its old id with another release is another one.
func instanceKey(i discovery.Instance) string { return i.ID + " " + i.Address() + " " + i.Release }

// sync takes over what the registry says: new instances are checked at once, gone ones get nothing more.
func (f *fleet) sync(app discovery.Application) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := map[string]*upstream{}
	for _, instance := range app.Instances {
		if instance.Status != discovery.StatusUp {
			continue
		}
		key := instanceKey(instance)
		u, known := f.upstreams[key]
		if !known {
			u = f.watch(instance)
		}
		next[key] = u
	}
	for key, u := range f.upstreams {
		if next[key] != u {
			u.stop()
		}
	}
	f.upstreams = next
	instances := make([]*upstream, 0, len(next))
	for _, key := range slices.Sorted(maps.Keys(next)) {
		instances = append(instances, next[key])
	}
	f.put(&lineup{instances: instances, split: app.Split})
}

// put makes a lineup the current one and wakes who waits for another one. The caller holds mu.
func (f *fleet) put(next *lineup) {
	next.changed = make(chan struct{})
	close(f.current.Swap(next).changed)
}

// watch makes an upstream whose health is followed until it is stopped.
func (f *fleet) watch(instance discovery.Instance) *upstream {
	ctx, stop := context.WithCancel(f.ctx)
	u := &upstream{Instance: instance, checkNow: make(chan struct{}, 1), checked: make(chan struct{}), stop: stop}
	f.checks.Go(func() { f.follow(ctx, u) })
	return u
}

// missesAllowed is how many checks in a row may go without an answer: a busy machine is not a broken one. An instance
// that refuses connections or says that it is not ready is out at once.
const missesAllowed = 1

func (f *fleet) follow(ctx context.Context, u *upstream) {
	misses := 0
	for first := true; ctx.Err() == nil; first = false {
		ready, timedOut := f.check(ctx, u)
		if ctx.Err() != nil {
			return
		}
		if timedOut {
			misses++
			ready = u.healthy.Load() && misses <= missesAllowed
		} else {
			misses = 0
		}
		f.mark(u, ready)
		if first {
			close(u.checked)
		}
		pause := time.NewTimer(f.cfg.CheckInterval*9/10 + rand.N(f.cfg.CheckInterval/5+1))
		select {
		case <-ctx.Done():
		case <-u.checkNow:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// check asks an instance whether it is ready.
func (f *fleet) check(ctx context.Context, u *upstream) (ready, timedOut bool) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.CheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Address()+"/actuator/health/readiness", nil)
	if err != nil {
		return false, false
	}
	res, err := f.http.Do(req)
	if err != nil {
		return false, isTimeout(err)
	}
	defer res.Body.Close()
	const enough = 64 << 10
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, enough)) // so that the connection can be used again
	return res.StatusCode == http.StatusOK, false
}

// mark notes what is known of an instance's health.
func (f *fleet) mark(u *upstream, healthy bool) {
	if was := u.healthy.Swap(healthy); was == healthy {
		return
	}
	f.log.Info("an instance has changed", "app", f.app, "instance", u.ID, "release", u.Release, "healthy", healthy)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.current.Load()
	f.put(&lineup{instances: now.instances, split: now.split})
}

// eject takes an instance that cannot be reached out of traffic until a check passes, and has it checked at once.
func (f *fleet) eject(u *upstream) {
	f.mark(u, false)
	f.recheck(u)
}

func (f *fleet) recheck(u *upstream) {
	select {
	case u.checkNow <- struct{}{}:
	default: // a check is asked for already
	}
}

// choose returns an instance for a request, waiting until deadline fires when there is none. The instance counts the
// request as outstanding; release it with done. Nil: there is none.
func (f *fleet) choose(ctx context.Context, wanted []string, tried []*upstream, deadline func() <-chan time.Time) *upstream {
	for {
		now := f.current.Load()
		if u := pick(now.instances, now.split, wanted, tried); u != nil {
			u.outstanding.Add(1)
			return u
		}
		if !f.waiting.take() { // the callers of other services shall not wait behind these
			return nil
		}
		select {
		case <-now.changed:
			f.waiting.give()
			tried = nil // an instance that was tried may have come back
		case <-deadline():
			f.waiting.give()
			return nil
		case <-ctx.Done():
			f.waiting.give()
			return nil
		}
	}
}

func (u *upstream) done() { u.outstanding.Add(-1) }

// healthy counts the instances that would take a request.
func (f *fleet) healthy() int {
	n := 0
	for _, u := range f.current.Load().instances {
		if u.healthy.Load() {
			n++
		}
	}
	return n
}

// firstChecks waits until every present instance has been checked once.
func (f *fleet) firstChecks(ctx context.Context) {
	for _, u := range f.current.Load().instances {
		select {
		case <-u.checked:
		case <-ctx.Done():
			return
		}
	}
}

// releases lists the releases that are registered.
func (f *fleet) releases() []string {
	releases := []string{}
	for _, u := range f.current.Load().instances {
		releases = append(releases, u.Release)
	}
	slices.Sort(releases)
	return slices.Compact(releases)
}
