package registry

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = time.Second

func TestDeafness(t *testing.T) {
	t.Parallel()
	alive, dead := pulse{3 * second, 15 * second, 5 * second}, pulse{18 * second, 15 * second, 5 * second}
	slow := pulse{25 * second, 90 * second, 30 * second}
	many := func(n int, p pulse) (all []pulse) {
		for range n {
			all = append(all, p)
		}
		return all
	}
	join := func(parts ...[]pulse) (all []pulse) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name   string
		pulses []pulse
		deaf   bool
	}{
		{"nobody is there", nil, false},
		{"all live", many(8, alive), false},
		{"the only one is dead", many(1, dead), false},
		{"both are dead", many(2, dead), false},
		{"two of three are dead", join(many(1, alive), many(2, dead)), false},
		{"half of eight are dead", join(many(4, alive), many(4, dead)), false},
		{"five of eight are silent", join(many(3, alive), many(5, dead)), true},
		{"all of eight are silent", many(8, dead), true},
		{"the first of a silent crowd is over", join(many(1, dead), many(7, pulse{12500 * time.Millisecond, 15 * second, 5 * second})), true},
		{"a long silence before anybody's lease is over", many(8, pulse{14 * second, 15 * second, 5 * second}), true},
		{"a short one", many(8, pulse{8 * second, 15 * second, 5 * second}), false},
		{"two dead among those who speak seldom", join(many(2, dead), many(6, slow), many(1, alive)), false},
		{"nobody is heard, of whom most speak seldom", join(many(2, dead), many(10, slow)), true},
		{"one dead, the others just before they speak", join(many(1, dead), many(10, pulse{5 * second, 15 * second, 5 * second})), false},
	} {
		if got := deafness(c.pulses, 2*second); got != c.deaf {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// world plays instances that renew against the rule, second by second.
type world struct {
	slack, grace time.Duration
	members      []*player
	deafAt       time.Duration // last time
	doubted      bool
}

type player struct {
	pulse
	phase    time.Duration // of its renewals
	silentAt time.Duration // it speaks no more from then on
	evicted  time.Duration // 0: it was not
}

// step is one look at a time; nobody is heard between from and to.
func (w *world) step(now, from, to time.Duration) {
	var pulses []pulse
	var of []*player
	for _, m := range w.members {
		if m.evicted > 0 {
			continue
		}
		m.age += second
		if (now-m.phase)%m.interval == 0 && now < m.silentAt && (now < from || now >= to) {
			m.age = 0
		}
		pulses, of = append(pulses, m.pulse), append(of, m)
	}
	deaf := deafness(pulses, w.slack)
	if deaf {
		w.deafAt, w.doubted = now, true
	}
	undoubted := time.Duration(1<<63 - 1)
	if w.doubted {
		undoubted = now - w.deafAt
	}
	for i, p := range pulses {
		if over(p, deaf, undoubted, w.slack, w.grace) {
			of[i].evicted = now
		}
	}
}

const never = time.Duration(1 << 62)

func drawWorld(t *rapid.T, least int) *world {
	w := &world{slack: 2 * second, grace: 5 * time.Minute}
	leases := rapid.SampledFrom([][2]time.Duration{{15 * second, 5 * second}, {30 * second, 10 * second}, {90 * second, 30 * second}, {9 * second, 3 * second}})
	n := rapid.IntRange(least, 24).Draw(t, "instances")
	same := rapid.Bool().Draw(t, "all alike")
	kind := leases.Draw(t, "lease")
	for range n {
		if !same {
			kind = leases.Draw(t, "lease")
		}
		phase := second * time.Duration(rapid.IntRange(0, int(kind[1]/second)-1).Draw(t, "phase"))
		w.members = append(w.members, &player{pulse: pulse{lease: kind[0], interval: kind[1]}, phase: phase, silentAt: never})
	}
	return w
}

// TestMostStopAndComeBack: when the registry hears nobody for a while, nobody who lives is evicted, then or after.
func TestMostStopAndComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 3)
		for _, m := range w.members { // alike: with few instances of different leases nobody can tell (see the decision record)
			m.pulse.lease, m.pulse.interval = w.members[0].lease, w.members[0].interval
			m.phase %= m.interval
		}
		from := 200 * second
		to := from + second*time.Duration(rapid.IntRange(0, 290).Draw(t, "deaf for"))
		for now := second; now < to+400*second; now += second {
			w.step(now, from, to)
		}
		for _, m := range w.members {
			if m.evicted > 0 {
				t.Fatalf("evicted a living one at %s: %+v", m.evicted, m)
			}
		}
	})
}

// TestFewDeadGoInTime: as long as no more than two, or than half, are dead, they go within lease, slack and a look; and nobody else.
func TestFewDeadGoInTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 1)
		for _, m := range w.members {
			m.pulse.lease, m.pulse.interval = w.members[0].lease, w.members[0].interval
			m.phase %= m.interval
		}
		dead := rapid.IntRange(0, max(min(len(w.members), 2), len(w.members)/2)).Draw(t, "dead")
		for _, m := range w.members[:dead] {
			m.silentAt = 200*second + second*time.Duration(rapid.IntRange(0, 5).Draw(t, "dies at"))
		}
		for now := second; now < 500*second; now += second {
			w.step(now, never, never)
		}
		for i, m := range w.members {
			if i >= dead && m.evicted > 0 {
				t.Fatalf("evicted a living one: %+v", m)
			}
			if i < dead && (m.evicted == 0 || m.evicted > m.silentAt+m.lease+3*second) {
				t.Fatalf("%d of %d dead: not gone in time: %+v", dead, len(w.members), m)
			}
		}
	})
}

// TestAllDeadGoInTheEnd: also when most have died, and whatever their leases.
func TestAllDeadGoInTheEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, 1)
		dead := rapid.IntRange(1, len(w.members)).Draw(t, "dead")
		for _, m := range w.members[:dead] {
			m.silentAt = 200 * second
		}
		for now := second; now < 200*second+w.grace+100*second; now += second {
			w.step(now, never, never)
		}
		for _, m := range w.members[:dead] {
			if m.evicted == 0 || m.evicted > m.silentAt+m.lease+w.slack+w.grace+second {
				t.Fatalf("%d of %d dead: %+v", dead, len(w.members), m)
			}
		}
		for _, m := range w.members[dead:] {
			if m.evicted > 0 {
				t.Fatalf("evicted a living one: %+v", m)
			}
		}
	})
}
