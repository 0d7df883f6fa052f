package ops

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func ofDatabase(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("sms_backup_"+name, help, []string{"database"}, nil)
}

var (
	readableDesc = prometheus.NewDesc("sms_backup_catalogue_readable", "Whether the last look at what is on record of backups succeeded.", nil, nil)
	promiseDesc  = prometheus.NewDesc("sms_backup_promise_seconds", "How old the newest verified backup of a database may be.", nil, nil)

	overdueDesc  = ofDatabase("overdue", "Whether the newest verified backup is older than promised, or missing though it was due.")
	ageDesc      = ofDatabase("newest_verified_age_seconds", "Age of the newest verified backup: what was written since would be lost.")
	successDesc  = ofDatabase("last_success_timestamp_seconds", "When the newest verified backup had proven itself.")
	failedDesc   = ofDatabase("last_run_failed", "Whether the newest backup that has ended did so without being verified.")
	bytesDesc    = ofDatabase("size_bytes", "Size of the newest verified backup as stored.")
	dumpDesc     = ofDatabase("dump_size_bytes", "Size of the newest verified backup's dump before compression.")
	durationDesc = ofDatabase("duration_seconds", "How long the newest verified backup took, its drill included.")
	dumpTimeDesc = ofDatabase("dump_duration_seconds", "How long the dump of the newest verified backup took.")
	rateDesc     = ofDatabase("throughput_bytes_per_second", "Bytes of dump a second of the newest verified backup.")
	drillDesc    = ofDatabase("drill_restore_seconds", "How long the last drill took to restore: the measured recovery time.")
)

// Describe implements prometheus.Collector.
func (w *Watchdog) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{readableDesc, promiseDesc, overdueDesc, ageDesc, successDesc, failedDesc, bytesDesc, dumpDesc,
		durationDesc, dumpTimeDesc, rateDesc, drillDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. The databases are the configured ones; all figures come from ops_db, so that
// they are the same after a restart.
func (w *Watchdog) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(readableDesc, prometheus.GaugeValue, truth(w.readable))
	ch <- prometheus.MustNewConstMetric(promiseDesc, prometheus.GaugeValue, w.promise.Seconds())
	for i, r := range w.assess() {
		gauge := func(desc *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, r.Database)
		}
		gauge(overdueDesc, truth(r.State == Overdue))
		if last := w.standings[i].Last; last != nil && last.Ended() {
			gauge(failedDesc, truth(r.Point == nil || r.Point.BackupID != last.ID))
		}
		if r.Time != nil {
			gauge(drillDesc, r.Time.Seconds)
		}
		if p := r.Point; p != nil {
			gauge(ageDesc, p.AgeSeconds)
			gauge(successDesc, unix(p.EndedAt))
			gauge(durationDesc, p.EndedAt.Sub(p.TakenAt).Seconds())
			gauge(bytesDesc, float64(p.Bytes))
			gauge(dumpDesc, float64(p.DumpBytes))
			gauge(dumpTimeDesc, p.DumpSeconds)
			if p.DumpSeconds > 0 {
				gauge(rateDesc, float64(p.DumpBytes)/p.DumpSeconds)
			}
		}
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
