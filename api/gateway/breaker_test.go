package gateway

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBudgetHolds sends requests and wishes for further tries at any times, and counts them in its own way.
func TestBudgetHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := testUpstreams
		cfg.RetryBudgetPercent = rapid.IntRange(0, 100).Draw(t, "percent")
		cfg.RetryBudgetMin = rapid.IntRange(0, 20).Draw(t, "min")
		b := newBudget(cfg)
		var now time.Duration
		var requests, tries []time.Duration
		const part = time.Second // a tenth of the window
		recent := func(times []time.Duration) (n int) {
			for _, at := range times {
				if at/part > now/part-budgetParts {
					n++
				}
			}
			return n
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause"))
			for range rapid.IntRange(0, 30).Draw(t, "requests") {
				b.request(now)
				requests = append(requests, now)
			}
			for range rapid.IntRange(0, 10).Draw(t, "wishes") {
				allowed := (recent(tries)+1)*100 <= cfg.RetryBudgetMin*100+recent(requests)*cfg.RetryBudgetPercent
				if got := b.take(now); got != allowed {
					t.Fatalf("taken %v, allowed %v", got, allowed)
				}
				if allowed {
					tries = append(tries, now)
				}
			}
		}
		windows := 1 + int(now/cfg.RetryBudgetWindow)
		if len(tries)*100 > windows*cfg.RetryBudgetMin*100+len(requests)*cfg.RetryBudgetPercent {
			t.Fatalf("%d tries in all, for %d requests in %d windows", len(tries), len(requests), windows)
		}
	})
}

// TestBudgetHoldsTogether asks from many sides at once.
func TestBudgetHoldsTogether(t *testing.T) {
	t.Parallel()
	b := newBudget(testUpstreams)
	const callers, each = 16, 1_000
	var tries atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				b.request(time.Second)
				for range 3 {
					if b.take(time.Second) {
						tries.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	if got, want := tries.Load(), int64(callers*each/5+10); got > want || got < want*9/10 {
		t.Errorf("%d further tries, want %d", got, want)
	}
}

// TestBreaker goes through any order of events, and checks that the states follow each other as they should.
func TestBreaker(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := testUpstreams
		cfg.Trials = rapid.IntRange(1, 5).Draw(t, "trials")
		var b breaker
		var now, opened, length time.Duration
		row := 0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(cfg.EjectTimeMax)).Draw(t, "pause"))
			before, since := b.state, b.since
			switch event := rapid.SampledFrom([]string{"trip", "probe", "pass"}).Draw(t, "event"); event {
			case "trip":
				if before == open {
					continue // the fleet does not do that
				}
				b.trip(now, cfg)
				longer := b.until - now
				if anew := before == closed && now-since >= cfg.EjectTimeMax; b.state != open || longer < cfg.EjectTime || longer > cfg.EjectTimeMax ||
					!anew && length > 0 && longer != min(2*length, cfg.EjectTimeMax) || anew && longer != cfg.EjectTime {
					t.Fatalf("%+v, the one before took %s", b, length)
				}
				opened, length, row = now, longer, 0
			case "probe":
				b.probe(now)
				if over := now-opened >= length; before == open && (b.state == halfOpen) != over || before != open && b.state != before {
					t.Fatalf("probed %s after it opened for %s: %+v", now-opened, length, b)
				}
			case "pass":
				b.pass(now, cfg)
				if before == halfOpen {
					row++
				}
				if before == halfOpen && (b.state == closed) != (row >= cfg.Trials) || before != halfOpen && b.state != before {
					t.Fatalf("%d passed in %s: %+v", row, before, b)
				}
			}
		}
	})
}

// TestFaultsAreWeighed: only an instance that fails more than it answers reaches the bound.
func TestFaultsAreWeighed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var f faults
		const bound = 5
		excess, most := 0, 0
		for _, fault := range rapid.SliceOf(rapid.Bool()).Draw(t, "answers") {
			if fault {
				excess = min(excess+1, bound)
				if got := f.proven(bound); got != excess {
					t.Fatalf("%d, want %d", got, excess)
				}
			} else {
				f.good()
				excess = max(excess-1, 0)
			}
			most = max(most, excess)
		}
		if f.forget(); f.n.Load() != 0 {
			t.Fatal("not forgotten")
		}
	})
}
