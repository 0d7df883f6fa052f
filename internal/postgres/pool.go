// Package postgres is the platform's way to PostgreSQL: pools, migrations, and a private server for one machine.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
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
	// MaxConns is the most connections one process holds.
	MaxConns int32 `env:"DATABASE_MAX_CONNS" envDefault:"8"`
	// StatementTimeout ends a statement that runs longer.
	StatementTimeout time.Duration `env:"DATABASE_STATEMENT_TIMEOUT" envDefault:"15s"`
	// LockTimeout ends a statement that waits longer for a lock.
	LockTimeout time.Duration `env:"DATABASE_LOCK_TIMEOUT" envDefault:"5s"`
	// ConnectTimeout is how long one attempt to connect may take.
	ConnectTimeout time.Duration `env:"DATABASE_CONNECT_TIMEOUT" envDefault:"5s"`
	// Migrate applies pending migrations at start. Off under `sms up`, which has applied them before it starts a service.
	Migrate bool `env:"DATABASE_MIGRATE" envDefault:"false"`
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
	cfg.MaxConns = c.MaxConns
	cfg.ConnConfig.ConnectTimeout = c.ConnectTimeout
	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = application
	params["statement_timeout"] = strconv.FormatInt(c.StatementTimeout.Milliseconds(), 10)
	params["lock_timeout"] = strconv.FormatInt(c.LockTimeout.Milliseconds(), 10)
	params["timezone"] = "UTC"
	return cfg, nil
}

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
		const lockNotAvailable, notAccepting = "55P03", "55000" // lock_timeout; a database that allows no connections
		return pg.Code == lockNotAvailable || pg.Code == notAccepting
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
