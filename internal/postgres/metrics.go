package postgres

import (
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	connectionsDesc = prometheus.NewDesc("sms_database_connections", "Connections of a pool, by what they do; max is the most there may be.",
		[]string{"pool", "state"}, nil)
	waitedDesc = prometheus.NewDesc("sms_database_connection_wait_seconds_total", "Time that requests have waited for a connection of an empty pool.",
		[]string{"pool"}, nil)
	upDesc   = prometheus.NewDesc("sms_database_replica_up", "Whether the replica answers, and is one of this primary.", nil, nil)
	usedDesc = prometheus.NewDesc("sms_database_replica_used", "Whether reads go to the replica.", nil, nil)
	lagDesc  = prometheus.NewDesc("sms_database_replica_lag_seconds", "Age of what the replica has replayed; +Inf until it is known.", nil, nil)
	readDesc = prometheus.NewDesc("sms_database_reads_total", "Reads that may go to the replica, by where they went and why.",
		[]string{"target", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (db *DB) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{connectionsDesc, waitedDesc, upDesc, usedDesc, lagDesc, readDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (db *DB) Collect(ch chan<- prometheus.Metric) {
	collectPool(ch, "primary", db.Pool)
	if db.replica == nil {
		return
	}
	r := db.replica
	collectPool(ch, "replica", r.Pool)
	s := r.seen.Load()
	lag := math.Inf(1)
	if !s.upTo.IsZero() {
		lag = time.Since(s.upTo).Seconds()
	}
	gauge(ch, lagDesc, lag)
	gauge(ch, upDesc, truth(s.away == nil))
	gauge(ch, usedDesc, truth(r.judge(Position{}) == fresh))
	for why := fresh; why < reasons; why++ {
		target := "primary"
		if why == fresh {
			target = "replica"
		}
		ch <- prometheus.MustNewConstMetric(readDesc, prometheus.CounterValue, float64(r.reads[why].Load()), target, why.String())
	}
}

func collectPool(ch chan<- prometheus.Metric, name string, pool *pgxpool.Pool) {
	stat := pool.Stat()
	gauge(ch, connectionsDesc, float64(stat.AcquiredConns()), name, "used")
	gauge(ch, connectionsDesc, float64(stat.IdleConns()), name, "idle")
	gauge(ch, connectionsDesc, float64(stat.MaxConns()), name, "max")
	ch <- prometheus.MustNewConstMetric(waitedDesc, prometheus.CounterValue, stat.EmptyAcquireWaitTime().Seconds(), name)
}

func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
