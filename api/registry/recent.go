package registry

import "time"

// recent is the changes that /apps/delta tells of, oldest first: those of the last minutes, and at most so many.
type recent struct {
	retention time.Duration
	max       int
	events    []event
	latest    map[key]uint64 // number of the latest event of a key
	number    uint64
	lost      instant // until then a change is missing that should be told
}

type event struct {
	at     instant
	number uint64
	lease  *lease
}

func newRecent(cfg Config) recent {
	return recent{retention: cfg.DeltaRetention, max: cfg.DeltaMax, latest: map[key]uint64{}}
}

// add notes a change that happened at a time, not before the earlier ones.
func (r *recent) add(at instant, l *lease) {
	r.number++
	r.events = append(r.events, event{at, r.number, l})
	r.latest[l.key] = r.number
	r.prune(at)
}

func (r *recent) prune(now instant) {
	n := 0
	for ; n < len(r.events); n++ {
		e := r.events[n]
		superseded := r.latest[e.lease.key] != e.number
		if !superseded && now-e.at <= r.retention {
			if len(r.latest) <= r.max {
				break
			}
			r.lost = max(r.lost, e.at+r.retention)
		}
		if !superseded {
			delete(r.latest, e.lease.key)
		}
		r.events[n] = event{} // for the collector
	}
	r.events = r.events[n:]
	if len(r.events) > 2*len(r.latest)+64 {
		r.compact()
	}
}

// compact drops the events that later ones of the same instance have made moot.
func (r *recent) compact() {
	kept := make([]event, 0, len(r.latest))
	for _, e := range r.events {
		if r.latest[e.lease.key] == e.number {
			kept = append(kept, e)
		}
	}
	r.events = kept
}

// list returns the last change of each instance, and whether none is missing.
func (r *recent) list(now instant) (leases []*lease, whole bool) {
	r.prune(now)
	leases = make([]*lease, 0, len(r.latest))
	for _, e := range r.events {
		if r.latest[e.lease.key] == e.number {
			leases = append(leases, e.lease)
		}
	}
	return leases, now >= r.lost
}
