package postgres

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

// Migrate applies the pending migrations of one database, as its owner. Two processes may call it at once: tern holds
// an advisory lock. It returns the version that the database is at.
func Migrate(ctx context.Context, c Config, migrations fs.FS) (int32, error) {
	pool, err := c.PoolConfig("migrate")
	if err != nil {
		return 0, err
	}
	cfg := pool.ConnConfig
	delete(cfg.RuntimeParams, "statement_timeout") // a migration takes as long as its data
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", cfg.Database, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	migrator, err := migrate.NewMigrator(ctx, conn, "public.schema_version")
	if err != nil {
		return 0, fmt.Errorf("migrate %s: %w", cfg.Database, err)
	}
	if err := migrator.LoadMigrations(migrations); err != nil {
		return 0, fmt.Errorf("read the migrations of %s: %w", cfg.Database, err)
	}
	if err := migrator.Migrate(ctx); err != nil {
		return 0, fmt.Errorf("migrate %s: %w", cfg.Database, err)
	}
	return migrator.GetCurrentVersion(ctx)
}
