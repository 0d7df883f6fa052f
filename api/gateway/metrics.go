package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what passes, by service, release and status: a rollout compares releases by them.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
}

func newMetrics() *metrics {
	labels := []string{"service", "release", "status"}
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_requests_total", Help: "Requests answered through the gateway.",
		}, labels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_request_duration_seconds", Help: "Time from the request to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, labels),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_retries_total", Help: "Further tries of requests that an instance did not take.",
		}, []string{"app"}),
	}
}

// answered counts a request. Release is empty when no instance took it.
func (m *metrics) answered(service string, c *call, status int, took time.Duration) {
	release := ""
	if c.used != nil {
		release = c.used.Release
	}
	code := strconv.Itoa(status)
	m.requests.WithLabelValues(service, release, code).Inc()
	m.duration.WithLabelValues(service, release, code).Observe(took.Seconds())
}

func (m *metrics) retried(c *call) { m.retries.WithLabelValues(c.fleet.app).Inc() }

func (m *metrics) collectors(fleets map[string]*fleet) []prometheus.Collector {
	all := []prometheus.Collector{m.requests, m.duration, m.retries, newInstanceStates(fleets)}
	for service, f := range fleets {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gateway_healthy_instances", Help: "Instances that would take a request, by the gateway's own checks.",
			ConstLabels: prometheus.Labels{"service": service},
		}, func() float64 { return float64(f.healthy()) }))
	}
	return all
}
