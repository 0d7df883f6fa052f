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

// ReadTraffic reads what the gateways of an environment have counted of a service. All that are registered must answer.
func (a *Activities) ReadTraffic(ctx context.Context, in Service) (rollout.Reading, error) {
	reading := rollout.Reading{}
	all := func(discovery.Instance) bool { return true }
	err := a.eachInstance(ctx, rollout.Gateway, in.Environment, all, func(gateway discovery.Instance, families metrics) {
		release := func(m *dto.Metric) (string, bool) { return label(m, "release"), label(m, "service") == in.Service }
		if in.Service == rollout.Gateway { // it is its own door: all that it answers counts, for the release that it is itself
			release = func(*dto.Metric) (string, bool) { return gateway.Release, true }
		}
		reading[gateway.ID] = countsOf(families, release)
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
	needed := func(i discovery.Instance) bool { return i.Release == judged }
	return memory, a.eachInstance(ctx, in.Service, in.Environment, needed, func(i discovery.Instance, families metrics) {
		for _, m := range families["process_resident_memory_bytes"].GetMetric() {
			memory[i.Release] = max(memory[i.Release], m.GetGauge().GetValue())
		}
	})
}

// metrics are those of one process, by name.
type metrics map[string]*dto.MetricFamily

// eachInstance calls take, one call at a time, with the metrics of every instance of a service that is up. They are read at once: it takes
// no longer than the slowest. One that is not needed may fail to answer.
func (a *Activities) eachInstance(ctx context.Context, service, environment string, needed func(discovery.Instance) bool, take func(discovery.Instance, metrics)) error {
	snapshot, err := a.Traffic.Snapshot(ctx, 0, 0)
	if err != nil {
		return fmt.Errorf("the registry does not answer: %w", err)
	}
	var all errgroup.Group
	var mu sync.Mutex
	for _, i := range snapshot.App(discovery.App(service, environment)).Instances {
		if i.Status != discovery.StatusUp {
			continue
		}
		all.Go(func() error {
			families, err := a.readMetrics(ctx, i)
			if err != nil && !needed(i) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("the metrics of %s cannot be read: %w", i.ID, err)
			}
			mu.Lock()
			defer mu.Unlock()
			take(i, families)
			return nil
		})
	}
	return all.Wait()
}

func (a *Activities) readMetrics(ctx context.Context, i discovery.Instance) (metrics, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.Address()+"/actuator/prometheus", nil)
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
	sums := rollout.GatewayCounts{ByRelease: map[string]rollout.Counts{}}
	for _, m := range families["process_start_time_seconds"].GetMetric() {
		sums.Started = m.GetGauge().GetValue()
	}
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
	add("gateway_request_duration_seconds", func(m *dto.Metric) rollout.Counts {
		c := rollout.Counts{Timed: float64(m.GetHistogram().GetSampleCount())}
		for _, b := range m.GetHistogram().GetBucket() {
			if i := slices.Index(rollout.LatencyBounds[:], b.GetUpperBound()); i >= 0 {
				c.Within[i] = float64(b.GetCumulativeCount())
			}
		}
		return c
	})
	return sums
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
