package rollout

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// counts makes the counts of answers that took these times, in seconds.
func counts(errors int, times ...float64) Counts {
	c := Counts{Requests: float64(len(times)), Timed: float64(len(times)), Errors: float64(errors)}
	for _, took := range times {
		for i, bound := range LatencyBounds {
			if took <= bound {
				c.Within[i]++
			}
		}
	}
	return c
}

func fast(requests, errors int) Sample {
	return Sample{counts(errors, slices.Repeat([]float64{.004}, requests)...), 30 << 20}
}

func slow(requests int) Sample {
	return Sample{counts(0, slices.Repeat([]float64{.8}, requests)...), 30 << 20}
}

func TestAnalyse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		release, stable Sample
		want            Verdict
		says            string
	}{
		"leaks":                                 {Sample{fast(200, 0).Counts, 300 << 20}, fast(2000, 0), Broken, "memory: failed: 300 MiB, at most 256 MiB allowed"},
		"large, as the stable one is":           {Sample{fast(200, 0).Counts, 300 << 20}, Sample{fast(2000, 0).Counts, 290 << 20}, Passed, "at most 435 MiB"},
		"memory unknown":                        {Sample{fast(200, 0).Counts, 0}, fast(2000, 0), Inconclusive, "memory: inconclusive: is not known"},
		"good":                                  {fast(200, 0), fast(2000, 2), Passed, ""},
		"nothing counted":                       {Sample{Memory: 30 << 20}, fast(2000, 0), Inconclusive, "no request was counted"},
		"too few, all good":                     {fast(49, 0), fast(2000, 0), Inconclusive, "50 requests are needed"},
		"half of a few fail":                    {fast(10, 5), fast(2000, 0), Broken, "50 % of 10 requests, at most 1 % allowed"},
		"two of two fail":                       {fast(2, 2), fast(2000, 0), Inconclusive, "50 requests are needed"},
		"three of three fail":                   {fast(3, 3), fast(2000, 0), Broken, "100 % of 3"},
		"one of sixty fails":                    {fast(60, 1), fast(2000, 0), Inconclusive, "too few to be sure"},
		"one of a thousand fails":               {fast(1000, 1), fast(9000, 0), Passed, ""},
		"three in a hundred fail, of many":      {fast(3000, 90), fast(9000, 0), Broken, "3 % of 3000"},
		"as bad as a stable release in trouble": {fast(1000, 300), fast(9000, 2700), Passed, ""},
		"worse than a stable one in trouble":    {fast(1000, 600), fast(9000, 2700), Broken, "1.5 × the stable release's"},
		"as bad as one that answers nothing":    {fast(1000, 900), fast(9000, 9000), Broken, "at most 50 % allowed, however bad"},
		"slow":                                  {slow(100), fast(2000, 0), Broken, "at most 250ms allowed"},
		"slow, as the stable one is":            {slow(100), slow(1000), Passed, ""},
		"slow, and the stable one says little":  {slow(100), slow(10), Broken, "at most 250ms allowed"},
		"slow beyond every bound":               {Sample{counts(0, slices.Repeat([]float64{20}, 100)...), 30 << 20}, fast(100, 0), Broken, "10s of 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, findings := Analyse(DefaultRules(), c.release, c.stable, DefaultMinimum)
			said := ""
			for _, f := range findings {
				said += f.Rule + ": " + string(f.Verdict) + ": " + f.Detail + "\n"
			}
			if got != c.want || !strings.Contains(said, c.says) || len(findings) != 3 {
				t.Errorf("%s, want %s and %q:\n%s", got, c.want, c.says, said)
			}
		})
	}
}

// A release that keeps well within its limits must not be rolled back because it was looked at often, and one far outside must be.
func TestAnalysisIsRarelyWrong(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	looks := func(share float64) (broken bool) {
		requests, errors := 0, 0
		for range 60 { // a look a second, of 20 requests each
			for range 20 {
				requests++
				if random.Float64() < share {
					errors++
				}
			}
			if v, _ := Analyse([]Rule{{Metric: ErrorRate, Max: 0.01}}, fast(requests, errors), Sample{}, DefaultMinimum); v == Broken {
				return true
			}
		}
		return false
	}
	wrong, missed := 0, 0
	for range 1000 {
		if looks(0.001) {
			wrong++
		}
		if !looks(0.10) {
			missed++
		}
	}
	if wrong > 10 || missed > 0 {
		t.Errorf("of 1,000 good releases %d were called bad, of 1,000 bad ones %d were not", wrong, missed)
	}
}

func TestQuantileIsWithinItsBucket(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOfN(rapid.Float64Range(0.0001, 10), 1, 200).Draw(t, "times")
		q := rapid.Float64Range(0.5, 0.999).Draw(t, "quantile")
		got := counts(0, times...).quantile(q)
		slices.Sort(times)
		exact := times[int(math.Ceil(q*float64(len(times))))-1]
		i, _ := slices.BinarySearch(LatencyBounds[:], exact)
		low := 0.0
		if i > 0 {
			low = LatencyBounds[i-1]
		}
		if got < low-1e-9 || got > LatencyBounds[i]+1e-9 {
			t.Fatalf("%v is not in the bucket of %v", got, exact)
		}
		if in := counts(0, times...).within(got); math.Abs(in-q*float64(len(times))) > 1e-6*float64(len(times)) {
			t.Fatalf("%v answers are within the quantile %v of %d", in, q, len(times))
		}
	})
}

func TestWindowCountsEachLifeOfAGatewayOnce(t *testing.T) {
	t.Parallel()
	gateway := func(started float64, requests int) GatewayCounts {
		return GatewayCounts{started, map[string]Counts{"new": fast(requests, 0).Counts}}
	}
	from := Reading{"a": gateway(1, 100), "b": gateway(1, 50), "gone": gateway(1, 10)}
	to := Reading{"a": gateway(1, 130), "b": gateway(2, 7), "came": gateway(3, 5)}
	if got := Window(from, to, "new"); got != fast(30+7+5, 0).Counts {
		t.Errorf("%+v", got)
	}
	if got := Window(from, to, "unknown"); got != (Counts{}) {
		t.Errorf("of a release nobody had: %+v", got)
	}
}

func TestRuleFaults(t *testing.T) {
	t.Parallel()
	for _, r := range DefaultRules() {
		if f := r.withDefaults().faults("rules[0]"); len(f) > 0 {
			t.Errorf("%s: %v", r, f)
		}
	}
	for want, r := range map[string]Rule{
		"metric":         {Metric: "cpu", Ratio: 1},
		"max":            {Metric: ErrorRate, Max: 1, Ratio: 1},
		"max quantile":   {Metric: Latency, Max: math.NaN(), Ratio: 1},
		"max ":           {Metric: Memory, Max: 10, Ratio: 1},
		"quantile ratio": {Metric: ErrorRate, Quantile: .5, Ratio: math.Inf(1)},
	} {
		faults := r.faults("rules[2]")
		if len(faults) != len(strings.Fields(want)) {
			t.Errorf("%+v: %v, want %s", r, faults, want)
		}
		for _, f := range faults {
			if !strings.Contains(want, strings.TrimPrefix(f.Field, "rules[2].")) {
				t.Errorf("%+v: %v, want %s", r, f, want)
			}
		}
	}
}
