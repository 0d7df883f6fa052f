package gateway

import (
	"hash/fnv"
	"slices"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// lineup is a fleet at one moment, ready to pick from. It does not change; when something does, another one is made.
type lineup struct {
	cfg       *UpstreamConfig
	instances []*upstream
	// The instances by how they stood: those that get their part of the requests, and those that are ejected though they
	// say that they are ready. Of the latter, some are on trial.
	sound, ejected, onTrial []*upstream
	// everybody are all instances, whatever their release.
	everybody group
	// shares are the registered releases to which the split gives a share. A split for which there is none is an old one:
	// it must not keep traffic from what runs now.
	shares []group
	sticky bool
	// turns counts the requests that a split has been applied to.
	turns *atomic.Uint64
	// emptySince is when the last instance went that could take a request, since the process began; 0: there is one.
	emptySince time.Duration
	// changed is closed when another lineup is in force.
	changed chan struct{}
}

// group is a set of instances that may stand for each other.
type group struct {
	release string
	share   int
	// seed is the release's part of the hash that gives users to releases.
	seed uint64
	// open are the instances that get requests. When all that are ready are ejected, they are these: an instance of
	// which too little is known is better than none.
	open []*upstream
	// trials get one read at a time, to see whether they have recovered.
	trials []*upstream
}

// newLineup makes the lineup of an application's instances as they stand now. The caller holds the fleet's mu.
func newLineup(cfg *UpstreamConfig, name string, instances []*upstream, app discovery.Application, now time.Duration) *lineup {
	l := &lineup{cfg: cfg, instances: instances, sticky: app.Sticky, turns: new(atomic.Uint64), changed: make(chan struct{})}
	for _, u := range instances {
		switch {
		case u.usable():
			l.sound = append(l.sound, u)
		case u.ready:
			l.ejected = append(l.ejected, u)
		}
		if u.onTrial() {
			l.onTrial = append(l.onTrial, u)
		}
	}
	l.everybody = l.groupOf(func(*upstream) bool { return true })
	for _, u := range instances {
		named := func(g group) bool { return g.release == u.Release }
		if app.Split[u.Release] == 0 || slices.ContainsFunc(l.shares, named) {
			continue
		}
		g := l.groupOf(func(other *upstream) bool { return other.Release == u.Release })
		g.release, g.share, g.seed = u.Release, app.Split[u.Release], hashOf(name, u.Release)
		l.shares = append(l.shares, g)
	}
	if len(l.everybody.open) == 0 {
		l.emptySince = now
	}
	return l
}

// groupOf makes the group of those instances that fit.
func (l *lineup) groupOf(fits func(*upstream) bool) group {
	g := group{open: filter(l.sound, fits), trials: filter(l.onTrial, fits)}
	if len(g.open) == 0 {
		g.open = filter(l.ejected, fits)
	}
	return g
}

func filter(from []*upstream, fits func(*upstream) bool) []*upstream {
	var fitting []*upstream
	for _, u := range from {
		if fits(u) {
			fitting = append(fitting, u)
		}
	}
	return fitting
}

// hashOf is the FNV-1a hash of texts, which is the same in every gateway of every version.
func hashOf(texts ...string) uint64 {
	h := fnv.New64a()
	for _, text := range texts {
		_, _ = h.Write([]byte(text)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}
