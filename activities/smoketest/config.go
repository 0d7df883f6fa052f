package smoketest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Config is what smoke tests need.
type Config struct {
	// Gateways by environment: name=URL, comma-separated, for example
	// production=http://127.0.0.1:8080,staging=http://127.0.0.1:8090.
	Gateways Gateways `env:"SMOKE_GATEWAYS"`
	// TokenFile holds the token that the tests send. It is read at each run, so that it may be renewed.
	TokenFile string `env:"SMOKE_TOKEN_FILE"`
	// Suites are files of the installation's own by environment: environment=path, comma-separated, for example
	// production=/etc/sms/school.yaml. They are run after the built-in suite, and read at each run.
	Suites SuiteFiles `env:"SMOKE_SUITES"`
}

// Gateway is the door of one environment.
type Gateway struct{ Environment, URL string }

// Gateways are the configured ones.
type Gateways []Gateway

// UnmarshalText reads SMOKE_GATEWAYS.
func (g *Gateways) UnmarshalText(text []byte) error {
	var faults []error
	for item := range strings.SplitSeq(string(text), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, address, ok := strings.Cut(item, "=")
		if parsed, err := url.Parse(address); !ok || name == "" || err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			faults = append(faults, fmt.Errorf("%q is not name=URL, such as production=http://127.0.0.1:8080", item))
			continue
		}
		*g = append(*g, Gateway{name, strings.TrimSuffix(address, "/")})
	}
	return errors.Join(faults...)
}

// URL returns the gateway of an environment.
func (g Gateways) URL(environment string) (string, bool) {
	i := slices.IndexFunc(g, func(gateway Gateway) bool { return gateway.Environment == environment })
	if i < 0 {
		return "", false
	}
	return g[i].URL, true
}

// Names lists the environments.
func (g Gateways) Names() []string {
	names := make([]string, len(g))
	for i, gateway := range g {
		names[i] = gateway.Environment
	}
	return names
}
