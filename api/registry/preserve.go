package registry

import (
	"context"
	"time"
)

// pulse is what is known of the heartbeats of one instance.
type pulse struct {
	// age of the last renewal; lease is how long one is good for, interval how often the instance means to renew.
	age, lease, interval time.Duration
}

const (
	// few instances may fall silent together without anybody doubting the registry.
	few = 2
	// due so many renewals in a time in which none came, the registry must be deaf.
	due = 3
)

// overdue is how long ago a lease was over.
func (p pulse) overdue(slack time.Duration) time.Duration { return p.age - p.lease - slack }

// late says that a renewal is missing even if one got lost or came by another registry.
func (p pulse) late(slack time.Duration) bool { return p.age > p.interval+p.interval/4+slack }

// deafness decides whether the registry has stopped hearing, rather than instances have stopped speaking. It looks back over a
// window that is shorter than what has passed, at the end of the first lease, since all stopped together: a third of that lease.
// It is asked before that too: when the first lease ends, half of the others may have come back already.
//
// Within the window those who renew often enough have spoken or are silent; of those who renew seldom only some can be told. The
// registry is deaf when more than a few are silent, and they are more than have spoken; or when it has heard nobody for longer
// than the window although three renewals were due.
func deafness(pulses []pulse, slack time.Duration) bool {
	window, quiet := time.Duration(-1), time.Duration(-1)
	for _, p := range pulses {
		if p.late(slack) && (window < 0 || p.lease/3+slack < window) {
			window = p.lease/3 + slack
		}
		if quiet < 0 || p.age < quiet {
			quiet = p.age
		}
	}
	if window < 0 {
		return false // nobody misses a renewal
	}
	silent, spoken, expected := 0, 0, 0.0
	for _, p := range pulses {
		switch {
		case p.age <= window:
			spoken++
		case p.interval+p.interval/4 <= window || p.late(slack):
			silent++
		}
		expected += min(1, float64(quiet)/float64(max(p.interval, 1)))
	}
	return silent > few && silent > spoken || quiet > window && expected >= due
}

// over decides whether a lease ends. deaf says that the registry seems not to hear; undoubted is how long ago it last seemed so:
// then everybody first gets the time to renew once more. Nobody is kept longer than grace.
func over(p pulse, deaf bool, undoubted, slack, grace time.Duration) bool {
	overdue := p.overdue(slack)
	if overdue <= 0 {
		return false
	}
	if overdue > grace {
		return true
	}
	return !deaf && undoubted > p.interval+p.interval/4+slack
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
		late := now - last - r.cfg.pause()
		last = now
		for _, ended := range r.inspect(max(late, 0)) {
			r.log.Warn("an instance has not renewed its lease", "app", ended.app, "instance", ended.id)
			r.enqueue(ended)
		}
	}
}

// inspect finds the leases that are over. late is how much longer than meant the registry itself took to come here: heartbeats
// could not arrive in that time, so every lease gets it back.
func (r *Registry) inspect(late time.Duration) (ended []*change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if !r.settled && r.stored && now >= r.cfg.Settle {
		r.settled = true
		r.announce()
	}
	leases := make([]*lease, 0, len(r.leases))
	pulses := make([]pulse, 0, len(r.leases))
	for _, l := range r.leases {
		if late > 0 {
			l.spoke.renewed.Store(min(int64(now), l.spoke.renewed.Load()+int64(late)))
		}
		leases = append(leases, l)
		pulses = append(pulses, pulse{l.age(now), l.duration, l.interval})
	}
	if !r.mayEvict(now) {
		return nil
	}
	r.doubt(deafness(pulses, r.cfg.slack()), now)
	undoubted := time.Duration(1<<63 - 1)
	if r.preservedOnce {
		undoubted = now - r.preserved
	}
	for i, p := range pulses {
		if over(p, r.preserving, undoubted, r.cfg.slack(), r.cfg.PreserveGrace) {
			ended = append(ended, r.eviction(leases[i]))
		}
	}
	return ended
}

// doubt notes whether evictions are held. The caller holds mu.
func (r *Registry) doubt(deaf bool, now instant) {
	if deaf {
		r.preserved, r.preservedOnce = now, true
	}
	if deaf != r.preserving {
		r.preserving = deaf
		if deaf {
			r.log.Warn("most heartbeats have stopped at once: nobody is evicted for now", "grace", r.cfg.PreserveGrace.String())
		} else {
			r.log.Info("heartbeats come again: evicting as usual")
		}
	}
}

// mayEvict says whether this registry knows of all renewals: where there are others, only the database tells it of theirs.
// The caller holds mu.
func (r *Registry) mayEvict(now instant) bool {
	if r.others == 0 {
		return true
	}
	return r.online && now-r.ticked <= r.cfg.slack()
}
