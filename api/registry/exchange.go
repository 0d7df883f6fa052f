package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// maxBatch bounds how many changes one transaction commits.
const maxBatch = 500

// serve commits what waits: splits, what was changed while the database was away, and changes. Then it looks up.
func (r *Registry) serve(ctx context.Context) error {
	r.mu.Lock()
	splits, changes := slices.Clone(r.splitted), r.queue[:min(len(r.queue), maxBatch)]
	r.mu.Unlock()
	for _, c := range splits {
		if err := r.commitSplit(ctx, c); err != nil {
			return err
		}
		r.mu.Lock()
		r.splitted = slices.Delete(r.splitted, 0, 1)
		r.mu.Unlock()
	}
	if err := r.commit(ctx, changes); err != nil {
		return err // they stay in the queue
	}
	r.mu.Lock()
	r.queue = slices.Delete(r.queue, 0, len(changes))
	if len(r.queue) > 0 || len(r.splitted) > 0 || len(r.unstored) > 0 {
		r.wake()
	}
	asked := len(r.asking) > 0
	r.mu.Unlock()
	if !asked {
		return nil
	}
	return r.lookUp(ctx)
}

// lookUp applies what others have committed, and answers those who asked before.
func (r *Registry) lookUp(ctx context.Context) error {
	r.mu.Lock()
	asked := len(r.asking)
	r.mu.Unlock()
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer(r.asking[:asked])
	r.asking = slices.Delete(r.asking, 0, asked)
	return nil
}

// answer lets go of those who asked whether memory holds everything.
func (r *Registry) answer(asked []chan struct{}) {
	for _, a := range asked {
		close(a)
	}
}

