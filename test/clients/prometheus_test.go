package clients

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/test/processes"
)

// TestPrometheus has Prometheus find gateways through the registry and read their metrics. It goes on while the registry
// is dead, and sees who joins after its return, be it with its leases or without.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	r := processes.NewRegistry(t)
	database := r.Database()
	r.Launch(database)
	p := newPrometheus(t, r)
	first, _, _ := r.Gateway()
	processes.Until(t, "the first gateway is read", func() bool { return slices.Equal(p.up(), []string{first}) })

	r.Kill()
	failures := p.failures()
	killed := time.Now()
	processes.Until(t, "the loss of the registry is noticed, and the gateway read all the same", func() bool {
		return p.failures() > failures && p.readSince(first, killed)
	})
	r.Launch(database)
	second, _, _ := r.Gateway()
	both := slices.Sorted(slices.Values([]string{first, second}))
	processes.Until(t, "the second gateway is read too", func() bool { return slices.Equal(p.up(), both) })

	r.Kill()
	r.Launch(r.Database())
	third, _, _ := r.Gateway()
	all := slices.Sorted(slices.Values(append(both, third)))
	processes.Until(t, "all gateways are read again", func() bool { return slices.Equal(p.up(), all) })
}

type prometheus struct {
	t       *testing.T
	address string
}

// newPrometheus finds gateways through a registry.
func newPrometheus(t *testing.T, r *processes.Registry) *prometheus {
	t.Helper()
	return startPrometheus(t, fmt.Sprintf(`
- job_name: sms
  metrics_path: /actuator/prometheus
  eureka_sd_configs:
  - {server: "%s/eureka", refresh_interval: 250ms}
  relabel_configs:
  - {source_labels: [__meta_eureka_app_name, __meta_eureka_app_instance_status], regex: API-GATEWAY;UP, action: keep}
`, r.URL))
}

func startPrometheus(t *testing.T, scrape string) *prometheus {
	t.Helper()
	p := &prometheus{t: t, address: processes.FreeAddress(t)}
	processes.Prometheus(t, p.address, scrape)
	return p
}

// target is one that Prometheus reads metrics from.
type target struct {
	ScrapeURL  string
	Health     string
	LastScrape time.Time
}

// address is what the target's instance told the registry.
func (t target) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(t.ScrapeURL, "http://"), "/actuator/prometheus")
}

// targets are those in use; none while Prometheus does not answer yet.
func (p *prometheus) targets() []target {
	var answer struct {
		Data struct{ ActiveTargets []target }
	}
	res, err := http.Get("http://" + p.address + "/api/v1/targets?state=active")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK { // not ready yet
		return nil
	}
	must(p.t, json.NewDecoder(res.Body).Decode(&answer))
	return answer.Data.ActiveTargets
}

// up lists who answers with metrics.
func (p *prometheus) up() []string {
	var addresses []string
	for _, t := range p.targets() {
		if t.Health == "up" {
			addresses = append(addresses, t.address())
		}
	}
	slices.Sort(addresses)
	return addresses
}

func (p *prometheus) readSince(address string, moment time.Time) bool {
	return slices.ContainsFunc(p.targets(), func(t target) bool {
		return t.address() == address && t.Health == "up" && t.LastScrape.After(moment)
	})
}

var refreshFailures = regexp.MustCompile(`(?m)^prometheus_sd_refresh_failures_total\{mechanism="eureka"\} (\d+)`)

// failures counts how often Prometheus could not read the registry.
func (p *prometheus) failures() int {
	p.t.Helper()
	res, err := http.Get("http://" + p.address + "/metrics")
	must(p.t, err)
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	must(p.t, err)
	found := refreshFailures.FindSubmatch(metrics)
	if found == nil {
		p.t.Fatal("Prometheus does not count failed refreshes of eureka_sd any more")
	}
	n, err := strconv.Atoi(string(found[1]))
	must(p.t, err)
	return n
}
