package gateway

import (
	"math/rand/v2"
	"slices"

	"github.com/school-sms/sms/internal/discovery"
)

// pick chooses the instance for one request among those that are registered: healthy, not tried before, of a release
// that is wanted or that the split gives the request to, and the one of two with less to do. Nil: there is none now.
func pick(registered []*upstream, split discovery.Split, wanted []string, tried []*upstream) *upstream {
	usable := func(u *upstream) bool { return u.healthy.Load() && !slices.Contains(tried, u) }
	if ofRelease(registered, wanted) {
		return lighter(registered, func(u *upstream) bool { return usable(u) && slices.Contains(wanted, u.Release) })
	}
	if !hasShare(registered, split) {
		return lighter(registered, usable)
	}
	release, found := draw(registered, split, usable)
	if !found {
		return nil
	}
	return lighter(registered, func(u *upstream) bool { return usable(u) && u.Release == release })
}

// ofRelease reports whether an instance of one of the releases is registered.
func ofRelease(registered []*upstream, releases []string) bool {
	return len(releases) > 0 && slices.ContainsFunc(registered, func(u *upstream) bool { return slices.Contains(releases, u.Release) })
}

// hasShare reports whether an instance of a release with a share is registered. A split for which there is none is an
// old one: it must not keep traffic from what runs now.
func hasShare(registered []*upstream, split discovery.Split) bool {
	return len(split) > 0 && slices.ContainsFunc(registered, func(u *upstream) bool { return split[u.Release] > 0 })
}

// draw chooses a release at random by its share, among those with a usable instance: the shares of the others go to
// them in proportion.
func draw(registered []*upstream, split discovery.Split, usable func(*upstream) bool) (release string, found bool) {
	var releases [8]string // more than a rollout ever has at once; append grows it if not
	candidates, total := releases[:0], 0
	for _, u := range registered {
		if split[u.Release] > 0 && !slices.Contains(candidates, u.Release) && usable(u) {
			candidates = append(candidates, u.Release)
			total += split[u.Release]
		}
	}
	if total == 0 {
		return "", false
	}
	point := rand.IntN(total)
	for _, release := range candidates {
		if point < split[release] {
			return release, true
		}
		point -= split[release]
	}
	return "", false // not reached: point is below the sum
}

// lighter draws two instances that fit and returns the one with fewer requests under way.
func lighter(registered []*upstream, fits func(*upstream) bool) *upstream {
	var buffer [32]*upstream
	candidates := buffer[:0]
	for _, u := range registered {
		if fits(u) {
			candidates = append(candidates, u)
		}
	}
	switch n := len(candidates); n {
	case 0:
		return nil
	case 1:
		return candidates[0]
	default:
		i := rand.IntN(n)
		j := rand.IntN(n - 1)
		if j >= i {
			j++
		}
		if candidates[j].outstanding.Load() < candidates[i].outstanding.Load() {
			return candidates[j]
		}
		return candidates[i]
	}
}
