package rollout

import "math"

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
