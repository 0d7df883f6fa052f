package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

const (
	versionTable = "public.schema_version"
	readVersion  = "select version from " + versionTable
	isMigrated   = "select to_regclass('" + versionTable + "') is not null"
)

// Migrate applies the pending migrations of one database, as its owner. Two processes may call it at once: tern holds
// an advisory lock. It returns the version that the database is at, which may be above those of the migrations: a newer release has
// migrated it, and nothing is done.
func Migrate(ctx context.Context, c Config, migrations fs.FS) (int32, error) {
	m, err := openMigrator(ctx, c, migrations)
	if err != nil {
		return 0, err
	}
	defer m.close(ctx)
	err = m.Migrate(ctx)
	if _, newer := errors.AsType[migrate.BadVersionError](err); newer {
		err = nil
	}
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", m.database, err)
	}
	return m.GetCurrentVersion(ctx)
}

// migrator is tern on a connection of its own.
type migrator struct {
	*migrate.Migrator
	conn     *pgx.Conn
	database string
}

func openMigrator(ctx context.Context, c Config, migrations fs.FS) (*migrator, error) {
	pool, err := c.PoolConfig("migrate")
	if err != nil {
		return nil, err
	}
	cfg := pool.ConnConfig
	delete(cfg.RuntimeParams, "statement_timeout") // a migration takes as long as its data
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", cfg.Database, err)
	}
	m := &migrator{conn: conn, database: cfg.Database}
	if m.Migrator, err = migrate.NewMigrator(ctx, conn, versionTable); err != nil {
		m.close(ctx)
		return nil, fmt.Errorf("migrate %s: %w", cfg.Database, err)
	}
	if err := load(m.Migrator, migrations); err != nil {
		m.close(ctx)
		return nil, err
	}
	return m, nil
}

func (m *migrator) close(ctx context.Context) { _ = m.conn.Close(context.WithoutCancel(ctx)) }

func load(m *migrate.Migrator, migrations fs.FS) error {
	if err := m.LoadMigrations(migrations); err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	for _, one := range m.Migrations {
		one.DownSQL = "" // nobody goes back here, whatever versions meet
	}
	return nil
}
