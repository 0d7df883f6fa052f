package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// DoorConfig is how much of whom the gateway bears. Each gateway process counts by itself.
type DoorConfig struct {
	// UserRate is how many requests a second each user may make in the long run; 0: no limit.
	UserRate int `env:"GATEWAY_USER_RATE" envDefault:"500"`
	// UserBurst is how many requests a user who has made none for a while may make at once.
	UserBurst int `env:"GATEWAY_USER_BURST" envDefault:"1000"`
	// AddressRate is how many requests a second without a good token each client address may make in the long run, among them
	// those for documents; 0: no limit. A network of IPv6 (/64) is one address.
	AddressRate int `env:"GATEWAY_ADDRESS_RATE" envDefault:"50"`
	// AddressBurst is how many of them an address that has made none for a while may make at once.
	AddressBurst int `env:"GATEWAY_ADDRESS_BURST" envDefault:"200"`
	// LimitedClients is how many users, and how many addresses, are told apart at once; the further ones share limits. One
	// takes about 40 bytes, and none while its bucket is full.
	LimitedClients int `env:"GATEWAY_LIMITED_CLIENTS" envDefault:"65536"`
	// TrustedProxies are the addresses or networks of proxies before the gateway, separated by commas, whose X-Forwarded-For
	// says where a request comes from. Default: none, nobody is believed.
	TrustedProxies Networks `env:"GATEWAY_TRUSTED_PROXIES"`
	// MaxInFlight is how many requests may be under way at once; further ones are answered 503 at once. 0: no bound.
	MaxInFlight int64 `env:"GATEWAY_MAX_IN_FLIGHT" envDefault:"1024"`
	// MaxLasting is the same for requests that last by their nature, which are counted apart: waits for a change, streams of
	// events, upgrades, and bodies of 1 MiB and more or of unknown length. 0: no bound.
	MaxLasting int64 `env:"GATEWAY_MAX_LASTING" envDefault:"512"`
	// ShedRetryAfter is when those that were turned away may try again.
	ShedRetryAfter time.Duration `env:"GATEWAY_SHED_RETRY_AFTER" envDefault:"1s"`
	// MaxHeaders is how many header lines a request may have; 0: no bound. See SERVER_MAX_HEADER_BYTES too.
	MaxHeaders int `env:"GATEWAY_MAX_HEADERS" envDefault:"100"`
	// CORSOrigins are the web pages that may call, such as https://school.example, separated by commas. Default: none.
	CORSOrigins []string `env:"GATEWAY_CORS_ORIGINS"`
	// CORSMaxAge is how long a browser may remember what it was allowed.
	CORSMaxAge time.Duration `env:"GATEWAY_CORS_MAX_AGE" envDefault:"2h"`
	// HSTSMaxAge is how long browsers are told to come by https only. Set it when a proxy that ends TLS stands before the
	// gateway. 0: they are not told.
	HSTSMaxAge time.Duration `env:"GATEWAY_HSTS_MAX_AGE" envDefault:"0s"`
}

// Check reports every fault.
func (c DoorConfig) Check() error {
	var faults []error
	const fastest = 1_000_000 // a second
	if c.UserRate < 0 || c.UserRate > fastest || c.AddressRate < 0 || c.AddressRate > fastest {
		faults = append(faults, fmt.Errorf("GATEWAY_USER_RATE and _ADDRESS_RATE must be between 0 and %d", fastest))
	}
	if c.UserRate > 0 && c.UserBurst < 1 || c.AddressRate > 0 && c.AddressBurst < 1 || c.LimitedClients < 1 {
		faults = append(faults, errors.New("GATEWAY_USER_BURST, _ADDRESS_BURST and _LIMITED_CLIENTS must be above zero"))
	}
	if c.MaxInFlight < 0 || c.MaxLasting < 0 || c.MaxHeaders < 0 || c.ShedRetryAfter < 0 || c.CORSMaxAge < 0 || c.HSTSMaxAge < 0 {
		faults = append(faults, errors.New("GATEWAY_MAX_IN_FLIGHT, _MAX_LASTING, _MAX_HEADERS, _SHED_RETRY_AFTER, _CORS_MAX_AGE and "+
			"_HSTS_MAX_AGE must not be negative"))
	}
	for _, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Contains(u.Host, "*") || origin != u.Scheme+"://"+u.Host {
			faults = append(faults, fmt.Errorf("GATEWAY_CORS_ORIGINS: %q is no origin such as https://school.example", origin))
		}
	}
	return errors.Join(faults...)
}

// Networks is a list of addresses and networks.
type Networks []netip.Prefix

// UnmarshalText reads them, separated by commas.
func (n *Networks) UnmarshalText(text []byte) error {
	var faults []error
	for item := range strings.SplitSeq(string(text), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if address, err := netip.ParseAddr(item); err == nil {
			*n = append(*n, netip.PrefixFrom(address, address.BitLen()))
		} else if network, err := netip.ParsePrefix(item); err == nil {
			*n = append(*n, network.Masked())
		} else {
			faults = append(faults, fmt.Errorf("%q is no address or network, such as 10.0.0.0/8", item))
		}
	}
	return errors.Join(faults...)
}
