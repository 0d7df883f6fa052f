package identity

import (
	"errors"
	"time"
)

// Config is what a verifying process needs.
type Config struct {
	// PublicKey is the platform's token key, an Ed25519 public key in PEM, read from the file named here.
	PublicKey string `env:"IDENTITY_PUBLIC_KEY_FILE,required,file"`
	// TokenCache is how many verified tokens are remembered until they expire, so that their signatures are not checked
	// with every request; 0 remembers none. One takes about 200 bytes.
	TokenCache int `env:"IDENTITY_TOKEN_CACHE" envDefault:"5000"`
	// Issuers are the OpenID Connect issuers whose tokens are taken besides the platform's own: JSON, read from the file
	// named here, see Issuer. None: only the platform's tokens are taken.
	Issuers string `env:"IDENTITY_OIDC_ISSUERS_FILE,file"`
	// Refresh is the longest time between two fetches of an issuer's keys, while it answers. A key that it takes back is
	// refused that long after at the latest, also for tokens that are remembered.
	Refresh time.Duration `env:"IDENTITY_OIDC_REFRESH" envDefault:"5m"`
	// Retry is the least time between two fetches from one issuer, whatever the cause: a failed fetch, or tokens that name
	// keys which nobody knows.
	Retry time.Duration `env:"IDENTITY_OIDC_RETRY" envDefault:"10s"`
	// Timeout bounds one fetch, and so the wait of a token whose key is being fetched.
	Timeout time.Duration `env:"IDENTITY_OIDC_TIMEOUT" envDefault:"5s"`
	// Waiting is how many requests may wait at once for one issuer's keys; further ones are refused at once.
	Waiting int `env:"IDENTITY_OIDC_WAITING" envDefault:"64"`
	// Keep is how long an issuer's keys are trusted while it does not answer.
	Keep time.Duration `env:"IDENTITY_OIDC_KEEP" envDefault:"24h"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	if c.TokenCache < 0 {
		faults = append(faults, errors.New("IDENTITY_TOKEN_CACHE must not be below zero"))
	}
	if c.Refresh <= 0 || c.Retry <= 0 || c.Timeout <= 0 || c.Waiting <= 0 {
		faults = append(faults, errors.New("IDENTITY_OIDC_REFRESH, _RETRY, _TIMEOUT and _WAITING must be above zero"))
	}
	if c.Keep < c.Refresh {
		faults = append(faults, errors.New("IDENTITY_OIDC_KEEP must not be below IDENTITY_OIDC_REFRESH"))
	}
	_, err := ParseIssuers(c.Issuers)
	return errors.Join(append(faults, err)...)
}
