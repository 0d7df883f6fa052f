package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/tools/common/schema"
)

// PostgreSQL's error codes that are told apart here, from appendix A of its manual.
const (
	codeInvalidAuthorization  = "28000" // also: no such role
	codeInvalidPassword       = "28P01"
	codeUniqueViolation       = "23505"
	codeInsufficientPrivilege = "42501"
	codeDuplicateDatabase     = "42P04"
	codeNoSuchDatabase        = "3D000"
)

// retryInterval is the pause between attempts to reach PostgreSQL.
const retryInterval = 250 * time.Millisecond

// prepareDatabases creates what is missing of the two databases and brings their schemas up to this release's. It waits
// up to cfg.DatabaseWait for PostgreSQL to answer.
func prepareDatabases(ctx context.Context, cfg Config, logger log.Logger) error {
	for _, database := range []struct{ name, schema string }{
		{cfg.database(), "postgresql/v12/temporal"},
		{cfg.VisibilityDatabase, "postgresql/v12/visibility"},
	} {
		conn, err := openDatabase(ctx, cfg, database.name)
		if err != nil {
			return err
		}
		err = migrate(ctx, conn, schemaChange{Database: database.name, Schema: database.schema}, logger)
		// The session ends with the process at the latest; how it is closed changes nothing.
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
	}
	return nil
}

// openDatabase connects to one of the server's databases, which it creates if it is missing and may be created.
func openDatabase(ctx context.Context, cfg Config, name string) (*pgx.Conn, error) {
	conn, err := connect(ctx, cfg, name)
	if !isCode(err, codeNoSuchDatabase) {
		return conn, err
	}
	if !cfg.DatabaseCreate {
		return nil, fmt.Errorf("database %q does not exist and TEMPORAL_DATABASE_CREATE is false", name)
	}
	if err := createDatabase(ctx, cfg, name); err != nil {
		return nil, err
	}
	return connect(ctx, cfg, name)
}

func createDatabase(ctx context.Context, cfg Config, name string) error {
	conn, err := connect(ctx, cfg, "postgres")
	if err != nil {
		return fmt.Errorf("create database %q: %w", name, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize())
	switch {
	case isCode(err, codeDuplicateDatabase), isCode(err, codeUniqueViolation):
		return nil // another process was quicker
	case isCode(err, codeInsufficientPrivilege):
		return fmt.Errorf("database %q does not exist and role %q may not create it: create it or grant CREATEDB",
			name, conn.Config().User)
	case err != nil:
		return fmt.Errorf("create database %q: %w", name, err)
	}
	return nil
}

// connect opens one connection. It tries again for cfg.DatabaseWait where PostgreSQL cannot be reached or is starting,
// and gives up at once on what waiting does not mend: a wrong password, a missing role or database.
func connect(ctx context.Context, cfg Config, database string) (*pgx.Conn, error) {
	deadline := time.Now().Add(cfg.DatabaseWait)
	for {
		dsn, err := cfg.dsn(database)
		if err != nil {
			return nil, err
		}
		conn, err := pgx.Connect(ctx, dsn)
		switch {
		case err == nil:
			return conn, nil
		case isCode(err, codeInvalidPassword), isCode(err, codeInvalidAuthorization):
			return nil, fmt.Errorf("PostgreSQL refuses the role or password of TEMPORAL_DATABASE_URL: %w", err)
		case isCode(err, codeNoSuchDatabase), ctx.Err() != nil:
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("PostgreSQL is not reachable after %s: %w", cfg.DatabaseWait, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryInterval):
		}
	}
}

func isCode(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

// schemaChange says which of the schemas embedded in the Temporal server belongs into which database.
type schemaChange struct {
	Database, Schema string
	// Target is the version to stop at; empty means the newest.
	Target string
}

// migrate brings a database's schema up to the target in one transaction. Temporal's own tool commits each statement,
// so a process killed half way leaves a database that its next run stumbles over (rows inserted twice, tables dropped
// twice, invalid indexes); here there is either the old schema or the new one. Processes that start together take turns.
func migrate(ctx context.Context, conn *pgx.Conn, change schemaChange, logger log.Logger) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock(hashtext('temporal schema'))"); err != nil {
			return err
		}
		db := &schemaTx{ctx: ctx, tx: tx, database: change.Database}
		// The set-up only makes the version tables, and leaves a version that is there alone.
		setup := &schema.SetupConfig{InitialVersion: "0.0"}
		if err := schema.NewSetupSchemaTask(db, setup, logger).Run(); err != nil {
			return err
		}
		update := &schema.UpdateConfig{SchemaName: change.Schema, TargetVersion: change.Target}
		return schema.NewUpdateSchemaTask(db, update, logger).Run()
	})
	if err != nil {
		return fmt.Errorf("migrate the schema of database %q: %w", change.Database, err)
	}
	return nil
}

