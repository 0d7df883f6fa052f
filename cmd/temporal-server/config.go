package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5"
)

// Config is everything that can be set, each field by the environment variable in its tag.
type Config struct {
	// DatabaseURL names the PostgreSQL server, role and default database, such as
	// postgres://temporal@127.0.0.1:5432/temporal. All query parameters that pgx knows (sslmode, connect_timeout, …) work.
	// Required.
	DatabaseURL string `env:"TEMPORAL_DATABASE_URL,required,notEmpty"`
	// DatabasePasswordFile is the path of a file with the role's password; white space around it is dropped. The file is
	// read again for every new connection, so a changed password needs no restart. Default: the URL's password, if any.
	DatabasePasswordFile string `env:"TEMPORAL_DATABASE_PASSWORD_FILE"`
	// VisibilityDatabase holds the index that workflows are listed and searched by; same server and role.
	VisibilityDatabase string `env:"TEMPORAL_VISIBILITY_DATABASE" envDefault:"temporal_visibility"`
	// DatabaseCreate allows to create the two databases where they are missing.
	DatabaseCreate bool `env:"TEMPORAL_DATABASE_CREATE" envDefault:"true"`
	// DatabaseWait is how long to wait at start for PostgreSQL to accept connections; 0s tries once.
	DatabaseWait time.Duration `env:"TEMPORAL_DATABASE_WAIT" envDefault:"60s"`
	// DatabaseMaxConns is the most connections to the default database at any time, over all four services, each of which
	// gets a quarter; at least 8.
	DatabaseMaxConns int `env:"TEMPORAL_DATABASE_MAX_CONNS" envDefault:"20"`
	// VisibilityMaxConns is the same for the visibility database; at least 4.
	VisibilityMaxConns int `env:"TEMPORAL_VISIBILITY_MAX_CONNS" envDefault:"8"`

	// Address is where the frontend answers gRPC, as IP:port. Port 0 picks a free one; no IP means all of the machine's.
	Address string `env:"TEMPORAL_ADDRESS" envDefault:"127.0.0.1:7233"`
	// UIAddress is where the web UI answers, as IP:port. Empty switches the UI off.
	UIAddress string `env:"TEMPORAL_UI_ADDRESS" envDefault:"127.0.0.1:8233"`
	// HealthAddress is where health and metrics answer, as IP:port. Empty switches them off.
	HealthAddress string `env:"TEMPORAL_HEALTH_ADDRESS" envDefault:"127.0.0.1:0"`

	// Namespace is registered at start where it is missing.
	Namespace string `env:"TEMPORAL_NAMESPACE" envDefault:"sms"`
	// Retention is how long the namespace keeps closed workflows; at least 1h. A changed value takes effect at start.
	Retention time.Duration `env:"TEMPORAL_RETENTION" envDefault:"720h"`
	// HistoryShards is the number of shards of the default database, 1 to 1024. The first start fixes it for good: later
	// values are ignored.
	HistoryShards int32 `env:"TEMPORAL_HISTORY_SHARDS" envDefault:"4"`

	// LogLevel is the least severe level that is logged: debug, info, warn or error.
	LogLevel string `env:"LOG_LEVEL" envDefault:"info"`
	// GCPercent is how much the heap may grow before it is collected, in percent of what was alive. Less than Go's usual
	// 100, because this process rests most of the time: memory matters more than collector work.
	GCPercent int `env:"TEMPORAL_GC_PERCENT" envDefault:"50"`
}

// fault is what is wrong with one setting. Its text never repeats the value, which might be a secret.
type fault struct{ key, text string }

func (f fault) Error() string { return f.key + " " + f.text }

