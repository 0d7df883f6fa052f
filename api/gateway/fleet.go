package gateway

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// fleet is the instances of one service that are registered as UP, each under its own checks.
type fleet struct {
	app    string
	cfg    Config
	log    *slog.Logger
	http   *http.Client
	budget *budget
	// waiting are the requests that wait for an instance.
	waiting slots
	counts  ejectionCounts

	mu          sync.Mutex
	ctx         context.Context
	checks      sync.WaitGroup
	application discovery.Application
	upstreams   map[string]*upstream
	current     atomic.Pointer[lineup]
}

func newFleet(ctx context.Context, app string, cfg Config, log *slog.Logger) *fleet {
	f := &fleet{
		app: app, cfg: cfg, log: log, ctx: ctx, upstreams: map[string]*upstream{}, budget: newBudget(cfg.UpstreamConfig),
		waiting: slots{most: cfg.MaxWaiting},
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: cfg.ConnectTimeout}).DialContext,
				MaxIdleConnsPerHost: 1, IdleConnTimeout: cfg.IdleTimeout,
			},
		},
	}
	f.current.Store(newLineup(&f.cfg.UpstreamConfig, app, nil, discovery.Application{}, sinceStart()))
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
	f.upstreams, f.application = next, app
	f.lineUp()
}

// lineUp puts another lineup in force and wakes who waits for one. The caller holds mu.
func (f *fleet) lineUp() {
	instances := make([]*upstream, 0, len(f.upstreams))
	for _, key := range slices.Sorted(maps.Keys(f.upstreams)) {
		instances = append(instances, f.upstreams[key])
	}
	next := newLineup(&f.cfg.UpstreamConfig, f.app, instances, f.application, sinceStart())
	last := f.current.Load()
	next.turns = last.turns
	if next.emptySince != 0 && last.emptySince != 0 {
		next.emptySince = last.emptySince
	}
	close(f.current.Swap(next).changed)
}

// watch makes an upstream whose health is followed until it is stopped.
func (f *fleet) watch(instance discovery.Instance) *upstream {
	ctx, stop := context.WithCancel(f.ctx)
	u := &upstream{Instance: instance, address: instance.Address(), socket: instance.Socket(), checkNow: make(chan struct{}, 1), checked: make(chan struct{}), stop: stop}
	f.checks.Go(func() { f.follow(ctx, u) })
	return u
}

// choose returns an instance for a request, waiting for one if it may. The instance counts the request as outstanding;
// release it with done. Trial says that the caller must tell how the request went there. Nil: there is none.
func (f *fleet) choose(ctx context.Context, c *call, w *wish) (u *upstream, trial bool) {
	for {
		now := f.current.Load()
		if now.sticky && w.user == "" {
			w.user = identity.FromContext(ctx).User
		}
		if u, trial = now.pick(w); u != nil {
			u.outstanding.Add(1)
			return u, trial
		}
		if w.same != "" || !f.await(ctx, c, now) { // there is an answer to give in the first case
			return nil, false
		}
		w.now, w.tried = sinceStart(), nil // an instance that was tried may have come back
	}
}

// await waits until another lineup is in force, and reports whether there is one before the request has waited long
// enough.
func (f *fleet) await(ctx context.Context, c *call, now *lineup) bool {
	if c.timer == nil {
		patience := f.patience(now)
		if patience <= 0 {
			return false
		}
		c.timer = time.NewTimer(patience)
	}
	if !f.waiting.take() { // the callers of other services shall not wait behind these
		return false
	}
	defer f.waiting.give()
	select {
	case <-now.changed:
		return true
	case <-c.timer.C:
	case <-ctx.Done():
	}
	return false
}

// patience is how long a request waits that comes now. Where nothing has come back for twice the time that a request
// would wait, waiting only holds up the caller.
func (f *fleet) patience(now *lineup) time.Duration {
	patience := f.cfg.WaitForInstance
	if now.emptySince != 0 {
		patience = min(patience, now.emptySince+2*f.cfg.WaitForInstance-sinceStart())
	}
	return patience
}

// healthy counts the instances that would take a request.
func (f *fleet) healthy() int { return len(f.current.Load().everybody.open) }

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
