package gateway

import (
	"context"
	"net/http"
	"strconv"
	"testing"

	"github.com/school-sms/sms/internal/discovery"
)

// atOnce answers without a network, so that only the gateway's own work is measured.
type atOnce struct{ res http.Response }

func (a *atOnce) RoundTrip(*http.Request) (*http.Response, error) { return &a.res, nil }

func benchmarkFleet(b *testing.B) *fleet {
	cfg := testConfig
	cfg.CheckInterval = 1 << 50
	f := newFleet(b.Context(), "student-service", cfg, quiet)
	instances := make([]discovery.Instance, 4)
	for i := range instances {
		// Nobody listens on port 1: what the checks say does not matter here.
		instances[i] = discovery.Instance{ID: strconv.Itoa(i), Host: "127.0.0.1", Port: 1, Release: "r", Status: discovery.StatusUp}
	}
	f.sync(discovery.Application{Instances: instances})
	f.firstChecks(b.Context())
	for _, u := range f.current.Load().instances {
		f.change(u, func() string { u.ready = true; return "" })
	}
	return f
}

func BenchmarkChoose(b *testing.B) {
	f := benchmarkFleet(b)
	c := &call{fleet: f}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			w := wish{now: sinceStart(), trial: true}
			u, _ := f.choose(context.Background(), c, &w)
			u.done()
		}
	})
}

// BenchmarkTransport is all that a request costs between the reverse proxy and the connection.
func BenchmarkTransport(b *testing.B) {
	f := benchmarkFleet(b)
	t := &transport{base: &atOnce{http.Response{StatusCode: http.StatusOK}}, retries: 2, retried: func(*call) {}}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		c := &call{fleet: f}
		req, err := http.NewRequestWithContext(context.WithValue(context.Background(), callKey{}, c), http.MethodGet, "http://instance/api", nil)
		if err != nil {
			b.Fatal(err)
		}
		for p.Next() {
			if _, err := t.RoundTrip(req); err != nil {
				b.Fatal(err)
			}
		}
		c.end()
	})
}