// namespacePattern is what Temporal accepts as the name of a namespace.
var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{1,254}$`)

// loadConfig reads the environment. Its error names all faults at once.
func loadConfig() (Config, error) {
	cfg, err := env.ParseAs[Config]()
	faults := parseFaults(err)
	// The library takes empty for unset, but here it means off.
	for key, field := range map[string]*string{
		"TEMPORAL_UI_ADDRESS": &cfg.UIAddress, "TEMPORAL_HEALTH_ADDRESS": &cfg.HealthAddress,
	} {
		if value, set := os.LookupEnv(key); set && value == "" {
			*field = ""
		}
	}
	for _, f := range cfg.faults() {
		// A field that could not be parsed is zero: one fault for it is enough.
		if !slices.ContainsFunc(faults, func(known fault) bool { return known.key == f.key }) {
			faults = append(faults, f)
		}
	}
	if len(faults) == 0 {
		return cfg, nil
	}
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.Error()
	}
	return Config{}, fmt.Errorf("invalid configuration: %s", strings.Join(texts, "; "))
}

// parseFaults puts the library's errors, which name Go fields, in terms of variables.
func parseFaults(err error) []fault {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return nil
	}
	var faults []fault
	for _, err := range all.Errors {
		var unset env.VarIsNotSetError
		var empty env.EmptyVarError
		var parse env.ParseError
		switch {
		case errors.As(err, &unset):
			faults = append(faults, fault{unset.Key, "is required"})
		case errors.As(err, &empty):
			faults = append(faults, fault{empty.Key, "is required"})
		case errors.As(err, &parse):
			field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
			key, _, _ := strings.Cut(field.Tag.Get("env"), ",")
			faults = append(faults, fault{key, "is not a valid " + kindName(parse.Type)})
		default:
			faults = append(faults, fault{"environment", err.Error()})
		}
	}
	return faults
}

func kindName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration, such as 90s or 720h"
	case t.Kind() == reflect.Bool:
		return "boolean, true or false"
	default:
		return "whole number"
	}
}

// faults checks each field by itself.
func (c Config) faults() []fault {
	var faults []fault
	check := func(ok bool, key, text string) {
		if !ok {
			faults = append(faults, fault{key, text})
		}
	}
	check(validDatabaseURL(c.DatabaseURL), "TEMPORAL_DATABASE_URL",
		"is not a PostgreSQL URL with role, host and database, such as postgres://temporal@127.0.0.1:5432/temporal")
	if _, err := c.databasePassword(); err != nil {
		check(false, "TEMPORAL_DATABASE_PASSWORD_FILE", "is not readable: "+err.Error())
	}
	check(c.VisibilityDatabase != c.database(), "TEMPORAL_VISIBILITY_DATABASE", "must differ from the default database")
	check(c.DatabaseWait >= 0, "TEMPORAL_DATABASE_WAIT", "must not be negative")
	check(c.DatabaseMaxConns >= 8, "TEMPORAL_DATABASE_MAX_CONNS", "must be at least 8")
	check(c.VisibilityMaxConns >= 4, "TEMPORAL_VISIBILITY_MAX_CONNS", "must be at least 4")
	const form = "is not IP:port, such as 127.0.0.1:0"
	check(validAddress(c.Address), "TEMPORAL_ADDRESS", form)
	check(c.UIAddress == "" || validAddress(c.UIAddress), "TEMPORAL_UI_ADDRESS", form)
	check(c.HealthAddress == "" || validAddress(c.HealthAddress), "TEMPORAL_HEALTH_ADDRESS", form)
	check(namespacePattern.MatchString(c.Namespace), "TEMPORAL_NAMESPACE",
		"must have 2 or more letters, digits, dots, dashes and underscores")
	check(c.Retention >= time.Hour, "TEMPORAL_RETENTION", "must be at least 1h")
	check(c.HistoryShards >= 1 && c.HistoryShards <= 1024, "TEMPORAL_HISTORY_SHARDS", "must be from 1 to 1024")
	check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "LOG_LEVEL",
		"must be debug, info, warn or error")
	check(c.GCPercent >= 10, "TEMPORAL_GC_PERCENT", "must be at least 10")
	return faults
}

func validDatabaseURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.User.Username() == "" {
		return false
	}
	parsed, err := pgx.ParseConfig(text)
	return err == nil && strings.Trim(u.Path, "/") != "" && parsed.Host != ""
}

func validAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false
	}
	_, err = netip.ParseAddr(host)
	return host == "" || err == nil
}

// database is the name of the default database.
func (c Config) database() string {
	u, err := url.Parse(c.DatabaseURL)
	if err != nil {
		return ""
	}
	return strings.Trim(u.Path, "/")
}

// databasePassword is what the password file holds, or "" when none is named.
func (c Config) databasePassword() (string, error) {
	if c.DatabasePasswordFile == "" {
		return "", nil
	}
	content, err := os.ReadFile(c.DatabasePasswordFile)
	return strings.TrimSpace(string(content)), err
}

// dsn is the connection string of one of the server's databases. It holds the password: never log it.
func (c Config) dsn(database string) (string, error) {
	u, err := url.Parse(c.DatabaseURL)
	if err != nil {
		return "", errors.New("TEMPORAL_DATABASE_URL is not a URL")
	}
	password, err := c.databasePassword()
	if err != nil {
		return "", fmt.Errorf("read the database password: %w", err)
	}
	if password != "" {
		u.User = url.UserPassword(u.User.Username(), password)
	}
	u.Path = "/" + database
	query := u.Query()
	setDefault(query, "application_name", "temporal-server")
	// Without a limit, a host that drops packets would hold up a start or a health check for minutes.
	setDefault(query, "connect_timeout", "5")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

func setDefault(query url.Values, key, value string) {
	if !query.Has(key) {
		query.Set(key, value)
	}
}
