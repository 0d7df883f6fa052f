package gateway

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/internal/rollout"
)

// metrics count what passes, by service, release, route and status: a rollout compares releases by them.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	// known are the counters in use, by their labels: to look them up costs less than to make them out.
	known sync.Map // labels → counters
}

// labels are bounded: what a caller can choose of them is a method that is routed.
type labels struct {
	service, release, route, method string
	status                          int
}

type counters struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_requests_total", Help: "Requests answered through the gateway.",
		}, []string{"service", "release", "route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_request_duration_seconds", Help: "Time from the request to the end of its answer, of requests that do not last by their nature.",
			Buckets: rollout.LatencyBounds[:],
		}, []string{"service", "release", "route", "method"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_retries_total", Help: "Further tries of requests that an instance did not take.",
		}, []string{"app"}),
	}
}

// answered counts a request. Release is empty when no instance took it, and the route is all of the service's when none answered.
func (m *metrics) answered(r route, c *call, req *http.Request, status int, took time.Duration) {
	l := labels{r.service, "", c.route, req.Method, status}
	if c.used != nil {
		l.release = c.used.Release
	}
	if l.route == "" {
		l.route = r.prefix + "/*"
	}
	found, ok := m.known.Load(l)
	if !ok {
		found, _ = m.known.LoadOrStore(l, counters{m.requests.WithLabelValues(l.service, l.release, l.route, l.method, strconv.Itoa(l.status)),
			m.duration.WithLabelValues(l.service, l.release, l.route, l.method)})
	}
	of := found.(counters)
	of.requests.Inc()
	if !lasting(req) { // how long a caller waits for a change says nothing of the release
		of.duration.Observe(took.Seconds())
	}
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
