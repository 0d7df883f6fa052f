package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/migration/sqlcheck"
)

// Limits bound what a migration costs those who use its tables meanwhile: while it waits for a lock, everybody waits who comes after.
type Limits struct {
	// LockTimeout ends a statement of a migration that waits longer for a lock, and with it the migration, which is tried again. Above
	// the server's deadlock_timeout (1 s), after which an autovacuum that is in the way is told to go.
	LockTimeout time.Duration `env:"MIGRATE_LOCK_TIMEOUT" envDefault:"2s"`
	// Pause is the time in which traffic goes on before a migration is tried again.
	Pause time.Duration `env:"MIGRATE_PAUSE" envDefault:"3s"`
	// Patience is how long one migration is tried again while others hold its locks.
	Patience time.Duration `env:"MIGRATE_PATIENCE" envDefault:"5m"`
}

// Check names every fault.
func (l Limits) Check() error {
	var faults []error
	for setting, d := range map[string]time.Duration{"MIGRATE_LOCK_TIMEOUT": l.LockTimeout, "MIGRATE_PAUSE": l.Pause, "MIGRATE_PATIENCE": l.Patience} {
		if d < time.Millisecond {
			faults = append(faults, fmt.Errorf("%s: %s is too short", setting, d))
		}
	}
	return errors.Join(faults...)
}

// ErrLocked says that a migration did not get its locks in all its patience.
var ErrLocked = errors.New("others hold its locks")

// ApplyMigrations runs the pending migrations of a kind, up to the first of another kind, beside the traffic of the database. It may be
// called again, and by several at once. It returns where the database stands then.
func ApplyMigrations(ctx context.Context, c Config, migrations fs.FS, kind migration.Kind, limits Limits) (migration.Plan, error) {
	plan, err := PlanMigrations(ctx, c, migrations)
	if err != nil {
		return plan, err
	}
	if faults := plan.Faults(); len(faults) > 0 {
		return plan, errors.New(strings.Join(faults, "; "))
	}
	next := plan.Next(kind)
	if len(next) == 0 {
		return plan, nil
	}
	c.LockTimeout = limits.LockTimeout
	var m *migrator
	err = limits.try(ctx, "the lock of all migrations", func() (err error) {
		m, err = openMigrator(ctx, c, migrations)
		return err
	})
	if err != nil {
		return plan, err
	}
	defer m.close(ctx)
	for n, one := range next {
		if err := m.apply(ctx, one, limits); err != nil {
			return plan, fmt.Errorf("migrate %s: %w%s", m.database, err, after(next[:n]))
		}
	}
	return PlanMigrations(ctx, c, migrations)
}

func after(done []migration.Migration) string {
	if len(done) == 0 {
		return ""
	}
	return "; " + migration.Names(done) + " ran before it, and stays"
}

// apply runs one migration, and tries it again while others hold its locks.
func (m *migrator) apply(ctx context.Context, one migration.Migration, limits Limits) error {
	wait := limits.LockTimeout
	if len(one.Findings) == 0 && sqlcheck.WithoutTx(m.Migrations[one.Number-1].UpSQL) {
		wait = limits.Patience // what is made concurrently keeps nobody waiting while it waits itself
	}
	return limits.try(ctx, one.Name, func() error {
		if _, err := m.conn.Exec(ctx, "select set_config('lock_timeout', $1, false)", milliseconds(wait)); err != nil {
			return err
		}
		err := m.MigrateTo(ctx, one.Number)
		if _, passed := errors.AsType[migrate.IrreversibleMigrationError](err); passed {
			return nil // somebody else has run it since, and more
		}
		return err
	})
}

// try does something again while others hold its locks, until patience ends.
func (l Limits) try(ctx context.Context, what string, do func() error) error {
	began := time.Now()
	for try := 1; ; try++ {
		err := do()
		switch {
		case !inTheWay(err):
			return err
		case time.Since(began)+l.Pause > l.Patience:
			return fmt.Errorf("%s was tried %d times in %s: %w (%s)", what, try, time.Since(began).Round(time.Millisecond), ErrLocked, err)
		}
		select {
		case <-time.After(l.Pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inTheWay reports whether err says that others held a lock for too long. The codes are those of the PostgreSQL manual, appendix A.
func inTheWay(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "55P03" || pg.Code == "40P01") // lock_not_available, deadlock_detected
}
