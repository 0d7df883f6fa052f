package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// maintenanceDatabase is the one to be connected to while others are made, renamed and dropped. Every server has it.
const maintenanceDatabase = "postgres"

// administer connects to the source's server as the role that restores, to none of the databases of the platform: the
// one that is to be restored may be missing.
func administer(ctx context.Context, source Source, application string) (*pgx.Conn, error) {
	address, err := source.restoring(maintenanceDatabase)
	if err != nil {
		return nil, err
	}
	return connect(ctx, address, application)
}

// ScratchName is the database that a drill restores into.
func ScratchName(database, drillID string) string { return "drill_" + database + "_" + drillID }

// Examine reads all that a database of the source's server holds, as far as a backup of it would say.
func Examine(ctx context.Context, source Source, database string, meter *Meter) (c Contents, err error) {
	err = examine(ctx, source, database, func(tx pgx.Tx) (err error) {
		if c.Sequences, err = readSequences(ctx, tx); err != nil {
			return err
		}
		return c.read(ctx, tx, meter)
	})
	return c, err
}

// examine reads a database as the role that restores, in one snapshot.
func examine(ctx context.Context, source Source, database string, read func(pgx.Tx) error) error {
	target, err := source.restoring(database)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, target, "sms-restore")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, session); err != nil {
		return fmt.Errorf("read %s: %w", database, err)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("read %s: %w", database, err)
	}
	return read(tx)
}

// CreateDatabase makes an empty database to restore a backup into, which only its owner and the role that restores reach.
func CreateDatabase(ctx context.Context, m Manifest, source Source, name string) error {
	conn, err := administer(ctx, source, "sms-restore")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	database := pgx.Identifier{name}.Sanitize()
	statement := fmt.Sprintf("create database %s owner %s template template0 encoding %s lc_collate %s lc_ctype %s", database,
		pgx.Identifier{m.Owner}.Sanitize(), quote(m.Encoding), quote(m.Collate), quote(m.CType))
	switch m.LocaleProvider {
	case "icu":
		statement += " locale_provider icu icu_locale " + quote(m.Locale)
	case "builtin":
		statement += " locale_provider builtin builtin_locale " + quote(m.Locale)
	}
	for _, statement := range []string{statement, "revoke connect, temporary on database " + database + " from public"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make the database %s: %w", name, err)
		}
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// DropScratch drops a scratch database, ending the role's own sessions in it. One that is not there is no error.
// FORCE is not used: it asks for rights over autovacuum's processes, which a plain DROP DATABASE ends by itself.
func DropScratch(ctx context.Context, source Source, scratch string) error {
	if id, ok := strings.CutPrefix(scratch, ScratchName(source.Database, "")); !ok || strings.Contains(id, "_") {
		return fmt.Errorf("%s is no scratch database of %s", scratch, source.Database)
	}
	conn, err := administer(ctx, source, "sms-drill")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const endSessions = `
select pg_terminate_backend(pid)
  from pg_stat_activity
 where datname = $1 and usename = current_user and pid <> pg_backend_pid()`
	if _, err := conn.Exec(ctx, endSessions, scratch); err != nil {
		return fmt.Errorf("end the sessions in %s: %w", scratch, err)
	}
	if _, err := conn.Exec(ctx, "drop database if exists "+pgx.Identifier{scratch}.Sanitize()); err != nil {
		return fmt.Errorf("drop the scratch database %s: %w", scratch, err)
	}
	return nil
}

// Scratches lists the scratch databases of a source that are there, as the ids of their drills.
func Scratches(ctx context.Context, source Source) ([]string, error) {
	conn, err := administer(ctx, source, "sms-drill")
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const listScratches = `
select id
  from pg_database, substr(datname, length($1) + 1) as id
 where starts_with(datname, $1) and strpos(id, '_') = 0` // with one, it belongs to a database of a longer name
	rows, err := conn.Query(ctx, listScratches, ScratchName(source.Database, ""))
	if err != nil {
		return nil, fmt.Errorf("list scratch databases: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list scratch databases: %w", err)
	}
	return ids, nil
}

// Refused reports whether the server refused the role or the request for good, rather than being away: no such
// database, wrong password, missing right (PostgreSQL manual, appendix A).
func Refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch pg.Code {
	case "3D000", "28000", "28P01", "42501":
		return true
	}
	return false
}
