package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/rollout"
)

// maxMetrics bounds what is read of one gateway's metrics, in bytes.
const maxMetrics = 16 << 20

// ReadTraffic reads what the gateways of an environment have counted of a service, or the registries of themselves. All that are up
// must answer.
func (a *Activities) ReadTraffic(ctx context.Context, in Service) (rollout.Reading, error) {
	reading := rollout.Reading{}
	all := func(instance) bool { return true }
	if in.Service == rollout.Registry { // no gateway is before it: it counts by itself
		return reading, a.eachInstance(ctx, in, all, func(registry instance, families metrics) {
			reading[registry.id] = countsOfRegistry(families, registry.release)
		})
	}
	err := a.eachInstance(ctx, Service{in.Environment, rollout.Gateway}, all, func(gateway instance, families metrics) {
		release := func(m *dto.Metric) (string, bool) { return label(m, "release"), label(m, "service") == in.Service }
		if in.Service == rollout.Gateway { // it is its own door: all that it answers counts, for the release that it is itself
			release = func(*dto.Metric) (string, bool) { return gateway.release, true }
		}
		reading[gateway.id] = countsOf(families, release)
	})
	if err == nil && len(reading) == 0 {
		err = errors.New("no gateway is registered")
	}
	return reading, err
}

// readMemory reads what the largest instance of each release of a service holds resident, in bytes. Those of the release that is judged
// must answer; one of the stable release may be what is broken, and is left out.
func (a *Activities) readMemory(ctx context.Context, in Service, judged string) (map[string]float64, error) {
	memory := map[string]float64{}
	needed := func(i instance) bool { return i.release == judged }
	return memory, a.eachInstance(ctx, in, needed, func(i instance, families metrics) {
		for _, m := range families["process_resident_memory_bytes"].GetMetric() {
			memory[i.release] = max(memory[i.release], m.GetGauge().GetValue())
		}
	})
}

// instance is one that is up.
type instance struct{ id, release, address string }

// instances are those of a service that are up: by the registry, or of the registry by the target.
func (a *Activities) instances(ctx context.Context, of Service) ([]instance, error) {
	var up []instance
	if of.Service == rollout.Registry {
		observed, err := a.observe(ctx, of)
		if err != nil {
			return nil, err
		}
		for _, i := range observed.Instances {
			if i.Ready {
				up = append(up, instance{i.Name, i.Release, i.Address})
			}
		}
		return up, nil
	}
	snapshot, err := a.Traffic.Snapshot(ctx, 0, 0)
	if err != nil {
		return nil, awayError{fmt.Errorf("the registry does not answer: %w", err)}
	}
	for _, i := range snapshot.App(discovery.App(of.Service, of.Environment)).Instances {
		if i.Status == discovery.StatusUp {
			up = append(up, instance{i.ID, i.Release, i.Address()})
		}
	}
	return up, nil
}

// up are the instances of a release that are.
func (a *Activities) up(ctx context.Context, of Service, release string) ([]instance, error) {
	instances, err := a.instances(ctx, of)
	return slices.DeleteFunc(instances, func(i instance) bool { return i.release != release }), err
}

// metrics are those of one process, by name.
type metrics map[string]*dto.MetricFamily

// eachInstance calls take, one call at a time, with the metrics of every instance of a service that is up. They are read at once: it takes
// no longer than the slowest. One that is not needed may fail to answer.
func (a *Activities) eachInstance(ctx context.Context, of Service, needed func(instance) bool, take func(instance, metrics)) error {
	instances, err := a.instances(ctx, of)
	if err != nil {
		return err
	}
	var all errgroup.Group
	var mu sync.Mutex
	for _, i := range instances {
		all.Go(func() error {
			families, err := a.readMetrics(ctx, i)
			if err != nil && !needed(i) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("the metrics of %s cannot be read: %w", i.id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			take(i, families)
			return nil
		})
	}
	return all.Wait()
}

func (a *Activities) readMetrics(ctx context.Context, i instance) (metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.address+"/actuator/prometheus", nil)
	if err != nil {
		return nil, err
	}
	res, err := a.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(io.LimitReader(res.Body, maxMetrics))
}

// countsOf sums a gateway's metrics by release: release names it, or says that a series does not count.
func countsOf(families metrics, release func(*dto.Metric) (string, bool)) rollout.GatewayCounts {
	sums := rollout.GatewayCounts{Started: startOf(families), ByRelease: map[string]rollout.Counts{}}
	add := func(family string, counts func(*dto.Metric) rollout.Counts) {
		for _, m := range families[family].GetMetric() {
			if of, counted := release(m); counted {
				sum := sums.ByRelease[of]
				sum.Add(counts(m))
				sums.ByRelease[of] = sum
			}
		}
	}
	add("gateway_requests_total", func(m *dto.Metric) rollout.Counts {
		c := rollout.Counts{Requests: m.GetCounter().GetValue()}
		if strings.HasPrefix(label(m, "status"), "5") {
			c.Errors = c.Requests
		}
		return c
	})
	add("gateway_request_duration_seconds", timesOf)
	return sums
}

// countsOfRegistry sums a registry's own metrics, of the release that it is. Only requests of the Eureka interface count: the others
// look after it, or wait for a change by their nature.
func countsOfRegistry(families metrics, release string) rollout.GatewayCounts {
	var sum rollout.Counts
	for _, m := range families["http_server_request_duration_seconds"].GetMetric() {
		if !strings.HasPrefix(label(m, "route"), "/eureka/") {
			continue
		}
		c := timesOf(m)
		c.Requests = c.Timed
		if strings.HasPrefix(label(m, "status"), "5") {
			c.Errors = c.Requests
		}
		sum.Add(c)
	}
	return rollout.GatewayCounts{Started: startOf(families), ByRelease: map[string]rollout.Counts{release: sum}}
}

// startOf is when a process began.
func startOf(families metrics) (started float64) {
	for _, m := range families["process_start_time_seconds"].GetMetric() {
		started = m.GetGauge().GetValue()
	}
	return started
}

// timesOf are the times of a histogram of requests.
func timesOf(m *dto.Metric) rollout.Counts {
	c := rollout.Counts{Timed: float64(m.GetHistogram().GetSampleCount())}
	for _, b := range m.GetHistogram().GetBucket() {
		if i := slices.Index(rollout.LatencyBounds[:], b.GetUpperBound()); i >= 0 {
			c.Within[i] = float64(b.GetCumulativeCount())
		}
	}
	return c
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
