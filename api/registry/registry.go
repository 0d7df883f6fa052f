package registry

import (
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/discovery"
)

// Registry is every lease and split, in memory. Follow keeps it on its database, Run looks for ended leases.
type Registry struct {
	cfg   Config
	log   *slog.Logger
	store store
	id    string
	now   func() instant
	epoch int64

	mu       sync.Mutex
	leases   map[key]*lease
	groups   map[string]*group // by application in lower case
	names    []string          // of the groups, sorted
	states   map[string]int    // instances by state
	recent   recent
	splits   map[string]discovery.SplitState
	revision int64
	changed  chan struct{} // closed at the next change
	settled  bool
	stored   bool // the database was read at least once

	// online says that changes go to the database first.
	online   bool
	queue    []*change
	splitted []*splitChange
	asking   []chan struct{} // closed when memory holds what is committed by then
	unstored map[key]unstored
	others   int     // registries that live besides this one, when last heard
	ticked   instant // when renewals were last exchanged
	// preserved is when evictions were last held because most heartbeats had stopped, here or at another registry.
	preserved     instant
	preserving    bool
	preservedOnce bool

	// soleUntil is the instant until which no other registry writes.
	soleUntil atomic.Int64
	// position of the last change in the database that memory holds. Only Follow changes it.
	position atomic.Int64
	// flushed is when renewals were last stored, and heard until when those of others were read, by the database's clock.
	flushed instant
	heard   time.Time

	packed    [packings]packed
	kick      chan struct{}
	closing   chan struct{}
	closeOnce sync.Once
}

// group is the instances of one application, sorted by id.
type group struct {
	name   string // in lower case
	leases []*lease
}

// New makes an empty registry on a database that need not be there yet.
func New(cfg Config, pool *pgxpool.Pool, log *slog.Logger) *Registry {
	started := time.Now()
	return &Registry{
		cfg: cfg, log: log, store: store{pool}, id: rand.Text(),
		// The clock does not begin at zero, which means never.
		now:    func() instant { return time.Since(started) + time.Nanosecond },
		leases: map[key]*lease{}, groups: map[string]*group{}, states: map[string]int{}, splits: map[string]discovery.SplitState{},
		unstored: map[key]unstored{}, recent: newRecent(cfg),
		// A later run starts higher than an earlier one ended: changes come slower than one a microsecond.
		revision: started.UnixMicro(), epoch: started.UnixMicro(),
		changed: make(chan struct{}), kick: make(chan struct{}, 1), closing: make(chan struct{}),
	}
}

// Close lets go of the callers that wait for changes.
func (r *Registry) Close() { r.closeOnce.Do(func() { close(r.closing) }) }

// announce counts a change and wakes who waits for it. The caller holds mu.
func (r *Registry) announce() {
	r.revision++
	close(r.changed)
	r.changed = make(chan struct{})
}

// put makes next the lease of a key; nil ends it. at is when that happened. The caller holds mu and announces.
func (r *Registry) put(k key, next *lease, at instant) {
	before := r.leases[k]
	if before == nil && next == nil {
		return
	}
	if before != nil {
		if r.states[before.status]--; r.states[before.status] == 0 {
			delete(r.states, before.status)
		}
	}
	g := r.groups[k.app]
	if g == nil {
		g = &group{name: k.app}
		r.groups[k.app] = g
		i, _ := slices.BinarySearch(r.names, k.app)
		r.names = slices.Insert(r.names, i, k.app)
	}
	i, found := slices.BinarySearchFunc(g.leases, k.id, func(l *lease, id string) int { return strings.Compare(l.id, id) })
	if next == nil {
		g.leases = slices.Delete(g.leases, i, i+1)
		delete(r.leases, k)
		r.recent.add(at, before.departed(at))
		if len(g.leases) == 0 {
			delete(r.groups, k.app)
			i, _ := slices.BinarySearch(r.names, k.app)
			r.names = slices.Delete(r.names, i, i+1)
		}
		return
	}
	if found {
		g.leases[i] = next
	} else {
		g.leases = slices.Insert(g.leases, i, next)
	}
	r.leases[k] = next
	r.states[next.status]++
	r.recent.add(at, next)
}

// renew prolongs a lease. False means that the instance must register: it is unknown here, or has changed since
// (com.netflix.eureka.resources.InstanceResource#validateDirtyTimestamp).
func (r *Registry) renew(k key, lastDirty int64) bool {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.leases[k]
	if !known {
		return false
	}
	l.spoke.hear(now)
	return lastDirty <= l.lastDirty
}

// listing is what a read answers: leases sorted by application and instance, at a revision. The leases are shared.
type listing struct {
	leases   []*lease
	revision int64
	hash     string
	now      instant
	wall     int64 // milliseconds, at now
}

// list returns the leases that pass the filter, all without one.
func (r *Registry) list(keep func(*lease) bool) listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	var leases []*lease
	if keep == nil {
		leases = make([]*lease, 0, len(r.leases))
	}
	for _, name := range r.names {
		for _, l := range r.groups[name].leases {
			if keep == nil || keep(l) {
				leases = append(leases, l)
			}
		}
	}
	return r.listing(leases)
}

// of returns the leases of an application.
func (r *Registry) of(app string) listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[app]
	if g == nil {
		return listing{}
	}
	return r.listing(slices.Clone(g.leases))
}

// find returns the lease of an instance; the application may be empty.
func (r *Registry) find(k key) listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, known := r.leases[k]; known {
		return r.listing([]*lease{l})
	}
	if k.app == "" {
		for _, name := range r.names {
			if l, known := r.leases[key{name, k.id}]; known {
				return r.listing([]*lease{l})
			}
		}
	}
	return listing{}
}

// delta returns what has changed lately, each instance as it is by now.
func (r *Registry) delta() listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	leases, whole := r.recent.list(r.now())
	slices.SortStableFunc(leases, func(a, b *lease) int { return a.compare(b.key) })
	l := r.listing(leases)
	if !whole {
		l.hash = "" // which no copy has, so that it is fetched in full
	}
	return l
}

// listing describes leases. The caller holds mu.
func (r *Registry) listing(leases []*lease) listing {
	now := r.now()
	return listing{leases: leases, revision: r.revision, hash: hash(r.states), now: now, wall: r.wall(now)}
}
