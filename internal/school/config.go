package school

import (
	"errors"
	"time"
)

// Config is how a process follows the school's settings.
type Config struct {
	// TokenFile holds a token of any role for configuration-service. It is read at each request, so that it may be replaced.
	// Empty: the settings are not followed, the defaults hold.
	TokenFile string `env:"SCHOOL_SETTINGS_TOKEN_FILE"`
	// Keep is how long the last known settings stay in force while configuration-service is away; then the defaults do.
	Keep time.Duration `env:"SCHOOL_SETTINGS_KEEP" envDefault:"1m"`
	// StartWait is how long a start waits for the first answer before it goes on with the defaults.
	StartWait time.Duration `env:"SCHOOL_SETTINGS_START_WAIT" envDefault:"3s"`
	// Wait is how long configuration-service may hold a request until there is a change: its CONFIGURATION_WATCH_WAIT or more.
	Wait time.Duration `env:"SCHOOL_SETTINGS_WAIT" envDefault:"15s"`
	// Timeout bounds one request beyond that wait.
	Timeout time.Duration `env:"SCHOOL_SETTINGS_TIMEOUT" envDefault:"3s"`
	// Retry is the longest pause between two attempts; the first is a sixteenth of it.
	Retry time.Duration `env:"SCHOOL_SETTINGS_RETRY" envDefault:"1s"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	var faults []error
	if c.Keep < 0 || c.StartWait < 0 {
		faults = append(faults, errors.New("SCHOOL_SETTINGS_KEEP and SCHOOL_SETTINGS_START_WAIT must not be negative"))
	}
	if c.Wait <= 0 || c.Timeout <= 0 || c.Retry <= 0 {
		faults = append(faults, errors.New("SCHOOL_SETTINGS_WAIT, SCHOOL_SETTINGS_TIMEOUT and SCHOOL_SETTINGS_RETRY must be above zero"))
	}
	return errors.Join(faults...)
}
