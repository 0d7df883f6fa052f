package ops

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
)

// tallyTimeout bounds the reading of ops_db for one scrape.
const tallyTimeout = 2 * time.Second

func ofRollout(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("sms_rollout_"+name, help, append([]string{"environment", "service"}, more...), nil)
}

var (
	rolloutsReadableDesc = prometheus.NewDesc("sms_rollout_records_readable", "Whether what is on record of rollouts could be read for this answer.", nil, nil)

	rolloutRunningDesc  = ofRollout("running", "Rollouts that run.")
	rolloutSuccessDesc  = ofRollout("last_success_timestamp_seconds", "When the newest rollout that succeeded had ended.")
	rolloutFailedDesc   = ofRollout("last_failed", "Whether the rollout that has ended last did so without success.")
	rolloutDurationDesc = ofRollout("duration_seconds", "How long the rollout took that has ended last.")
	rolloutTotalDesc    = ofRollout("total", "Rollouts that have ended, by the state in which they did.", "state")
)

// RolloutMetrics shows the rollouts of each service in each environment. All figures come from ops_db when they are asked for, so that
// they are the same after a restart and in every process.
type RolloutMetrics struct {
	store *operation.Store
	log   *slog.Logger
}

// Describe implements prometheus.Collector.
func (m RolloutMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{rolloutsReadableDesc, rolloutRunningDesc, rolloutSuccessDesc, rolloutFailedDesc, rolloutDurationDesc, rolloutTotalDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m RolloutMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), tallyTimeout)
	defer cancel()
	tallies, err := m.store.TallyRollouts(ctx, rollout.Environments(), rollout.Services())
	if err != nil {
		m.log.Warn("the metrics of rollouts cannot be read for now", "error", err.Error())
	}
	ch <- prometheus.MustNewConstMetric(rolloutsReadableDesc, prometheus.GaugeValue, truth(err == nil))
	type of struct{ environment, service string }
	running, last := map[of]int64{}, map[of]operation.Tally{}
	for _, t := range tallies {
		key := of{t.Environment, t.Service}
		running[key] += t.Running
		if ended := t.Total - t.Running; ended > 0 {
			ch <- prometheus.MustNewConstMetric(rolloutTotalDesc, prometheus.CounterValue, float64(ended), t.Environment, t.Service, t.State)
			if before, ok := last[key]; !ok || t.LastEnded.After(*before.LastEnded) {
				last[key] = t
			}
		}
		if t.State == operation.Succeeded && t.LastEnded != nil {
			ch <- prometheus.MustNewConstMetric(rolloutSuccessDesc, prometheus.GaugeValue, unix(*t.LastEnded), t.Environment, t.Service)
		}
	}
	for key, n := range running {
		ch <- prometheus.MustNewConstMetric(rolloutRunningDesc, prometheus.GaugeValue, float64(n), key.environment, key.service)
	}
	for key, t := range last {
		ch <- prometheus.MustNewConstMetric(rolloutFailedDesc, prometheus.GaugeValue, truth(t.State != operation.Succeeded), key.environment, key.service)
		ch <- prometheus.MustNewConstMetric(rolloutDurationDesc, prometheus.GaugeValue, t.LastEnded.Sub(*t.LastStarted).Seconds(), key.environment, key.service)
	}
}
