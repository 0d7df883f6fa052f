package registry

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/discovery"
)

// key names a lease. app is in lower case.
type key struct{ app, id string }

type lease struct {
	doc        document
	duration   time.Duration
	registered time.Time
	renewed    time.Time
}

// shown is the document with the times that move.
func (l *lease) shown() document {
	d := l.doc
	d.Lease.Duration, d.Lease.LastRenewal = number(l.duration.Seconds()), number(l.renewed.UnixMilli())
	return d
}

// Registry is every lease and split, in memory. Run keeps it going.
type Registry struct {
	cfg   Config
	log   *slog.Logger
	store store
	now   func() time.Time

	mu       sync.Mutex
	leases   map[key]*lease
	splits   map[string]discovery.SplitState
	revision int64
	epoch    int64
	started  time.Time
	settled  bool
	stored   bool
	changed  chan struct{} // closed at the next change
	encoded  []byte        // the snapshot of this revision, once somebody has asked for it

	splitting sync.Mutex // one change of splits at a time, from the database to memory
	writes    *writes
	closing   chan struct{}
	closeOnce sync.Once
}

// New makes an empty registry on a database that need not be there yet.
func New(cfg Config, pool *pgxpool.Pool, log *slog.Logger) *Registry {
	now := time.Now()
	return &Registry{
		cfg: cfg, log: log, store: store{pool}, now: time.Now,
		leases: map[key]*lease{}, splits: map[string]discovery.SplitState{},
		// A later run starts higher than an earlier one ended: changes come slower than one a microsecond.
		revision: now.UnixMicro(), epoch: now.UnixMicro(), started: now,
		changed: make(chan struct{}), writes: newWrites(), closing: make(chan struct{}),
	}
}

// Close lets go of the callers that wait for changes.
func (r *Registry) Close() { r.closeOnce.Do(func() { close(r.closing) }) }

// change counts a change and wakes who waits for it. The caller holds mu.
func (r *Registry) change() {
	r.revision++
	r.encoded = nil
	close(r.changed)
	r.changed = make(chan struct{})
}

// register adds an instance, or takes its new word for an old one. An override stays.
func (r *Registry) register(doc document) (written <-chan struct{}) {
	now := r.now()
	k := key{strings.ToLower(string(doc.App)), string(doc.InstanceID)}
	doc.App = text(strings.ToUpper(string(doc.App)))
	if doc.Status == "" {
		doc.Status = discovery.StatusUp
	}
	doc.own = doc.Status
	duration := time.Duration(doc.Lease.Duration) * time.Second
	if duration <= 0 {
		duration = r.cfg.DefaultLease
	}
	l := &lease{doc: doc, duration: min(duration, r.cfg.MaxLease), registered: now, renewed: now}

	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.leases[k]
	if known {
		l.registered = before.registered
		if isState(before.doc.Overridden) {
			l.doc.Overridden = before.doc.Overridden
		}
	}
	if l.doc.Overridden == "" {
		l.doc.Overridden = discovery.StatusUnknown
	}
	l.doc.Status, l.doc.ActionType = l.doc.effective(), "ADDED"
	l.doc.LastUpdated = text(strconv.FormatInt(now.UnixMilli(), 10))
	l.doc.Lease.Registered, l.doc.Lease.ServiceUp = number(l.registered.UnixMilli()), number(l.registered.UnixMilli())
	r.leases[k] = l
	r.change()
	return r.writes.mark(k)
}

// isState reports whether an override is in force.
func isState(s text) bool { return s != "" && s != discovery.StatusUnknown }

// renew prolongs a lease. False means that the instance must register: it is unknown, or has changed since
// (com.netflix.eureka.resources.InstanceResource#validateDirtyTimestamp).
func (r *Registry) renew(k key, lastDirty string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.leases[k]
	if !known {
		return false
	}
	theirs, err := strconv.ParseInt(lastDirty, 10, 64)
	ours, err2 := strconv.ParseInt(string(l.doc.LastDirty), 10, 64)
	if err == nil && err2 == nil && theirs > ours {
		return false
	}
	l.renewed = r.now()
	return true
}

// cancel removes an instance.
func (r *Registry) cancel(k key) (written <-chan struct{}, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.leases[k]; !known {
		return nil, false
	}
	delete(r.leases, k)
	r.change()
	return r.writes.mark(k), true
}

// edit changes the document of an instance.
func (r *Registry) edit(k key, change func(*document)) (written <-chan struct{}, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.leases[k]
	if !known {
		return nil, false
	}
	next := *l
	change(&next.doc)
	next.doc.Status, next.doc.ActionType = next.doc.effective(), "MODIFIED"
	next.doc.LastUpdated = text(strconv.FormatInt(r.now().UnixMilli(), 10))
	r.leases[k] = &next
	r.change()
	return r.writes.mark(k), true
}

// evict removes the instances whose lease has run out. late is how much longer than meant the registry itself took to
// come here: heartbeats could not arrive in that time, so every lease gets it back.
func (r *Registry) evict(late time.Duration) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, l := range r.leases {
		if late > 0 {
			l.renewed = l.renewed.Add(late)
		}
		if now.Sub(l.renewed) > l.duration {
			delete(r.leases, k)
			r.writes.mark(k)
			r.change()
			r.log.Warn("an instance has not renewed its lease", "app", k.app, "instance", k.id, "lease", l.duration.String())
		}
	}
	if !r.settled && r.stored && now.Sub(r.started) >= r.cfg.Settle {
		r.settled = true
		r.change()
	}
}

// documents returns what passes the filter, sorted by application and instance, and the revision.
func (r *Registry) documents(keep func(key, *lease) bool) ([]document, int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []key
	for k, l := range r.leases {
		if keep == nil || keep(k, l) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.app != b.app {
			return strings.Compare(a.app, b.app)
		}
		return strings.Compare(a.id, b.id)
	})
	documents := make([]document, len(keys))
	for i, k := range keys {
		documents[i] = r.leases[k].shown()
	}
	return documents, r.revision
}

// loaded takes over what the database held when the registry last ran: each lease in full from now, but for instances
// that have spoken since.
func (r *Registry) loaded(leases map[key]*lease, splits map[string]discovery.SplitState) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, l := range leases {
		if r.writes.pending(k) {
			continue
		}
		l.renewed = now
		r.leases[k] = l
	}
	r.splits = maps.Clone(splits)
	r.stored = true
	if r.cfg.Settle <= 0 {
		r.settled = true
	}
	r.change()
}

// Run looks for ended leases until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(r.cfg.EvictInterval)
	defer tick.Stop()
	last := r.now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.now()
		late := now.Sub(last) - 2*r.cfg.EvictInterval
		last = now
		r.evict(max(late, 0))
	}
}
