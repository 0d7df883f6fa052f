// Package postgres is the platform's way to PostgreSQL: pools, migrations, and a private server for one machine.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config is how a service reaches its database.
type Config struct {
	// URL of the database without a password, for example postgres://student_service@127.0.0.1:15432/student_db.
	URL string `env:"DATABASE_URL,required"`
	// Password, read from the file named here.
	Password string `env:"DATABASE_PASSWORD_FILE,file"`
	// MaxConns is the most connections one process holds. All processes together must stay below the server's max_connections.
	MaxConns int32 `env:"DATABASE_MAX_CONNS" envDefault:"8"`
	// MinConns is how many connections are kept open, so that the first requests after a pause need not wait for one.
	MinConns int32 `env:"DATABASE_MIN_CONNS" envDefault:"1"`
	// MaxConnIdleTime closes a connection above MinConns that nobody used for so long: each costs the server a process of
	// 14 to 20 MB, and making one anew takes milliseconds.
	MaxConnIdleTime time.Duration `env:"DATABASE_MAX_CONN_IDLE_TIME" envDefault:"10s"`
	// MaxConnLifetime replaces a connection of that age: what a server process caches only grows, and a pool should find its
	// way to the right server after the database has moved.
	MaxConnLifetime time.Duration `env:"DATABASE_MAX_CONN_LIFETIME" envDefault:"30m"`
	// StatementTimeout ends a statement that runs longer.
	StatementTimeout time.Duration `env:"DATABASE_STATEMENT_TIMEOUT" envDefault:"15s"`
	// LockTimeout ends a statement that waits longer for a lock.
	LockTimeout time.Duration `env:"DATABASE_LOCK_TIMEOUT" envDefault:"5s"`
	// IdleInTransactionTimeout ends a transaction in which nothing happens for so long: it holds locks, and keeps the dead rows
	// of all tables.
	IdleInTransactionTimeout time.Duration `env:"DATABASE_IDLE_IN_TRANSACTION_TIMEOUT" envDefault:"60s"`
	// ConnectTimeout is how long one attempt to connect may take.
	ConnectTimeout time.Duration `env:"DATABASE_CONNECT_TIMEOUT" envDefault:"5s"`
	// Migrate applies pending migrations at start, contract steps too: for where no other release serves meanwhile. Off under `sms up`,
	// which has applied them before it starts a service, and where rollouts apply those of a new release.
	Migrate bool `env:"DATABASE_MIGRATE" envDefault:"false"`

	// ReplicaURL of a streaming replica, which takes reads; the role and its password are the primary's. Empty means none.
	ReplicaURL string `env:"DATABASE_REPLICA_URL"`
	// ReplicaMaxConns is the most connections one process holds to the replica, besides one to watch it.
	ReplicaMaxConns int32 `env:"DATABASE_REPLICA_MAX_CONNS" envDefault:"8"`
	// ReplicaMaxLag is how old the replica's data may be for reads to go there.
	ReplicaMaxLag time.Duration `env:"DATABASE_REPLICA_MAX_LAG" envDefault:"1s"`
	// ReplicaProbeInterval is how often the lag is measured.
	ReplicaProbeInterval time.Duration `env:"DATABASE_REPLICA_PROBE_INTERVAL" envDefault:"200ms"`
}

// Check names every fault.
func (c Config) Check() error {
	var faults []error
	for setting, conns := range map[string]int32{"DATABASE_MAX_CONNS": c.MaxConns, "DATABASE_REPLICA_MAX_CONNS": c.ReplicaMaxConns} {
		if conns < 1 {
			faults = append(faults, fmt.Errorf("%s: %d is no pool", setting, conns))
		}
	}
	if c.MinConns < 0 || c.MinConns > c.MaxConns {
		faults = append(faults, fmt.Errorf("DATABASE_MIN_CONNS: %d is not between 0 and DATABASE_MAX_CONNS", c.MinConns))
	}
	for setting, d := range map[string]time.Duration{"DATABASE_MAX_CONN_IDLE_TIME": c.MaxConnIdleTime, "DATABASE_MAX_CONN_LIFETIME": c.MaxConnLifetime,
		"DATABASE_STATEMENT_TIMEOUT": c.StatementTimeout, "DATABASE_LOCK_TIMEOUT": c.LockTimeout,
		"DATABASE_IDLE_IN_TRANSACTION_TIMEOUT": c.IdleInTransactionTimeout, "DATABASE_CONNECT_TIMEOUT": c.ConnectTimeout,
		"DATABASE_REPLICA_MAX_LAG": c.ReplicaMaxLag, "DATABASE_REPLICA_PROBE_INTERVAL": c.ReplicaProbeInterval} {
		if d < time.Millisecond {
			faults = append(faults, fmt.Errorf("%s: %s is too short", setting, d))
		}
	}
	return errors.Join(faults...)
}

// PoolConfig is the pgx configuration that the settings mean. application is shown in pg_stat_activity.
// The error never holds the password.
func (c Config) PoolConfig(application string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, errors.New("DATABASE_URL: not a PostgreSQL URL (postgres://user@host:port/database)")
	}
	if c.Password != "" {
		cfg.ConnConfig.Password = c.Password
	}
	cfg.MaxConns, cfg.MinConns = c.MaxConns, c.MinConns
	if c.MaxConnLifetime > 0 {
		cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = c.MaxConnLifetime, c.MaxConnLifetime/10
	}
	if c.MaxConnIdleTime > 0 {
		cfg.MaxConnIdleTime = c.MaxConnIdleTime
		cfg.HealthCheckPeriod = min(cfg.HealthCheckPeriod, c.MaxConnIdleTime/2) // which is when they are looked at
	}
	cfg.PingTimeout, cfg.PrepareConn = c.ConnectTimeout, stillOpen
	cfg.ConnConfig.ConnectTimeout = c.ConnectTimeout
	cfg.ConnConfig.DialFunc = c.dial
	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = application
	params["statement_timeout"] = milliseconds(c.StatementTimeout)
	params["lock_timeout"] = milliseconds(c.LockTimeout)
	params["idle_in_transaction_session_timeout"] = milliseconds(c.IdleInTransactionTimeout)
	params["timezone"] = "UTC"
	params["jit"] = "off" // compiling takes longer than our statements do
	return cfg, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Open makes a pool. It connects when first used, so that a service starts, and says that it is not ready, while its
// database is away.
func Open(ctx context.Context, c Config, application string) (*pgxpool.Pool, error) {
	cfg, err := c.PoolConfig(application)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool of %s: %w", cfg.ConnConfig.Database, err)
	}
	return pool, nil
}

// Unavailable reports whether err means that the database cannot be reached or cannot serve now, rather than that it
// refused what was asked. The classes are those of the PostgreSQL manual, appendix A.
func Unavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code[:2] {
		case "08", "53", "57": // connection exception, insufficient resources, operator intervention
			return true
		}
		switch pg.Code {
		case "55P03", // lock_timeout
			"55000", // a database that allows no connections
			"25006", // a write on a server that only reads: the primary has moved
			"25P03": // idle_in_transaction_session_timeout
			return true
		}
		// A database that a restore is replacing at this moment: its name is there before and after.
		return pg.Code == "3D000" && strings.Contains(pg.Detail, "renamed")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, net.ErrClosed)
}

// ViolatedConstraint returns the name of the unique constraint that err says was violated, or "".
func ViolatedConstraint(err error) string {
	const uniqueViolation = "23505"
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == uniqueViolation {
		return pg.ConstraintName
	}
	return ""
}
