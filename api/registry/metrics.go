package registry

import "github.com/prometheus/client_golang/prometheus"

var (
	instancesDesc  = prometheus.NewDesc("sms_registry_instances", "Registered instances, by state.", []string{"state"}, nil)
	othersDesc     = prometheus.NewDesc("sms_registry_others", "Other registries that live on the same database.", nil, nil)
	onlineDesc     = prometheus.NewDesc("sms_registry_database_up", "Whether changes go to the database first.", nil, nil)
	unstoredDesc   = prometheus.NewDesc("sms_registry_unstored", "Leases that memory knows better than the database.", nil, nil)
	preservingDesc = prometheus.NewDesc("sms_registry_preserving", "Whether evictions are held because most heartbeats have stopped at once.", nil, nil)
)

// Describe implements prometheus.Collector.
func (r *Registry) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{instancesDesc, othersDesc, onlineDesc, unstoredDesc, preservingDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. The states of instances are a fixed few.
func (r *Registry) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for state, count := range r.states {
		gauge(instancesDesc, float64(count), state)
	}
	gauge(othersDesc, float64(r.others))
	gauge(onlineDesc, truth(r.online))
	gauge(unstoredDesc, float64(len(r.unstored)))
	gauge(preservingDesc, truth(r.preserving))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
