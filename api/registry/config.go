// Package registry is the service registry: the Eureka REST protocol on leases that survive a restart, and an interface
// of its own through which gateways watch and operators split traffic.
//
// Memory serves every read and takes every write; registry_db follows it, so that the registry goes on while the
// database is away. Only splits are in force after they are stored: an operator's decision must not be lost.
package registry

import (
	"errors"
	"time"
)

// Config is how the registry treats leases.
type Config struct {
	// DefaultLease is the lease of an instance that does not name its own, as in Eureka.
	DefaultLease time.Duration `env:"REGISTRY_DEFAULT_LEASE" envDefault:"90s"`
	// MaxLease bounds the lease that an instance may ask for.
	MaxLease time.Duration `env:"REGISTRY_MAX_LEASE" envDefault:"10m"`
	// EvictInterval is the time between two looks for leases that ran out.
	EvictInterval time.Duration `env:"REGISTRY_EVICT_INTERVAL" envDefault:"1s"`
	// Settle is how long after its start the registry says that it may not know everybody yet.
	Settle time.Duration `env:"REGISTRY_SETTLE" envDefault:"20s"`
	// WriteWait is how long an answer waits for the database to hold the change.
	WriteWait time.Duration `env:"REGISTRY_WRITE_WAIT" envDefault:"500ms"`
	// StoreTimeout bounds one transaction.
	StoreTimeout time.Duration `env:"REGISTRY_STORE_TIMEOUT" envDefault:"5s"`
	// StartWait is how long the start waits for the stored leases before it goes on without them.
	StartWait time.Duration `env:"REGISTRY_START_WAIT" envDefault:"5s"`
	// MaxWait bounds how long a request for changes is held.
	MaxWait time.Duration `env:"REGISTRY_MAX_WAIT" envDefault:"60s"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	for _, d := range []time.Duration{c.DefaultLease, c.MaxLease, c.EvictInterval, c.StoreTimeout, c.MaxWait} {
		if d <= 0 {
			return errors.New("REGISTRY_DEFAULT_LEASE, _MAX_LEASE, _EVICT_INTERVAL, _STORE_TIMEOUT and _MAX_WAIT must be above zero")
		}
	}
	return nil
}
