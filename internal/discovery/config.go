package discovery

import (
	"errors"
	"net/url"
	"strings"
	"time"
)

// Config is how a process reaches the registry and how it keeps its own lease there.
type Config struct {
	// URL of the registry's Eureka interface, for example http://127.0.0.1:8761/eureka. Several, separated by commas, are
	// registries of one database: the one that answers is kept to, and the next is asked when it does not.
	URL string `env:"DISCOVERY_URL,required"`
	// Environment that this process belongs to: production or staging.
	Environment string `env:"SMS_ENVIRONMENT" envDefault:"production"`
	// RenewInterval is the time between two renewals of the lease; each is moved at random by up to a fifth.
	RenewInterval time.Duration `env:"DISCOVERY_RENEW_INTERVAL" envDefault:"5s"`
	// LeaseDuration is how long the registry shows this instance without a renewal. Whole seconds.
	LeaseDuration time.Duration `env:"DISCOVERY_LEASE_DURATION" envDefault:"15s"`
	// Timeout bounds one request to the registry, and the whole of leaving it.
	Timeout time.Duration `env:"DISCOVERY_TIMEOUT" envDefault:"3s"`
	// Wait is how long the registry holds a request for changes before it answers that there are none.
	Wait time.Duration `env:"DISCOVERY_WAIT" envDefault:"25s"`
	// TokenFile holds the token that changes splits. It is read at each use, so that it may be replaced. Empty: none.
	TokenFile string `env:"DISCOVERY_TOKEN_FILE"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	for _, address := range c.addresses() {
		if u, err := url.Parse(address); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			faults = append(faults, errors.New("DISCOVERY_URL: not an http or https address (http://host:port/eureka)"))
			break
		}
	}
	if c.RenewInterval <= 0 || c.Timeout <= 0 || c.Wait <= 0 {
		faults = append(faults, errors.New("DISCOVERY_RENEW_INTERVAL, DISCOVERY_TIMEOUT and DISCOVERY_WAIT must be above zero"))
	}
	if c.LeaseDuration < time.Second || c.LeaseDuration < 2*c.RenewInterval {
		faults = append(faults, errors.New("DISCOVERY_LEASE_DURATION must be at least 1s and twice DISCOVERY_RENEW_INTERVAL"))
	}
	return errors.Join(faults...)
}

// addresses are those of the Eureka interfaces, without a slash at their ends.
func (c Config) addresses() []string {
	addresses := strings.Split(c.URL, ",")
	for i, address := range addresses {
		addresses[i] = strings.TrimRight(strings.TrimSpace(address), "/")
	}
	return addresses
}

// root is the address of a registry itself: its own interface stands beside /eureka.
func root(eureka string) string {
	return strings.TrimSuffix(strings.TrimSuffix(eureka, "/v2"), "/eureka")
}
