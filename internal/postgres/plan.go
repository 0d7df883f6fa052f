package postgres

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/migration/sqlcheck"
)

// PlanMigrations says where a database stands and what of the migrations is pending. It changes nothing.
func PlanMigrations(ctx context.Context, c Config, migrations fs.FS) (migration.Plan, error) {
	all, err := readMigrations(ctx, migrations)
	if err != nil {
		return migration.Plan{}, err
	}
	pool, err := c.PoolConfig("migrate")
	if err != nil {
		return migration.Plan{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, pool.ConnConfig)
	if err != nil {
		return migration.Plan{}, fmt.Errorf("look at the schema of %s: %w", pool.ConnConfig.Database, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	version, err := SchemaVersion(ctx, conn)
	if err != nil {
		return migration.Plan{}, err
	}
	plan := migration.Plan{Database: pool.ConnConfig.Database, Version: version, Known: int32(len(all)), Pending: judge(all, version)}
	for _, m := range all {
		if migration.ReadMark(m.UpSQL).Contract {
			plan.Contracts = append(plan.Contracts, m.Sequence)
		}
	}
	return plan, nil
}

// SchemaVersion is the number of the last migration of a database; 0 when it has never been migrated.
func SchemaVersion(ctx context.Context, db Querier) (version int32, err error) {
	var migrated bool
	if err = db.QueryRow(ctx, isMigrated).Scan(&migrated); err == nil && migrated {
		err = db.QueryRow(ctx, readVersion).Scan(&version)
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the schema: %w", err)
	}
	return version, nil
}

// Querier is the least that reads one row.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// NeededVersion is the least version of the schema with which a release that has the migrations can serve: only contract steps may
// be missing.
func NeededVersion(migrations fs.FS) (int32, error) {
	all, err := readMigrations(context.Background(), migrations)
	for len(all) > 0 && migration.ReadMark(all[len(all)-1].UpSQL).Contract {
		all = all[:len(all)-1]
	}
	return int32(len(all)), err
}

func readMigrations(ctx context.Context, migrations fs.FS) ([]*migrate.Migration, error) {
	m, err := migrate.NewMigrator(ctx, nil, versionTable) // which reads, and reaches no database
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return m.Migrations, load(m, migrations)
}

// judge looks into the migrations above a version. Those below it decide about them too.
func judge(all []*migrate.Migration, version int32) []migration.Migration {
	if int(version) >= len(all) {
		return nil
	}
	var pending []migration.Migration
	checker := sqlcheck.New()
	for _, m := range all {
		findings := checker.Check(m.UpSQL)
		if m.Sequence <= version {
			continue
		}
		mark := migration.ReadMark(m.UpSQL)
		judged := migration.Migration{Number: m.Sequence, Name: m.Name, Kind: mark.Judge(findings), Findings: findings}
		if judged.Kind == migration.Expand && len(findings) > 0 {
			judged.Overruled = mark.Expand
		}
		pending = append(pending, judged)
	}
	return pending
}
