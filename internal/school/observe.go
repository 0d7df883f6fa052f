package school

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Health says whether all is as configured, and what holds: CURRENT while configuration-service answers, LAST_KNOWN or DEFAULTS.
func (w *Watcher) Health() (ok bool, details map[string]any) {
	s := w.state.Load()
	holds := s.inForce(w.cfg.Keep)
	details = map[string]any{"inForce": holds}
	switch {
	case w.cfg.TokenFile == "":
		details["reason"] = "SCHOOL_SETTINGS_TOKEN_FILE is not set"
		return true, details
	case s.last.Confirmed.IsZero():
		details["reason"] = "configuration-service has not answered yet"
	case holds != current:
		details["reason"] = "configuration-service is away"
		details["since"] = s.lost.UTC().Format(time.RFC3339)
	}
	if holds != defaults {
		details["version"] = s.last.Version
	}
	return holds == current, details
}

// Collectors are the metrics of a watcher.
func (w *Watcher) Collectors() []prometheus.Collector {
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "school_settings_age_seconds",
		Help: "Time since configuration-service last confirmed the school's settings; +Inf: never."}, func() float64 {
		if confirmed := w.state.Load().last.Confirmed; !confirmed.IsZero() {
			return time.Since(confirmed).Seconds()
		}
		return math.Inf(1)
	})
	fallback := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "school_settings_fallback",
		Help: "1 while the default settings hold because nobody says what the school has set, else 0."}, func() float64 {
		if w.state.Load().inForce(w.cfg.Keep) == defaults {
			return 1
		}
		return 0
	})
	return []prometheus.Collector{age, fallback}
}
