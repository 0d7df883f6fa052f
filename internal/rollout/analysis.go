package rollout

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Metrics that a rule can judge by.
const (
	// ErrorRate is the share of requests answered with a status of 500 or more.
	ErrorRate = "error-rate"
	// Latency is a quantile of the time from a request to the end of its answer, in seconds.
	Latency = "latency"
	// Memory is what the largest instance holds resident, in bytes.
	Memory = "memory"
)

// Rule is what a new release must keep to while it has traffic. It is broken by what is worse than Max and also worse than
// Ratio times the stable release in the same window: so a release that is no worse than a stable one in trouble still gets through.
type Rule struct {
	Metric string `json:"metric"`
	// Quantile of a latency, from 0.5 to below 1. Default: 0.95.
	Quantile float64 `json:"quantile,omitempty"`
	// Max is a share of requests (0.01 is 1 %), a time in seconds, or a number of bytes.
	Max float64 `json:"max"`
	// Ratio to the stable release. Default: 1.5.
	Ratio float64 `json:"ratio,omitempty"`
}

const (
	defaultQuantile = 0.95
	defaultRatio    = 1.5
	mebibyte        = 1 << 20
)

// DefaultRules are those of a rollout that names none.
func DefaultRules() []Rule {
	return []Rule{{Metric: ErrorRate, Max: 0.01}, {Metric: Latency, Max: 0.25}, {Metric: Memory, Max: 256 * mebibyte}}
}

func (r Rule) withDefaults() Rule {
	if r.Metric == Latency && r.Quantile == 0 {
		r.Quantile = defaultQuantile
	}
	if r.Ratio == 0 {
		r.Ratio = defaultRatio
	}
	return r
}

// faults are those of one rule; field names it.
func (r Rule) faults(field string) []Fault {
	var faults []Fault
	fault := func(of, format string, args ...any) {
		faults = append(faults, Fault{field + "." + of, fmt.Sprintf(format, args...)})
	}
	switch r.Metric {
	case ErrorRate:
		if r.Quantile != 0 {
			fault("quantile", "is only for %s", Latency)
		}
		if !(r.Max >= 0 && r.Max < 1) {
			fault("max", "%v is not a share from 0 to below 1, such as 0.01 for 1 %%", r.Max)
		}
	case Latency:
		if !(r.Quantile >= 0.5 && r.Quantile < 1) {
			fault("quantile", "%v is not from 0.5 to below 1", r.Quantile)
		}
		if !(r.Max > 0 && r.Max <= LatencyBounds[len(LatencyBounds)-1]) {
			fault("max", "%v is not a time in seconds, above 0 and at most %v", r.Max, LatencyBounds[len(LatencyBounds)-1])
		}
	case Memory:
		if r.Quantile != 0 {
			fault("quantile", "is only for %s", Latency)
		}
		if !(r.Max >= mebibyte && r.Max <= math.MaxInt64) {
			fault("max", "%v is not a number of bytes, at least %d", r.Max, mebibyte)
		}
	default:
		fault("metric", "%q is none of %s, %s and %s", r.Metric, ErrorRate, Latency, Memory)
	}
	if !(r.Ratio >= 1 && r.Ratio <= 100) {
		fault("ratio", "%v is not from 1 to 100", r.Ratio)
	}
	return faults
}

func (r Rule) String() string {
	switch r.Metric {
	case Latency:
		return fmt.Sprintf("p%v latency", trim(r.Quantile*100))
	case Memory:
		return "memory"
	default:
		return "error rate"
	}
}

// show puts a value of the rule's metric in words.
func (r Rule) show(value float64) string {
	switch r.Metric {
	case Latency:
		return time.Duration(value * float64(time.Second)).Round(100 * time.Microsecond).String()
	case Memory:
		return trim(value/mebibyte) + " MiB"
	default:
		return trim(value*100) + " %"
	}
}

