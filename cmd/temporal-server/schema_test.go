package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/server/common/log"
	v12 "go.temporal.io/server/schema/postgresql/v12"
)

// schemaConfig is the configuration a server would have on fresh databases.
func schemaConfig(environment map[string]string) Config {
	return Config{
		DatabaseURL:          environment["TEMPORAL_DATABASE_URL"],
		DatabasePasswordFile: environment["TEMPORAL_DATABASE_PASSWORD_FILE"],
		VisibilityDatabase:   environment["TEMPORAL_VISIBILITY_DATABASE"],
		DatabaseCreate:       true,
	}
}

func schemaVersion(ctx context.Context, conn *pgx.Conn, database string) (version string, err error) {
	err = conn.QueryRow(ctx, selectVersion, database).Scan(&version)
	return version, err
}

func TestSchemaUpgrade(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	cfg := schemaConfig(postgres.environment())
	logger := log.NewNoopLogger()
	for _, test := range []schemaChange{
		{cfg.database(), "postgresql/v12/temporal", "v1.13"},
		{cfg.VisibilityDatabase, "postgresql/v12/visibility", "v1.5"},
	} {
		conn, err := openDatabase(ctx, cfg, test.Database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if err := migrate(ctx, conn, test, logger); err != nil {
			t.Fatal(err)
		}
		if version, err := schemaVersion(ctx, conn, test.Database); "v"+version != test.Target {
			t.Fatalf("%s: got %q, %v", test.Schema, version, err)
		}
	}
	for range 2 { // the second time there is nothing to do
		if err := prepareDatabases(ctx, cfg, logger); err != nil {
			t.Fatal(err)
		}
	}
	for database, want := range map[string]string{cfg.database(): v12.Version, cfg.VisibilityDatabase: v12.VisibilityVersion} {
		conn, err := openDatabase(ctx, cfg, database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if version, err := schemaVersion(ctx, conn, database); version != want {
			t.Errorf("%s: got %q, %v, want %q", database, version, err, want)
		}
	}
}

// A database in which another tool was stopped between making the version tables and the first version.
func TestSchemaSetupWithoutUpdate(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	cfg := schemaConfig(postgres.environment())
	conn, err := openDatabase(ctx, cfg, cfg.database())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range []string{createVersionTable, createHistoryTable} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepareDatabases(ctx, cfg, log.NewNoopLogger()); err != nil {
		t.Fatal(err)
	}
	if version, err := schemaVersion(ctx, conn, cfg.database()); version != v12.Version {
		t.Errorf("got %q, %v", version, err)
	}
}

func TestKilledWhileMigrating(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	environment := postgres.environment()
	cfg := schemaConfig(environment)
	// Names that the schemas give to a table and to an index about half way.
	for database, name := range map[string]string{
		cfg.database(): "nexus_endpoints", cfg.VisibilityDatabase: "by_temporal_bool_01",
	} {
		conn, err := openDatabase(ctx, cfg, database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		// The migration waits for this transaction, to see whether the name will be free.
		blocker, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blocker.Exec(ctx, "create table "+name+" ()"); err != nil {
			t.Fatal(err)
		}
		migrating := launch(t, environment)
		eventually(ctx, t, func() error {
			var waits bool
			err := blocker.QueryRow(ctx, `
select exists (select from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid)))`).Scan(&waits)
			if err == nil && !waits {
				err = fmt.Errorf("no migration waits for %s", name)
			}
			return err
		})
		if err := migrating.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		migrating.exitCode()
		if err := blocker.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
	start(t, environment).stop()
}

func TestMissingDatabaseMayNotBeCreated(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	cfg := schemaConfig(postgres.environment())
	cfg.DatabaseCreate = false
	_, err := openDatabase(ctx, cfg, cfg.database())
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}
