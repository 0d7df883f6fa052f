package gateway

import (
	"errors"
	"time"
)

// UpstreamConfig is how requests are spread over instances, and how instances and requests are kept from harming each other.
type UpstreamConfig struct {
	// SendIdleTimeout ends a request when the instance takes nothing of what is sent to it for so long.
	SendIdleTimeout time.Duration `env:"GATEWAY_SEND_IDLE_TIMEOUT" envDefault:"30s"`
	// ExchangeIdleTimeout ends an exchange in which no byte moves in either direction for so long. Streams of events must
	// have a sign of life within it. Above GATEWAY_IDLE_TIMEOUT and GATEWAY_RESPONSE_HEADER_TIMEOUT.
	ExchangeIdleTimeout time.Duration `env:"GATEWAY_EXCHANGE_IDLE_TIMEOUT" envDefault:"5m"`
	// MaxWaiting is how many requests may wait for an instance of one service at a time; the others are refused at once.
	// 0: no bound.
	MaxWaiting int64 `env:"GATEWAY_MAX_WAITING" envDefault:"256"`

	// RetryBudgetPercent is how many further tries there may be for each hundred requests to a service, within
	// RetryBudgetWindow.
	RetryBudgetPercent int `env:"GATEWAY_RETRY_BUDGET_PERCENT" envDefault:"20"`
	// RetryBudgetMin is how many further tries there may be within RetryBudgetWindow besides, so that a service with few
	// requests has some.
	RetryBudgetMin int `env:"GATEWAY_RETRY_BUDGET_MIN" envDefault:"10"`
	// RetryBudgetWindow is the time over which requests and further tries are weighed; at most 60 s.
	RetryBudgetWindow time.Duration `env:"GATEWAY_RETRY_BUDGET_WINDOW" envDefault:"10s"`

	// SlowStart is the time in which an instance that is new or has come back grows to its full part of the requests; 0
	// gives it that at once.
	SlowStart time.Duration `env:"GATEWAY_SLOW_START" envDefault:"10s"`
	// LatencyHalfLife is the time after which what is known of an instance's latency counts half, so that one that was
	// slow is tried again.
	LatencyHalfLife time.Duration `env:"GATEWAY_LATENCY_HALF_LIFE" envDefault:"10s"`

	// EjectAfter is by how many the proven faults of an instance must exceed its good answers before it is ejected.
	EjectAfter int `env:"GATEWAY_EJECT_AFTER" envDefault:"5"`
	// MaxEjectedPercent is how many of a release's instances may be ejected at a time for what is not certain: faults and
	// silence. The last one never is.
	MaxEjectedPercent int `env:"GATEWAY_MAX_EJECTED_PERCENT" envDefault:"50"`
	// EjectTime is how long the first ejection for faults lasts; each further one lasts twice as long as the one before.
	EjectTime time.Duration `env:"GATEWAY_EJECT_TIME" envDefault:"1s"`
	// EjectTimeMax bounds that, and is how long an instance must have been sound to begin anew.
	EjectTimeMax time.Duration `env:"GATEWAY_EJECT_TIME_MAX" envDefault:"30s"`
	// Trials is how many requests in a row an instance must answer, one at a time, before an ejection for faults ends.
	Trials int `env:"GATEWAY_TRIALS" envDefault:"3"`
}

// upstreamFaults reports every fault of this part of the configuration.
func (c Config) upstreamFaults() []error {
	var faults []error
	fault := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, errors.New(text))
		}
	}
	fault(c.SendIdleTimeout <= 0, "GATEWAY_SEND_IDLE_TIMEOUT must be above zero")
	fault(c.ExchangeIdleTimeout <= c.IdleTimeout || c.ExchangeIdleTimeout <= c.ResponseHeaderTimeout,
		"GATEWAY_EXCHANGE_IDLE_TIMEOUT must be above GATEWAY_IDLE_TIMEOUT and GATEWAY_RESPONSE_HEADER_TIMEOUT")
	fault(c.MaxWaiting < 0, "GATEWAY_MAX_WAITING must not be negative")
	fault(c.RetryBudgetPercent < 0 || c.RetryBudgetPercent > 100, "GATEWAY_RETRY_BUDGET_PERCENT must be from 0 to 100")
	fault(c.RetryBudgetMin < 0, "GATEWAY_RETRY_BUDGET_MIN must not be negative")
	fault(c.RetryBudgetWindow < time.Second || c.RetryBudgetWindow > time.Minute, "GATEWAY_RETRY_BUDGET_WINDOW must be from 1s to 1m")
	fault(c.SlowStart < 0, "GATEWAY_SLOW_START must not be negative")
	fault(c.LatencyHalfLife <= 0, "GATEWAY_LATENCY_HALF_LIFE must be above zero")
	fault(c.EjectAfter < 1 || c.Trials < 1, "GATEWAY_EJECT_AFTER and GATEWAY_TRIALS must be at least 1")
	fault(c.MaxEjectedPercent < 0 || c.MaxEjectedPercent > 100, "GATEWAY_MAX_EJECTED_PERCENT must be from 0 to 100")
	fault(c.EjectTime <= 0 || c.EjectTimeMax < c.EjectTime, "GATEWAY_EJECT_TIME must be above zero and at most GATEWAY_EJECT_TIME_MAX")
	return faults
}