func trim(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// LatencyBounds are the upper bounds, in seconds, by which gateways count how long answers take.
var LatencyBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Counts is what the gateways counted of one release. The zero value has counted nothing.
type Counts struct {
	Requests float64 `json:"requests"`
	Errors   float64 `json:"errors"`
	// Within counts the answers that took at most LatencyBounds[i]; Timed all whose time was taken.
	Within [len(LatencyBounds)]float64 `json:"within"`
	Timed  float64                     `json:"timed"`
}

// Add sums the counts of two gateways, or of two routes.
func (c *Counts) Add(other Counts) {
	c.Requests += other.Requests
	c.Errors += other.Errors
	c.Timed += other.Timed
	for i := range other.Within {
		c.Within[i] += other.Within[i]
	}
}

// since is what was counted after an earlier reading of the same counters.
func (c Counts) since(earlier Counts) Counts {
	c.Requests -= earlier.Requests
	c.Errors -= earlier.Errors
	c.Timed -= earlier.Timed
	for i := range c.Within {
		c.Within[i] -= earlier.Within[i]
	}
	return c
}

// quantile estimates a quantile of the latency in seconds as Prometheus's histogram_quantile does: evenly within a bucket, and the
// highest bound for what took longer. NaN when nothing was timed.
func (c Counts) quantile(q float64) float64 {
	if c.Timed <= 0 {
		return math.NaN()
	}
	rank := q * c.Timed
	below, from := 0.0, 0.0
	for i, bound := range LatencyBounds {
		if c.Within[i] >= rank && c.Within[i] > below {
			return from + (bound-from)*(rank-below)/(c.Within[i]-below)
		}
		below, from = c.Within[i], bound
	}
	return from
}

// within estimates how many answers took at most limit seconds. What took longer than the highest bound is within no limit.
func (c Counts) within(limit float64) float64 {
	below, from := 0.0, 0.0
	for i, bound := range LatencyBounds {
		if limit < bound {
			return below + (c.Within[i]-below)*(limit-from)/(bound-from)
		}
		below, from = c.Within[i], bound
	}
	return below
}

// Sample is what a release is judged by.
type Sample struct {
	Counts
	// Memory is what its largest instance holds resident, in bytes; 0 when that is not known.
	Memory float64
}

// Reading is what all gateways of an environment have counted of a service: by gateway, for a gateway that starts again counts
// from nothing, and by release.
type Reading map[string]GatewayCounts

// GatewayCounts are one gateway's.
type GatewayCounts struct {
	// Started tells one life of the gateway from the next.
	Started   float64           `json:"started"`
	ByRelease map[string]Counts `json:"byRelease"`
}

// Window is what was counted of a release between two readings. What a gateway counted that is gone by the second is lost.
func Window(from, to Reading, release string) Counts {
	var sum Counts
	for name, now := range to {
		counts := now.ByRelease[release]
		if before, ok := from[name]; ok && before.Started == now.Started {
			counts = counts.since(before.ByRelease[release])
		}
		sum.Add(counts)
	}
	return sum
}

// Verdict is what an analysis comes to.
type Verdict string

// Verdicts. Inconclusive is never a pass: it says that more has to be seen.
const (
	Passed       Verdict = "passed"
	Broken       Verdict = "failed"
	Inconclusive Verdict = "inconclusive"
)

// Finding is how a release did by one rule.
type Finding struct {
	Rule    string  `json:"rule"`
	Verdict Verdict `json:"verdict"`
	// Detail is in words: what was found, what is allowed, and of how many requests.
	Detail string `json:"detail"`
}

// Analyse judges a release by all rules, and says what weighs most: the first that is broken, else the first that is inconclusive.
// minimum is how many requests a release must have answered before it can pass; it can fail before.
func Analyse(rules []Rule, release, stable Sample, minimum int) (Verdict, []Finding) {
	verdict := Passed
	findings := make([]Finding, 0, len(rules))
	for _, rule := range rules {
		rule = rule.withDefaults()
		f := Finding{}
		if rule.Metric == Memory {
			f = rule.judgeMemory(release.Memory, stable.Memory)
		} else {
			f = rule.judge(release.Counts, stable.Counts, minimum)
		}
		findings = append(findings, f)
		if f.Verdict == Broken || f.Verdict == Inconclusive && verdict == Passed {
			verdict = f.Verdict
		}
	}
	return verdict, findings
}

// mostErrors is the share of errors with which a release is bad even where the stable one answers nothing else.
const mostErrors = 0.5

// fewest bad answers that can break a rule: one or two happen to the best release.
const fewest = 3

func (r Rule) judge(release, stable Counts, minimum int) Finding {
	f := Finding{Rule: r.String(), Verdict: Inconclusive}
	value, samples := r.value(release)
	if samples <= 0 || math.IsNaN(value) {
		f.Detail = "no request was counted"
		return f
	}
	limit, against := r.Max, ""
	if other, n := r.value(stable); n >= float64(minimum) && other*r.Ratio > limit {
		limit, against = other*r.Ratio, fmt.Sprintf(", %s × the stable release's", trim(r.Ratio))
	}
	if most := max(r.Max, mostErrors); r.Metric == ErrorRate && limit > most {
		limit, against = most, ", however bad the stable release is"
	}
	f.Detail = fmt.Sprintf("%s of %.0f requests, at most %s allowed%s", r.show(value), samples, r.show(limit), against)
	bad, allowed := r.bad(release, limit)
	switch {
	case bad >= fewest && wilson(bad, samples) > allowed:
		f.Verdict = Broken
	case samples < float64(minimum):
		f.Detail += fmt.Sprintf("; %d requests are needed", minimum)
	case bad/samples > allowed:
		f.Detail += "; too few to be sure"
	default:
		f.Verdict = Passed
	}
	return f
}

func (r Rule) judgeMemory(release, stable float64) Finding {
	f := Finding{Rule: r.String(), Verdict: Inconclusive, Detail: "is not known"}
	if release <= 0 {
		return f
	}
	limit := max(r.Max, stable*r.Ratio)
	f.Detail, f.Verdict = fmt.Sprintf("%s, at most %s allowed", r.show(release), r.show(limit)), Passed
	if release > limit {
		f.Verdict = Broken
	}
	return f
}

// value is the rule's metric, and of how many samples.
func (r Rule) value(c Counts) (value, samples float64) {
	if r.Metric == Latency {
		return c.quantile(r.Quantile), c.Timed
	}
	return c.Errors / c.Requests, c.Requests
}

// bad counts the answers that are not within the limit, and says which share of them is allowed: a quantile is within a limit when
// no greater share than the rest is slower.
func (r Rule) bad(c Counts, limit float64) (bad, allowed float64) {
	if r.Metric == Latency {
		return c.Timed - c.within(limit), 1 - r.Quantile
	}
	return c.Errors, limit
}

// wilson is the lower end of Wilson's score interval, at 95 %, for a share of n (E. B. Wilson, 1927): few bad answers of few prove little.
func wilson(bad, n float64) float64 {
	const z = 1.96
	p := bad / n
	return (p + z*z/(2*n) - z*math.Sqrt(p*(1-p)/n+z*z/(4*n*n))) / (1 + z*z/n)
}
