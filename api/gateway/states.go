package gateway

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Why an instance that got its part of the requests gets it no more.
const (
	ejectedUnready = "unready" // it said that it is not ready, or refused the check's connection
	ejectedRefused = "refused" // it refused a request's connection
	ejectedSilent  = "silent"  // its checks got no answer
	ejectedFaults  = "faults"  // it failed requests that others answered
)

// ejectionCounts counts them.
type ejectionCounts struct{ unready, refused, silent, faults atomic.Int64 }

func (c *ejectionCounts) of(reason string) *atomic.Int64 {
	switch reason {
	case ejectedUnready:
		return &c.unready
	case ejectedRefused:
		return &c.refused
	case ejectedSilent:
		return &c.silent
	default:
		return &c.faults
	}
}

func (c *ejectionCounts) add(reason string) { c.of(reason).Add(1) }

// instanceStates shows how the instances stand. Its labels are services, states and reasons, of which there are few
// whatever anybody registers.
type instanceStates struct {
	fleets                             map[string]*fleet // by service
	states, ejections, refused, queued *prometheus.Desc
}

func newInstanceStates(fleets map[string]*fleet) *instanceStates {
	return &instanceStates{
		fleets: fleets,
		states: prometheus.NewDesc("gateway_instance_state",
			"Registered instances by state: closed (in use), open (ejected for faults), half-open (on trial), silent, unready.",
			[]string{"service", "state"}, nil),
		ejections: prometheus.NewDesc("gateway_ejections_total", "Instances taken out of use, by reason.", []string{"service", "reason"}, nil),
		refused: prometheus.NewDesc("gateway_retry_budget_exhausted_total", "Further tries that the budget did not allow.",
			[]string{"service"}, nil),
		queued: prometheus.NewDesc("gateway_waiting_requests", "Requests that wait for an instance.", []string{"service"}, nil),
	}
}

func (s *instanceStates) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.states, s.ejections, s.refused, s.queued} {
		descriptions <- d
	}
}

func (s *instanceStates) Collect(out chan<- prometheus.Metric) {
	for service, f := range s.fleets {
		states := f.states()
		for _, state := range []string{closed.String(), open.String(), halfOpen.String(), stateSilent, stateUnready} {
			out <- prometheus.MustNewConstMetric(s.states, prometheus.GaugeValue, float64(states[state]), service, state)
		}
		for _, reason := range []string{ejectedUnready, ejectedRefused, ejectedSilent, ejectedFaults} {
			out <- prometheus.MustNewConstMetric(s.ejections, prometheus.CounterValue, float64(f.counts.of(reason).Load()), service, reason)
		}
		out <- prometheus.MustNewConstMetric(s.refused, prometheus.CounterValue, float64(f.budget.refused.Load()), service)
		out <- prometheus.MustNewConstMetric(s.queued, prometheus.GaugeValue, float64(f.waiting.taken.Load()), service)
	}
}

// states counts the instances by state.
func (f *fleet) states() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[string]int{}
	for _, u := range f.upstreams {
		counts[u.state()]++
	}
	return counts
}
