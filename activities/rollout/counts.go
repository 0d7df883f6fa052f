package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/rollout"
)

// maxMetrics bounds what is read of one gateway's metrics, in bytes.
const maxMetrics = 16 << 20

// ReadTraffic reads what the gateways of an environment have counted of a service, or the registries of themselves. All that are up
// must answer, with what they had counted when this activity was asked for or later.
func (a *Activities) ReadTraffic(ctx context.Context, in Service) (rollout.Reading, error) {
	info := activity.GetInfo(ctx)
	return a.readTraffic(ctx, in, info.StartedTime.Sub(info.ScheduledTime))
}

// readTraffic is ReadTraffic. A Prometheus may have read the counts before, at most oldest ago.
func (a *Activities) readTraffic(ctx context.Context, in Service, oldest time.Duration) (rollout.Reading, error) {
	reading := rollout.Reading{}
	all := func(instance) bool { return true }
	if in.Service == rollout.Registry { // no gateway is before it: it counts by itself
		return reading, a.eachInstance(ctx, in, oldest, all, func(registry instance, samples model.Vector) {
			reading[registry.id] = countsOfRegistry(samples, registry.release)
		})
	}
	err := a.eachInstance(ctx, Service{in.Environment, rollout.Gateway}, oldest, all, func(gateway instance, samples model.Vector) {
		release := func(of model.Metric) (string, bool) {
			return string(of["release"]), string(of["service"]) == in.Service
		}
		if in.Service == rollout.Gateway { // it is its own door: all that it answers counts, for the release that it is itself
			release = func(model.Metric) (string, bool) { return gateway.release, true }
		}
		reading[gateway.id] = countsOf(samples, release)
	})
	if err == nil && len(reading) == 0 {
		err = errors.New("no gateway is registered")
	}
	return reading, err
}

// readMemory reads what the largest instance of each release of a service holds resident, in bytes. Those of the release that is judged
// must answer; one of the stable release may be what is broken, and is left out.
func (a *Activities) readMemory(ctx context.Context, in Service, judged string, oldest time.Duration) (map[string]float64, error) {
	memory := map[string]float64{}
	needed := func(i instance) bool { return i.release == judged }
	return memory, a.eachInstance(ctx, in, oldest, needed, func(i instance, samples model.Vector) {
		for _, s := range samples {
			if name(s) == resident {
				memory[i.release] = max(memory[i.release], float64(s.Value))
			}
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

// eachInstance calls take, one call at a time, with the metrics of every instance of a service that is up. They are read at once: it takes
// no longer than the slowest. One that is not needed may fail to answer.
func (a *Activities) eachInstance(ctx context.Context, of Service, oldest time.Duration, needed func(instance) bool, take func(instance, model.Vector)) error {
	instances, err := a.instances(ctx, of)
	if err != nil {
		return err
	}
	var all errgroup.Group
	var mu sync.Mutex
	for _, i := range instances {
		all.Go(func() error {
			var samples model.Vector
			var err error
			if a.Prometheus.ForAllRules && of.Service != rollout.Registry { // registries are in no list that Prometheus could read
				samples, err = a.Prometheus.scraped(ctx, i, oldest)
			} else {
				samples, err = a.readMetrics(ctx, i)
			}
			if err != nil && !needed(i) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("the metrics of %s cannot be read: %w", i.id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			take(i, samples)
			return nil
		})
	}
	return all.Wait()
}

// readMetrics reads what an instance measures now, from itself.
func (a *Activities) readMetrics(ctx context.Context, i instance) (model.Vector, error) {
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
	return samplesOf(io.LimitReader(res.Body, maxMetrics))
}

// samplesOf reads what is judged by from the Prometheus text format.
func samplesOf(page io.Reader) (model.Vector, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool {
		return !slices.Contains([]string{started, resident, gatewayAnswers, gatewayTimes, serverTimes}, name)
	})
	return expfmt.ExtractSamples(&expfmt.DecodeOptions{}, slices.Collect(maps.Values(families))...)
}

// Names of the metrics that are judged by.
const (
	started        = "process_start_time_seconds"
	resident       = "process_resident_memory_bytes"
	gatewayAnswers = "gateway_requests_total"
	gatewayTimes   = "gateway_request_duration_seconds"
	serverTimes    = "http_server_request_duration_seconds"
)

// countsOf sums a gateway's metrics by release: release names it, or says that a series does not count.
func countsOf(samples model.Vector, release func(model.Metric) (string, bool)) rollout.GatewayCounts {
	sums := rollout.GatewayCounts{ByRelease: map[string]rollout.Counts{}}
	for _, s := range samples {
		if name(s) == started {
			sums.Started = float64(s.Value)
			continue
		}
		c := timed(s, gatewayTimes)
		if name(s) == gatewayAnswers {
			c = answered(s)
		}
		if of, counted := release(s.Metric); counted && c != (rollout.Counts{}) {
			c.Add(sums.ByRelease[of])
			sums.ByRelease[of] = c
		}
	}
	return sums
}

// countsOfRegistry sums a registry's own metrics, of the release that it is. Only requests of the Eureka interface count: the others
// look after it, or wait for a change by their nature.
func countsOfRegistry(samples model.Vector, release string) rollout.GatewayCounts {
	var sums rollout.GatewayCounts
	var sum rollout.Counts
	for _, s := range samples {
		switch {
		case name(s) == started:
			sums.Started = float64(s.Value)
		case !strings.HasPrefix(string(s.Metric["route"]), "/eureka/"):
		case name(s) == serverTimes+"_count":
			sum.Add(answered(s))
			sum.Add(timed(s, serverTimes))
		default:
			sum.Add(timed(s, serverTimes))
		}
	}
	sums.ByRelease = map[string]rollout.Counts{release: sum}
	return sums
}

func name(s *model.Sample) string { return string(s.Metric[model.MetricNameLabel]) }

// answered are the answers that a series counts, all of one status.
func answered(s *model.Sample) rollout.Counts {
	c := rollout.Counts{Requests: float64(s.Value)}
	if strings.HasPrefix(string(s.Metric["status"]), "5") {
		c.Errors = c.Requests
	}
	return c
}

// timed are the times that a series counts, if it is one of that histogram.
func timed(s *model.Sample, histogram string) (c rollout.Counts) {
	switch name(s) {
	case histogram + "_count":
		c.Timed = float64(s.Value)
	case histogram + "_bucket":
		bound, _ := strconv.ParseFloat(string(s.Metric[model.BucketLabel]), 64)
		if i := slices.Index(rollout.LatencyBounds[:], bound); i >= 0 {
			c.Within[i] = float64(s.Value)
		}
	}
	return c
}
