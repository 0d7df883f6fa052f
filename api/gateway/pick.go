package gateway

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// wish is what one request needs of the instance that it goes to.
type wish struct {
	now time.Duration // since the process began
	// wanted are the releases that the request is restricted to; none: the split decides.
	wanted []string
	// user is who stays with one release where the split is sticky.
	user string
	// tried are instances that did not do.
	tried []*upstream
	// same is the release that another try must stay with; empty: any.
	same string
	// trial says that the request can be tried again elsewhere, and so may go to an instance that is on trial.
	trial bool
}

// pick chooses the instance for one request: of a release that is wanted or that the split gives the request to, not
// tried before, and the one of two that has less to do. Trial says that the instance is on trial: the caller says how it
// went. Nil: there is none now.
func (l *lineup) pick(w *wish) (u *upstream, trial bool) {
	g := l.group(w)
	if g == nil {
		return nil, false
	}
	if w.trial && len(w.tried) == 0 {
		for _, u := range g.trials {
			if u.trial.CompareAndSwap(false, true) {
				return u, true
			}
		}
	}
	return l.lighter(w, g.open), false
}

// group finds the instances that may take the request.
func (l *lineup) group(w *wish) *group {
	switch {
	case len(w.wanted) == 0 && w.same == "" && len(w.tried) == 0: // nearly always
		if len(l.shares) == 0 {
			return &l.everybody
		}
		return l.draw(w)
	case w.same != "":
		return l.narrowed(w, func(u *upstream) bool { return u.Release == w.same })
	case l.registered(w.wanted):
		return l.narrowed(w, func(u *upstream) bool { return slices.Contains(w.wanted, u.Release) })
	case len(l.shares) == 0:
		return l.narrowed(w, func(*upstream) bool { return true })
	default:
		release := ""
		if g := l.draw(w); g != nil {
			release = g.release
		}
		return l.narrowed(w, func(u *upstream) bool { return u.Release == release })
	}
}

// registered reports whether an instance of one of the releases is registered.
func (l *lineup) registered(releases []string) bool {
	return len(releases) > 0 && slices.ContainsFunc(l.instances, func(u *upstream) bool { return slices.Contains(releases, u.Release) })
}

// narrowed makes a group for requests that are out of the ordinary.
func (l *lineup) narrowed(w *wish, fits func(*upstream) bool) *group {
	g := l.groupOf(func(u *upstream) bool { return fits(u) && !slices.Contains(w.tried, u) })
	return &g
}

// draw chooses a release by its share, in turn or by the user, among those with an instance that can take the request:
// the shares of the others go to them in proportion.
func (l *lineup) draw(w *wish) *group {
	if l.sticky && w.user != "" {
		return l.drawFor(w)
	}
	total := 0
	for i := range l.shares {
		if g := &l.shares[i]; g.has(w.tried) {
			total += g.share
		}
	}
	// The multiples of the golden ratio fill the shares evenly, in whatever stretch of requests and for every second or
	// third of them, too. Chance would be a percent off in one of 200 times.
	const golden = 0x9e3779b97f4a7c15
	point := unit(l.turns.Add(1)*golden) * float64(total)
	var last *group
	for i := range l.shares {
		g := &l.shares[i]
		if !g.has(w.tried) {
			continue
		}
		if last = g; point < float64(g.share) {
			break
		}
		point -= float64(g.share)
	}
	return last
}

// drawFor chooses the release of a user. Each release gets a number that is distributed exponentially at the rate of its
// share, and the one whose number comes first gets the user (weighted rendezvous hashing). This makes the shares exact,
// and a share that grows keeps its users and takes from the others.
func (l *lineup) drawFor(w *wish) *group {
	user, best := hashOfUser(w.user), math.Inf(1)
	var chosen *group
	for i := range l.shares {
		g := &l.shares[i]
		if !g.has(w.tried) {
			continue
		}
		if first := -math.Log(1-pointOf(user, g.seed)) / float64(g.share); first < best {
			chosen, best = g, first
		}
	}
	return chosen
}

// has reports whether there is an instance besides those that were tried.
func (g *group) has(tried []*upstream) bool {
	if len(tried) == 0 {
		return len(g.open) > 0
	}
	return slices.ContainsFunc(g.open, func(u *upstream) bool { return !slices.Contains(tried, u) })
}

// hashOfUser is the FNV-1a hash of a user, without the allocation of the standard library's.
func hashOfUser(user string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(user) {
		h = (h ^ uint64(user[i])) * prime
	}
	return h
}

// pointOf mixes a user and a release into a number in [0, 1), by the finisher of SplitMix64.
func pointOf(user, seed uint64) float64 {
	x := user ^ seed
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return unit(x)
}

// unit makes a number in [0, 1) of evenly distributed bits.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }

// lighter draws two of the instances and returns the one with less to do.
func (l *lineup) lighter(w *wish, from []*upstream) *upstream {
	n := len(from)
	switch n {
	case 0:
		return nil
	case 1:
		return from[0]
	}
	i := rand.IntN(n)
	for range 3 { // instances in their slow start stand back
		if from[i].warmth(w.now, l.cfg.SlowStart) > rand.Float64() {
			break
		}
		i = rand.IntN(n)
	}
	j := rand.IntN(n - 1)
	if j >= i {
		j++
	}
	first, second := from[i], from[j]
	if warmth := second.warmth(w.now, l.cfg.SlowStart); warmth < 1 && rand.Float64() >= warmth {
		return first
	}
	// The second one must be clearly better: what differs by less than a fifth differs by chance, and equal instances
	// are to share evenly.
	const clearly = .8
	if second.cost(w.now, l.cfg.LatencyHalfLife) < clearly*first.cost(w.now, l.cfg.LatencyHalfLife) {
		return second
	}
	return first
}
