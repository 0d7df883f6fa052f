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
	// PromQL is what a query of the rule's own comes to, asked of Prometheus.
	PromQL = "promql"
)

// Rule is what a new release must keep to while it has traffic. It is broken by what is worse than Max and also worse than
// Ratio times the stable release in the same window: so a release that is no worse than a stable one in trouble still gets through.
type Rule struct {
	Metric string `json:"metric"`
	// Name of a PromQL rule, for people; of each another.
	Name string `json:"name,omitempty"`
	// Query of a PromQL rule, with ${release}, ${service}, ${environment} and ${window} in it. It must come to one number.
	Query string `json:"query,omitempty"`
	// Quantile of a latency, from 0.5 to below 1. Default: 0.95.
	Quantile float64 `json:"quantile,omitempty"`
	// Max is a share of requests (0.01 is 1 %), a time in seconds, a number of bytes, or in the unit of the query.
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
	if r.Metric != Latency && r.Quantile != 0 {
		fault("quantile", "is only for %s", Latency)
	}
	if r.Metric != PromQL && (r.Name != "" || r.Query != "") {
		fault("query", "and name are only for %s", PromQL)
	}
	switch r.Metric {
	case ErrorRate:
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
		if !(r.Max >= mebibyte && r.Max <= math.MaxInt64) {
			fault("max", "%v is not a number of bytes, at least %d", r.Max, mebibyte)
		}
	case PromQL:
		if r.Name == "" {
			fault("name", "is missing: what does it tell?")
		}
		if !strings.Contains(r.Query, "${release}") {
			fault("query", "%q has no ${release}: it would tell the same of both releases", r.Query)
		}
		if rest := r.Ask("", "", "", 0); strings.Contains(rest, "${") {
			fault("query", "%q has a ${…} in it that is none of ${release}, ${service}, ${environment} and ${window}", r.Query)
		}
		if unknown(r.Max) {
			fault("max", "%v is not a number", r.Max)
		}
	default:
		fault("metric", "%q is none of %s, %s, %s and %s", r.Metric, ErrorRate, Latency, Memory, PromQL)
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
	case PromQL:
		return r.Name
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
	case PromQL:
		return fmt.Sprintf("%.4g", value)
	default:
		return trim(value*100) + " %"
	}
}

func trim(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// Sample is what a release is judged by.
type Sample struct {
	Counts
	// Memory is what its largest instance holds resident, in bytes; 0 when that is not known.
	Memory float64
	// Queried is what the queries of PromQL rules have come to, by the rules' names.
	Queried map[string]Queried
}

// Queried is what a query has come to.
type Queried struct {
	// Known is false when it has not come to one number; Why says why.
	Known bool
	Value float64
	Why   string
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
	// Release, Stable and Limit are values with their unit: the release's, the stable one's, and what is allowed. Empty: not known.
	Release string `json:"release,omitempty"`
	Stable  string `json:"stable,omitempty"`
	Limit   string `json:"limit,omitempty"`
}

// Analyse judges a release by all rules, and says what weighs most: the first that is broken, else the first that is inconclusive.
// minimum is how many requests a release must have answered before it can pass; it can fail before.
func Analyse(rules []Rule, release, stable Sample, minimum int) (Verdict, []Finding) {
	verdict := Passed
	findings := make([]Finding, 0, len(rules))
	for _, rule := range rules {
		rule = rule.withDefaults()
		f := Finding{}
		switch rule.Metric {
		case Memory:
			f = rule.judgeMemory(release.Memory, stable.Memory)
		case PromQL:
			f = rule.judgeQuery(release, stable, minimum)
		default:
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
	other, n := r.value(stable)
	if n > 0 && !math.IsNaN(other) {
		f.Stable = r.show(other)
	}
	if n >= float64(minimum) && other*r.Ratio > limit {
		limit, against = other*r.Ratio, fmt.Sprintf(", %s × the stable release's", trim(r.Ratio))
	}
	if most := max(r.Max, mostErrors); r.Metric == ErrorRate && limit > most {
		limit, against = most, ", however bad the stable release is"
	}
	f.Release, f.Limit = r.show(value), r.show(limit)
	f.Detail = fmt.Sprintf("%s of %.0f requests, at most %s allowed%s", f.Release, samples, f.Limit, against)
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
	f.Release, f.Limit = r.show(release), r.show(limit)
	if stable > 0 {
		f.Stable = r.show(stable)
	}
	f.Detail, f.Verdict = fmt.Sprintf("%s, at most %s allowed", f.Release, f.Limit), Passed
	if release > limit {
		f.Verdict = Broken
	}
	return f
}

// judgeQuery needs to know how the stable release does only of a release that is worse than Max.
func (r Rule) judgeQuery(release, stable Sample, minimum int) Finding {
	f := Finding{Rule: r.String(), Verdict: Inconclusive}
	of, other := release.Queried[r.Name].checked(), stable.Queried[r.Name].checked()
	if !of.Known {
		f.Detail = "is not known: " + of.Why
		return f
	}
	limit, against := r.Max, ""
	if other.Known && other.Value*r.Ratio > limit {
		limit, against = other.Value*r.Ratio, fmt.Sprintf(", %s × the stable release's", trim(r.Ratio))
	}
	f.Detail = fmt.Sprintf("%s, at most %s allowed%s", r.show(of.Value), r.show(limit), against)
	switch {
	case release.Requests < float64(minimum):
		f.Detail += fmt.Sprintf("; it has answered %.0f requests, %d are needed", release.Requests, minimum)
	case of.Value <= limit:
		f.Verdict = Passed
	case !other.Known:
		f.Detail += "; that of the stable release is not known: " + other.Why
	default:
		f.Verdict = Broken
	}
	return f
}

// checked knows no number that is none.
func (q Queried) checked() Queried {
	switch {
	case q.Known && unknown(q.Value):
		return Queried{Why: fmt.Sprintf("the query came to %v", q.Value)}
	case !q.Known && q.Why == "":
		q.Why = "it was not asked"
	}
	return q
}

func unknown(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }

// Ask is the query for a release, over a window of whole seconds.
func (r Rule) Ask(environment, service, release string, window time.Duration) string {
	return strings.NewReplacer("${environment}", environment, "${service}", service, "${release}", release,
		"${window}", fmt.Sprintf("%ds", int(window.Seconds()))).Replace(r.Query)
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
