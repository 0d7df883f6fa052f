// Package gateway is the single entry point: it checks who calls, finds a healthy instance of the service that the path
// belongs to, and passes the request through without holding it.
//
// A request meets the door first (door.go: what browsers are told, limits, and with the token of api/server, who calls), then what
// refuses disguises (hostile.go, routes.go) and the table of roles (routes.go). Its fleet then picks an instance by the split and
// by health (fleet.go, pick.go, health.go, breaker.go), and the transport tries another one where that helps, within a budget
// (transport.go, budget.go). Requests without a body go by code of our own (forward.go, exchange.go), the others by
// httputil.ReverseProxy. docs/decisions/0014, 0015 and 0017 say why.
package gateway

import (
	"errors"
	"time"
)

// Config is how the gateway treats its callers and the instances behind it.
type Config struct {
	// ConnectTimeout bounds the opening of a connection to an instance.
	ConnectTimeout time.Duration `env:"GATEWAY_CONNECT_TIMEOUT" envDefault:"1s"`
	// ResponseHeaderTimeout bounds the wait from the request's last byte to the answer's headers.
	ResponseHeaderTimeout time.Duration `env:"GATEWAY_RESPONSE_HEADER_TIMEOUT" envDefault:"30s"`
	// IdleTimeout closes an unused connection to an instance. Below SERVER_IDLE_TIMEOUT of the services, so that the
	// gateway closes first.
	IdleTimeout time.Duration `env:"GATEWAY_IDLE_TIMEOUT" envDefault:"60s"`
	// MaxIdlePerInstance is how many unused connections to one instance are kept.
	MaxIdlePerInstance int `env:"GATEWAY_MAX_IDLE_PER_INSTANCE" envDefault:"256"`
	// WaitForInstance is how long a request waits for an instance when there is none, for example during a restart. When
	// there has been none for twice as long, requests do not wait any more.
	WaitForInstance time.Duration `env:"GATEWAY_WAIT_FOR_INSTANCE" envDefault:"5s"`
	// Retries is how many further times a request may be tried.
	Retries int `env:"GATEWAY_RETRIES" envDefault:"2"`
	// CheckInterval is the time between two readiness checks of an instance.
	CheckInterval time.Duration `env:"GATEWAY_CHECK_INTERVAL" envDefault:"500ms"`
	// CheckTimeout bounds one readiness check. With the interval it makes less than the second in which an instance that
	// has stopped answering is out.
	CheckTimeout time.Duration `env:"GATEWAY_CHECK_TIMEOUT" envDefault:"400ms"`
	// FirstView is how long after its start the gateway waits for the registry before it says that it is ready all the same.
	FirstView time.Duration `env:"GATEWAY_FIRST_VIEW" envDefault:"3s"`
	// MaxBodyBytes bounds the body of a request; it stands for SERVER_MAX_BODY_BYTES here, as bodies are not held.
	// The services have their own, lower bounds.
	MaxBodyBytes int64 `env:"GATEWAY_MAX_BODY_BYTES" envDefault:"1073741824"`
	// GCPercent is how much garbage, in percent of what lives, may gather before it is collected, as GOGC: a gateway keeps little
	// and throws much away, and so spends memory (up to about 25 MB under load) to have a tenth more requests a second.
	GCPercent int `env:"GATEWAY_GC_PERCENT" envDefault:"400"`
	// DocumentTTL is how long the merged OpenAPI document is served before the services are asked again.
	DocumentTTL time.Duration `env:"GATEWAY_DOCUMENT_TTL" envDefault:"30s"`
	// DocumentTimeout bounds the asking of one service for its OpenAPI document.
	DocumentTimeout time.Duration `env:"GATEWAY_DOCUMENT_TIMEOUT" envDefault:"3s"`
	// Door is how the gateway treats its callers.
	Door DoorConfig
	UpstreamConfig
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	if c.ConnectTimeout <= 0 || c.ResponseHeaderTimeout <= 0 || c.CheckInterval <= 0 || c.CheckTimeout <= 0 || c.DocumentTimeout <= 0 {
		faults = append(faults, errors.New("GATEWAY_CONNECT_TIMEOUT, _RESPONSE_HEADER_TIMEOUT, _CHECK_INTERVAL, _CHECK_TIMEOUT and _DOCUMENT_TIMEOUT must be above zero"))
	}
	if c.Retries < 0 || c.WaitForInstance < 0 || c.MaxIdlePerInstance < 0 || c.MaxBodyBytes <= 0 {
		faults = append(faults, errors.New("GATEWAY_RETRIES, _WAIT_FOR_INSTANCE, _MAX_IDLE_PER_INSTANCE must not be negative, _MAX_BODY_BYTES above zero"))
	}
	if c.GCPercent <= 0 {
		faults = append(faults, errors.New("GATEWAY_GC_PERCENT must be above zero"))
	}
	return errors.Join(append(append(faults, c.upstreamFaults()...), c.Door.Check())...)
}