// The version tables are those of Temporal's own tool, so that either can follow the other; the server reads them too.
const (
	createVersionTable = `
create table if not exists schema_version (
	version_partition      int not null,
	db_name                varchar(255) not null,
	creation_time          timestamp,
	curr_version           varchar(64),
	min_compatible_version varchar(64),
	primary key (version_partition, db_name)
)`
	createHistoryTable = `
create table if not exists schema_update_history (
	version_partition int not null,
	year              int not null,
	month             int not null,
	update_time       timestamp not null,
	description       varchar(255),
	manifest_md5      varchar(64),
	new_version       varchar(64),
	old_version       varchar(64),
	primary key (version_partition, year, month, update_time)
)`
	selectVersion = `select curr_version from schema_version where version_partition = 0 and db_name = $1`
	upsertVersion = `
insert into schema_version (version_partition, db_name, creation_time, curr_version, min_compatible_version)
values (0, $1, $2, $3, $4)
on conflict (version_partition, db_name) do update
set creation_time          = excluded.creation_time,
    curr_version           = excluded.curr_version,
    min_compatible_version = excluded.min_compatible_version`
	insertHistory = `
insert into schema_update_history
	(version_partition, year, month, update_time, old_version, new_version, manifest_md5, description)
values (0, $1, $2, $3, $4, $5, $6, $7)`
)

// schemaTx lets Temporal's schema tasks work inside a transaction. It keeps the context because their interface,
// [schema.DB], has none.
type schemaTx struct {
	ctx      context.Context
	tx       pgx.Tx
	database string
}

var _ schema.DB = (*schemaTx)(nil)

// Exec runs a statement under a savepoint, since the tasks go on after errors that say "already exists". It builds
// indexes the ordinary way: CONCURRENTLY is not possible in a transaction, and nobody else works on the database yet.
func (s *schemaTx) Exec(stmt string, args ...any) error {
	stmt = strings.Replace(stmt, "CREATE INDEX CONCURRENTLY", "CREATE INDEX", 1)
	return pgx.BeginFunc(s.ctx, s.tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(s.ctx, stmt, args...)
		return err
	})
}

func (s *schemaTx) CreateSchemaVersionTables() error {
	if err := s.Exec(createVersionTable); err != nil {
		return err
	}
	return s.Exec(createHistoryTable)
}

func (s *schemaTx) ReadSchemaVersion() (string, error) {
	var version string
	err := s.tx.QueryRow(s.ctx, selectVersion, s.database).Scan(&version)
	return version, err
}

func (s *schemaTx) UpdateSchemaVersion(newVersion, minCompatibleVersion string) error {
	return s.Exec(upsertVersion, s.database, time.Now().UTC(), newVersion, minCompatibleVersion)
}

func (s *schemaTx) WriteSchemaUpdateLog(oldVersion, newVersion, manifestMD5, description string) error {
	now := time.Now().UTC()
	return s.Exec(insertHistory, now.Year(), int(now.Month()), now, oldVersion, newVersion, manifestMD5, description)
}

// DropAllTables is never asked for: no task is configured to overwrite.
func (s *schemaTx) DropAllTables() error { return errors.ErrUnsupported }

// Close does nothing: the transaction belongs to [migrate].
func (s *schemaTx) Close() {}

func (s *schemaTx) Type() string { return "sql" }
