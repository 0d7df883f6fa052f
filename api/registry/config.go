// Package registry is the service registry: the Eureka REST protocol in JSON and XML, an interface of its own through which
// gateways watch and operators split traffic, and a page for people at /.
//
// Every registry answers from memory. Several on one database agree through it: a change is decided on top of everything that
// was committed before it (registry_advance), told with NOTIFY, and applied by the others; renewals are exchanged once a
// second. A registry that is not alone asks the database whether it knows everything before it answers a read. Without the
// database each goes on in memory, and stores what it knows when the database is back. Only splits are in force after they are
// stored: an operator's decision must not be lost. When most heartbeats stop at once, nobody is evicted for a while. docs/decisions/0013-several-registries.md says more.
package registry

import (
	"errors"
	"fmt"
	"time"
)

// Config is how the registry treats leases.
type Config struct {
	// DefaultLease is the lease of an instance that does not name its own, as in Eureka.
	DefaultLease time.Duration `env:"REGISTRY_DEFAULT_LEASE" envDefault:"90s"`
	// MaxLease bounds the lease that an instance may ask for.
	MaxLease time.Duration `env:"REGISTRY_MAX_LEASE" envDefault:"10m"`
	// EvictInterval is the time between two looks for leases that ran out, and between two exchanges of renewals with the other
	// registries. A lease is over two intervals after its end, when every registry must have heard of the last renewal.
	EvictInterval time.Duration `env:"REGISTRY_EVICT_INTERVAL" envDefault:"1s"`
	// PreserveGrace is how much longer instances are kept when most heartbeats have stopped at once.
	PreserveGrace time.Duration `env:"REGISTRY_PRESERVE_GRACE" envDefault:"5m"`
	// MemberLease is how long a registry that says nothing counts as alive among the registries of one database.
	MemberLease time.Duration `env:"REGISTRY_MEMBER_LEASE" envDefault:"5s"`
	// DeltaRetention is how long a change is told in /apps/delta, as in Eureka.
	DeltaRetention time.Duration `env:"REGISTRY_DELTA_RETENTION" envDefault:"3m"`
	// DeltaMax is the most changes that are kept for /apps/delta; with more, clients are made to fetch everything.
	DeltaMax int `env:"REGISTRY_DELTA_MAX" envDefault:"20000"`
	// GzipAge is how old a compressed answer may be while nothing but renewals has come: its lastRenewalTimestamp is as old.
	GzipAge time.Duration `env:"REGISTRY_GZIP_AGE" envDefault:"30s"`
	// Settle is how long after its start the registry says that it may not know everybody yet.
	Settle time.Duration `env:"REGISTRY_SETTLE" envDefault:"20s"`
	// WriteWait bounds one exchange with the database, and so how long an answer waits for it. A database that takes longer
	// counts as away.
	WriteWait time.Duration `env:"REGISTRY_WRITE_WAIT" envDefault:"2s"`
	// StoreTimeout bounds the reading of everything that is stored.
	StoreTimeout time.Duration `env:"REGISTRY_STORE_TIMEOUT" envDefault:"10s"`
	// StartWait is how long the start waits for the stored leases before it goes on without them.
	StartWait time.Duration `env:"REGISTRY_START_WAIT" envDefault:"5s"`
	// MaxWait bounds how long a request for changes is held.
	MaxWait time.Duration `env:"REGISTRY_MAX_WAIT" envDefault:"60s"`
	// MemoryLimit is where the process begins to collect garbage harder to stay below it, in bytes; 0 means never.
	MemoryLimit int64 `env:"REGISTRY_MEMORY_LIMIT" envDefault:"115343360"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"REGISTRY_DEFAULT_LEASE", c.DefaultLease, time.Second}, {"REGISTRY_MAX_LEASE", c.MaxLease, time.Second},
		{"REGISTRY_EVICT_INTERVAL", c.EvictInterval, time.Millisecond}, {"REGISTRY_PRESERVE_GRACE", c.PreserveGrace, 0},
		{"REGISTRY_MEMBER_LEASE", c.MemberLease, 4 * c.EvictInterval}, {"REGISTRY_DELTA_RETENTION", c.DeltaRetention, time.Second},
		{"REGISTRY_GZIP_AGE", c.GzipAge, 0}, {"REGISTRY_SETTLE", c.Settle, 0}, {"REGISTRY_WRITE_WAIT", c.WriteWait, time.Millisecond},
		{"REGISTRY_STORE_TIMEOUT", c.StoreTimeout, time.Millisecond}, {"REGISTRY_START_WAIT", c.StartWait, 0},
		{"REGISTRY_MAX_WAIT", c.MaxWait, time.Millisecond},
	} {
		if d.value < d.least {
			faults = append(faults, fmt.Errorf("%s: %s is below %s", d.name, d.value, d.least))
		}
	}
	if c.DeltaMax < 1 {
		faults = append(faults, errors.New("REGISTRY_DELTA_MAX must be above zero"))
	}
	if c.MemoryLimit < 0 {
		faults = append(faults, errors.New("REGISTRY_MEMORY_LIMIT must not be negative"))
	}
	return errors.Join(faults...)
}

// slack is how long after its end a lease is over: by then a renewal that came to another registry is known here.
func (c Config) slack() time.Duration { return 2 * c.EvictInterval }

// pause is how long none may have stored renewals before that time is given back to every lease.
func (c Config) pause() time.Duration { return 3 * c.EvictInterval }

// sole is how long a registry that is alone may answer without asking. It outlives the next tick, and is well within the time
// after which a registry counts as dead.
func (c Config) sole() time.Duration { return c.EvictInterval + c.EvictInterval/2 }
