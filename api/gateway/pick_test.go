package gateway

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"pgregory.net/rapid"
)

// TestSlowStart looks at an instance's part of the requests while it warms up.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	cfg := testUpstreams
	cfg.SlowStart = 10 * time.Second
	three := registered("r", "r", "r")
	l := newLineup(&cfg, "app", three, discovery.Application{}, 0)
	const began = time.Hour
	three[2].warmSince.Store(int64(began))
	last := 0.
	for _, c := range []struct {
		after time.Duration
		want  float64
	}{{0, .1}, {time.Second, .1}, {2500 * time.Millisecond, .25}, {5 * time.Second, .5}, {7500 * time.Millisecond, .75}, {10 * time.Second, 1}, {time.Hour, 1}} {
		const draws = 40_000
		n := 0
		for range draws {
			if u, _ := l.pick(&wish{now: began + c.after}); u == three[2] {
				n++
			}
		}
		got := float64(n) / draws // without load, the part is that of a weight among those of the others
		if want := c.want / (2 + c.want); math.Abs(got-want) > .03 || got < last-.01 {
			t.Errorf("after %s it has %.3f of the requests, want %.3f", c.after, got, want)
		}
		last = got
	}
	for _, u := range three {
		u.warmSince.Store(int64(began))
	}
	counts := map[*upstream]int{}
	for range 30_000 {
		u, _ := l.pick(&wish{now: began})
		counts[u]++
	}
	for _, u := range three {
		if n := counts[u]; n < 9_000 || n > 11_000 {
			t.Errorf("all of them begin, and one has %d of 30000", n)
		}
	}
}

// TestLatency follows the average through what happens to instances.
func TestLatency(t *testing.T) {
	t.Parallel()
	const fast, slow, halfLife = 2 * time.Millisecond, 40 * time.Millisecond, 3 * time.Second
	now := time.Hour
	var l latency
	about := func(what string, want, within time.Duration) {
		t.Helper()
		if got := time.Duration(l.seconds(now, halfLife) * float64(time.Second)); got < want-within || got > want+within {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	answer := func(n int, took time.Duration) {
		for range n {
			now += time.Millisecond
			l.observe(now, took, halfLife)
		}
	}
	answer(100, fast)
	about("always fast", fast, fast/20)
	answer(1, 10*time.Second)
	about("one request that is slow by its nature", 9*time.Millisecond, time.Millisecond)
	answer(30, fast)
	about("and fast ones after it", fast, fast/5)
	answer(3, slow)
	about("slow for three answers", slow, slow/2)
	answer(20, slow)
	about("slow", slow, slow/20)
	now += 5 * halfLife
	about("not asked for long", slow/32, slow/300)
	answer(1, slow)
	about("tried again, and still slow", slow, slow/10)
	now += 5 * halfLife
	answer(1, fast)
	about("tried again, and fast", fast, fast)
	now += 60 * 24 * time.Hour // the clock of the average has started anew
	answer(100, fast)
	about("much later", fast, fast/20)
}

// TestLatencyStaysWithinWhatWasSeen: no order of answers makes an average that none of them had.
func TestLatencyStaysWithinWhatWasSeen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var l latency
		now, least, most := time.Duration(0), math.Inf(1), 0.
		for range rapid.IntRange(1, 50).Draw(t, "answers") {
			now += time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pause"))
			took := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "took"))
			least, most = min(least, took.Seconds()), max(most, took.Seconds())
			l.observe(now, took, time.Second)
			if got := l.seconds(now, time.Second); got < least*.999 || got > most*1.001 {
				t.Fatalf("%g s, of answers from %g to %g s", got, least, most)
			}
		}
	})
}

// TestSlowInstanceIsShunned gives one of three instances twenty times the latency, at several loads: what it still gets
// must be far below one in a hundred.
func TestSlowInstanceIsShunned(t *testing.T) {
	t.Parallel()
	for _, busy := range []int64{0, 4, 32} {
		three := registered("r", "r", "r")
		for i, u := range three {
			u.latency.seed(time.Hour, []float64{.002, .002, .04}[i])
			u.outstanding.Store(busy)
		}
		three[2].outstanding.Store(busy / 20) // as many as make its cost that of the others
		l := lineupOf(nil, false, three...)
		n := 0
		for range 10_000 {
			if u, _ := l.pick(&wish{now: time.Hour}); u == three[2] {
				n++
			}
		}
		if busy < 19 && n > 0 {
			t.Errorf("with %d requests at each other one, the slow instance got %d of 10000", busy, n)
		}
	}
}

// TestStickyUsersAreKnownForever keeps the mapping itself: gateways of different versions run side by side in a rollout.
func TestStickyUsersAreKnownForever(t *testing.T) {
	t.Parallel()
	l := lineupOf(discovery.Split{"old": 50, "new": 50}, true, registered("old", "new")...)
	got := ""
	for i := range 32 {
		got += l.release(wish{user: fmt.Sprint("user-", i)})[:1]
	}
	const want = "nnoonnnnononnonnonnnnonnoononnnn"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func benchmarkLineup(n int, split discovery.Split, sticky bool) *lineup {
	releases := make([]string, n)
	for i := range releases {
		releases[i] = "old"
		if i == n-1 {
			releases[i] = "new"
		}
	}
	all := registered(releases...)
	for _, u := range all {
		u.latency.seed(sinceStart(), .002)
	}
	return lineupOf(split, sticky, all...)
}

func BenchmarkPick(b *testing.B) {
	canary := discovery.Split{"old": 90, "new": 10}
	for _, c := range []struct {
		name string
		l    *lineup
	}{
		{"4", benchmarkLineup(4, nil, false)}, {"100", benchmarkLineup(100, nil, false)},
		{"4 split", benchmarkLineup(4, canary, false)}, {"4 sticky", benchmarkLineup(4, canary, true)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			w := wish{user: "somebody@school.example", trial: true}
			for b.Loop() {
				w.now = sinceStart()
				if u, _ := c.l.pick(&w); u == nil {
					b.Fatal("none")
				}
			}
		})
	}
}

func BenchmarkBudget(b *testing.B) {
	budget := newBudget(testUpstreams)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			budget.request(sinceStart())
		}
	})
}

func BenchmarkLatency(b *testing.B) {
	var l latency
	b.ReportAllocs()
	for b.Loop() {
		l.observe(sinceStart(), 2*time.Millisecond, 3*time.Second)
	}
}

func TestManyReleasesAreLinedUp(t *testing.T) {
	t.Parallel()
	split, names := discovery.Split{}, []string{}
	for i := range 100 {
		name := "r" + strconv.Itoa(i)
		split[name], names = 1, append(names, name)
	}
	l := lineupOf(split, false, registered(names...)...)
	seen := map[string]bool{}
	for range 5_000 {
		seen[l.release(wish{})] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 releases were ever picked", len(seen))
	}
}
