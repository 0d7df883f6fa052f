package backup

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"

	"github.com/school-sms/sms/internal/backup"
)

// Running is what of backups, drills and restores runs in this process at this moment. It is a prometheus.Collector:
// what has ended is no longer shown, so that the label values are the configured databases and the activities' names.
type Running struct {
	mu   sync.Mutex
	runs map[*run]struct{}
}

type run struct {
	database, step string
	meter          *backup.Meter
	began          time.Time
}

// begin shows a meter until end is called.
func (r *Running) begin(ctx context.Context, database string, meter *backup.Meter) (end func()) {
	if r == nil {
		return func() {}
	}
	one := &run{database: database, step: activity.GetInfo(ctx).ActivityType.Name, meter: meter, began: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.runs == nil {
		r.runs = map[*run]struct{}{}
	}
	r.runs[one] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.runs, one)
	}
}

var (
	runLabels       = []string{"database", "step"}
	runSecondsDesc  = prometheus.NewDesc("sms_backup_running_seconds", "How long a step of a backup, drill or restore has been running.", runLabels, nil)
	runBytesDesc    = prometheus.NewDesc("sms_backup_running_bytes", "Bytes of the archive that went through a running step.", runLabels, nil)
	runTablesDesc   = prometheus.NewDesc("sms_backup_running_tables", "Tables that a running step has counted.", runLabels, nil)
	runExpectedDesc = prometheus.NewDesc("sms_backup_running_tables_expected", "Tables that a running step is going to count.", runLabels, nil)
)

// Describe implements prometheus.Collector.
func (r *Running) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{runSecondsDesc, runBytesDesc, runTablesDesc, runExpectedDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. Of two runs of one step of one database, the longer is shown.
func (r *Running) Collect(ch chan<- prometheus.Metric) {
	type key struct{ database, step string }
	shown := map[key]*run{}
	r.mu.Lock()
	for one := range maps.Keys(r.runs) {
		k := key{one.database, one.step}
		if other := shown[k]; other == nil || one.began.Before(other.began) {
			shown[k] = one
		}
	}
	r.mu.Unlock()
	for k, one := range shown {
		for desc, value := range map[*prometheus.Desc]float64{
			runSecondsDesc: time.Since(one.began).Seconds(), runBytesDesc: float64(one.meter.Bytes.Load()),
			runTablesDesc: float64(one.meter.Tables.Load()), runExpectedDesc: float64(one.meter.AllTables.Load()),
		} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, k.database, k.step)
		}
	}
}