// commit decides changes on top of everything that is committed, stores what they come to, and then puts it in force.
func (r *Registry) commit(ctx context.Context, changes []*change) error {
	for {
		now := r.now()
		outcomes, stored, verdicts := r.decide(changes, now)
		known := r.position.Load()
		if len(outcomes) == 0 {
			if len(changes) == 0 {
				return nil
			}
			if !r.alone() { // what is unknown here may be known by now
				if err := r.catchUp(ctx); err != nil {
					return err
				}
				if r.position.Load() != known {
					continue
				}
			}
		} else if err := r.store.write(ctx, r.id, known, now, outcomes); err != nil {
			if !errors.Is(err, errBehind) {
				return err
			}
			if err := r.catchUp(ctx); err != nil {
				return err
			}
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(outcomes) > 0 {
			r.position.Store(known + 1)
			r.publish(outcomes, stored)
		}
		for i, c := range changes {
			c.finish(verdicts[i])
		}
		return nil
	}
}

// decide works out what changes come to, one after the other, and what was changed in memory alone.
func (r *Registry) decide(changes []*change, now instant) (outcomes []outcome, stored []key, verdicts []verdict) {
	// While changes go to the database first, only this goroutine changes leases, so it reads them without mu.
	after := map[key]outcome{}
	for k, u := range r.unstored {
		if len(stored) == maxBatch {
			break
		}
		after[k] = outcome{key: k, next: r.leases[k], at: u.at, evicted: u.evicted}
		stored = append(stored, k)
	}
	for _, c := range changes {
		present := r.leases[c.key]
		if o, decided := after[c.key]; decided {
			present = o.next
		}
		next, v := c.decide(present, now)
		if v == changed || v == removed {
			after[c.key] = outcome{key: c.key, next: next, at: now, evicted: c.evicts}
		}
		verdicts = append(verdicts, v)
	}
	for _, o := range after {
		outcomes = append(outcomes, o)
	}
	sortOutcomes(outcomes)
	return outcomes, stored, verdicts
}

// publish puts in force what was committed. The caller holds mu.
func (r *Registry) publish(outcomes []outcome, stored []key) {
	now, differs := r.now(), false
	for _, o := range outcomes {
		if o.next != nil {
			o.next.position = r.position.Load()
		}
		if r.leases[o.key] != o.next {
			r.put(o.key, o.next, now)
			differs = true
		}
	}
	for _, k := range stored {
		delete(r.unstored, k)
	}
	if differs {
		r.announce()
	}
}

// catchUp applies what others have committed.
func (r *Registry) catchUp(ctx context.Context) error {
	known := r.position.Load()
	position, err := r.store.moved(ctx)
	if err != nil || position == known {
		return err
	}
	if position < known { // a restored database
		return errors.New("the database is an older one than before")
	}
	n, err := r.store.since(ctx, known, r.now)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.apply(n) {
		r.announce()
	}
	return nil
}

// resync makes memory equal to the database, but for what it knows better. From then on changes go there first.
func (r *Registry) resync(ctx context.Context) error {
	n, err := r.store.since(ctx, everything, r.now)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stored {
		r.tellOf(n)
		slices.SortFunc(n.leases, func(a, b storedLease) int { return cmp.Compare(a.changed, b.changed) })
	}
	r.splits = map[string]discovery.SplitState{}
	r.apply(n)
	here := map[key]bool{}
	for _, l := range n.leases {
		here[l.key] = true
	}
	for k := range r.leases {
		if !here[k] {
			r.reconcile(k, nil, nil)
		}
	}
	r.online, r.stored = true, true
	if r.cfg.Settle <= 0 {
		r.settled = true
	}
	r.announce()
	return nil
}

// tellOf puts what happened shortly before this registry started into the delta.
func (r *Registry) tellOf(n news) {
	now := r.now()
	var events []*lease
	for _, d := range n.departures {
		if now-d.left <= r.cfg.DeltaRetention {
			d.doc.ActionType = "DELETED"
			if l, err := newLease(d.key, d.doc, time.Second, d.left, &spoken{}); err == nil {
				events = append(events, l)
			}
		}
	}
	slices.SortFunc(events, func(a, b *lease) int { return cmp.Compare(a.changed, b.changed) })
	for _, l := range events {
		r.recent.add(l.changed, l)
	}
}

// apply takes over news and reports whether anything differs by them. The caller holds mu.
func (r *Registry) apply(n news) (differs bool) {
	here := map[key]bool{}
	for _, l := range n.leases {
		here[l.key] = true
	}
	for _, d := range n.departures {
		if !here[d.key] { // else it has come back since
			differs = r.reconcile(d.key, nil, &d) || differs
		}
	}
	for _, l := range n.leases {
		differs = r.reconcile(l.key, &l, nil) || differs
	}
	for _, s := range n.splits {
		r.splits[s.App] = s
		differs = true
	}
	r.position.Store(n.position)
	return differs
}

// reconcile makes memory's lease of a key what the database says: present, or gone, which farewell may tell more of. What was
// changed here while the database was away wins when it is newer; a lease that others ended comes back only when the instance
// has registered here since, or has renewed here since they evicted it. It reports whether anything differs.
func (r *Registry) reconcile(k key, present *storedLease, farewell *departure) bool {
	now, ours := r.now(), r.leases[k]
	mine, pending := r.unstored[k]
	switch {
	case present != nil:
		if pending && mine.at > present.changed {
			return false
		}
		delete(r.unstored, k)
		return r.take(present, now)
	case pending && mine.removed:
		delete(r.unstored, k)
		return false
	case pending && mine.registered && (farewell == nil || mine.at > farewell.left):
		return false
	case ours == nil:
		return false
	case farewell != nil && farewell.evicted && ours.spoke.here.Load() > int64(farewell.left):
		r.unstored[k] = unstored{at: now, registered: true}
		r.wake()
		return false
	}
	delete(r.unstored, k)
	r.put(k, nil, now)
	return true
}

// take makes a stored lease memory's own.
func (r *Registry) take(s *storedLease, now instant) bool {
	ours := r.leases[s.key]
	if ours != nil && ours.position == s.position && s.position > 0 {
		ours.spoke.at(s.renewed)
		return false
	}
	spoke := &spoken{}
	spoke.renewed.Store(int64(s.renewed))
	if ours != nil {
		spoke = ours.spoke
		spoke.at(s.renewed)
	}
	l, err := newLease(s.key, s.doc, s.duration, s.changed, spoke)
	if err != nil {
		r.log.Error("a stored lease cannot be used", "app", s.app, "instance", s.id, "error", err.Error())
		return false
	}
	l.position = s.position
	at := now
	if !r.stored {
		at = min(now, l.changed) // it was not told anew when this registry started
	}
	r.put(s.key, l, at)
	return true
}
