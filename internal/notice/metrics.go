package notice

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func counter(name, help string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sms_notice_" + name + "_total", Help: help}, []string{"webhook"})
}

var oldestDesc = prometheus.NewDesc("sms_notice_oldest_seconds", "Age of the notice that a webhook has not taken yet; 0 when it has taken all.", []string{"webhook"}, nil)

// Describe implements prometheus.Collector.
func (d *Deliverer) Describe(ch chan<- *prometheus.Desc) {
	d.sent.Describe(ch)
	d.failed.Describe(ch)
	d.dropped.Describe(ch)
	ch <- oldestDesc
}

// Collect implements prometheus.Collector. What is counted is this process's; the age is the webhook's, from ops_db.
func (d *Deliverer) Collect(ch chan<- prometheus.Metric) {
	reports, _ := d.Reports()
	for _, r := range reports {
		for _, c := range []*prometheus.CounterVec{d.sent, d.failed, d.dropped} {
			c.WithLabelValues(r.Name) // 0 counts too
		}
		age := 0.0
		if r.WaitingSince != nil {
			age = time.Since(*r.WaitingSince).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, age, r.Name)
	}
	d.sent.Collect(ch)
	d.failed.Collect(ch)
	d.dropped.Collect(ch)
}
