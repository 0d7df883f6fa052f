package registry

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// verdict is what a change comes to, given what is known.
type verdict int

const (
	unknown verdict = iota // there is no such lease
	same                   // nothing changes
	changed
	removed
)

// change is one decision on one lease. It may be taken more than once, on top of what others have committed meanwhile.
type change struct {
	key
	// decide returns the lease that there should be, given the present one, nil when there is none.
	decide func(present *lease, now instant) (*lease, verdict)
	// registers says that the instance itself asked for the lease, so that an earlier farewell is over.
	registers bool
	// evicts says that a removal is for want of renewals.
	evicts bool

	known bool
	done  chan struct{} // closed when the change is in force
}

// wall is the time of day of an instant in milliseconds.
func (r *Registry) wall(at instant) int64 { return time.Now().Add(at - r.now()).UnixMilli() }

// register takes an instance's word. An override stays; so does what an instance said later than what arrives now
// (com.netflix.eureka.registry.AbstractInstanceRegistry#register).
func (r *Registry) register(ctx context.Context, doc document) {
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
	duration = min(duration, r.cfg.MaxLease)
	spoke := &spoken{}
	r.submit(ctx, &change{key: k, registers: true, decide: func(present *lease, now instant) (*lease, verdict) {
		wall := strconv.FormatInt(r.wall(now), 10)
		next, from := doc, spoke
		if next.LastDirty == "" {
			next.LastDirty = text(wall)
		}
		next.Lease.Registered = number(r.wall(now))
		if present != nil {
			from = present.spoke
			if theirs, err := strconv.ParseInt(string(next.LastDirty), 10, 64); err == nil && theirs < present.lastDirty {
				from.hear(now)
				return present, same
			}
			next.Lease.Registered = number(present.registered)
			if isState(present.overridden) {
				next.Overridden = text(present.overridden)
			}
		}
		from.hear(now)
		if next.Overridden == "" {
			next.Overridden = discovery.StatusUnknown
		}
		next.Lease.ServiceUp = next.Lease.Registered
		next.ActionType, next.LastUpdated = "ADDED", text(wall)
		l, err := newLease(k, next, duration, now, from)
		if err != nil {
			return present, same // faultOf has encoded it before
		}
		return l, changed
	}})
}

// cancel removes an instance. False means that it is unknown.
func (r *Registry) cancel(ctx context.Context, k key) bool {
	return r.submit(ctx, &change{key: k, decide: func(present *lease, _ instant) (*lease, verdict) {
		if present == nil {
			return nil, unknown
		}
		return nil, removed
	}})
}

// edit changes the document of an instance. False means that it is unknown.
func (r *Registry) edit(ctx context.Context, k key, edit func(*document)) bool {
	return r.submit(ctx, &change{key: k, decide: func(present *lease, now instant) (*lease, verdict) {
		if present == nil {
			return nil, unknown
		}
		doc := present.document()
		edit(&doc)
		doc.ActionType, doc.LastUpdated = "MODIFIED", text(strconv.FormatInt(r.wall(now), 10))
		l, err := newLease(k, doc, present.duration, now, present.spoke)
		if err != nil {
			return present, same
		}
		return l, changed
	}})
}

// merged is metadata with additions.
func merged(base, added metadata) metadata {
	all := maps.Clone(map[string]string(base))
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, added)
	return all
}

// eviction removes an instance that is still overdue when its turn comes.
func (r *Registry) eviction(l *lease) *change {
	return &change{key: l.key, evicts: true, decide: func(present *lease, now instant) (*lease, verdict) {
		if present == nil || present.age(now) <= present.duration+r.cfg.slack() {
			return present, same
		}
		return nil, removed
	}}
}

// submit puts a change in force and reports whether its lease was known. It returns once the change is committed, or at once in
// memory while the database is away.
func (r *Registry) submit(ctx context.Context, c *change) (known bool) {
	c.done = make(chan struct{})
	r.enqueue(c)
	select {
	case <-c.done:
		return c.known
	case <-ctx.Done(): // the caller has gone, the change goes on
		return true
	}
}

func (r *Registry) enqueue(c *change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.online {
		r.applyUnstored(c)
		return
	}
	r.queue = append(r.queue, c)
	r.wake()
}

// applyUnstored takes a change in memory alone, to be stored later. The caller holds mu.
func (r *Registry) applyUnstored(c *change) {
	now := r.now()
	before := r.leases[c.key]
	next, verdict := c.decide(before, now)
	if verdict == changed || verdict == removed {
		r.put(c.key, next, now)
		r.unstored[c.key] = unstored{at: now, removed: verdict == removed, evicted: c.evicts,
			registered: verdict == changed && (c.registers || r.unstored[c.key].registered)}
		r.announce()
	}
	c.finish(verdict)
}

func (c *change) finish(v verdict) {
	c.known = v != unknown
	if c.done != nil {
		close(c.done)
	}
}

// unstored is what memory knows of a lease and the database does not.
type unstored struct {
	at                           instant
	removed, evicted, registered bool
}
