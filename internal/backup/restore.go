package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/school-sms/sms/internal/storage"
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

// Restore makes the scratch database anew and restores an archive into it, as Fill does.
func (t Tools) Restore(ctx context.Context, store storage.Store, m Manifest, source Source, scratch string, meter *Meter) error {
	if err := DropScratch(ctx, source, scratch); err != nil {
		return err
	}
	if err := createScratch(ctx, m, source, scratch); err != nil {
		return err
	}
	return t.Fill(ctx, store, m, source, scratch, meter)
}

// Fill restores an archive into a database that is there and empty: a drill's, or that of an operator's restore. It returns
// ErrRejected when the archive is at fault, ErrDamaged when it is cut off, and other errors when the server or a program was.
func (t Tools) Fill(ctx context.Context, store storage.Store, m Manifest, source Source, database string, meter *Meter) error {
	return t.pour(ctx, store, m, source, database, meter, "--exit-on-error", "--no-owner", "--no-acl")
}

// pour sends an archive through pg_restore into a database.
func (t Tools) pour(ctx context.Context, store storage.Store, m Manifest, source Source, database string, meter *Meter, options ...string) error {
	stored, err := store.Open(ctx, m.Archive)
	if err != nil {
		return err
	}
	defer stored.Close()
	unpacked, err := unpack(io.TeeReader(reader{ctx, stored}, meter))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer unpacked.Close()
	target, err := source.restoring(database)
	if err != nil {
		return err
	}
	outer := ctx
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	cmd, words, err := t.command(ctx, "pg_restore", append(options, "--no-password", "--dbname="+target)...)
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := start(cmd); err != nil {
		return err
	}
	archive := &noting{Reader: unpacked}
	_, copyErr := io.Copy(in, archive)
	if archive.err != nil {
		kill() // before its input ends, which it might take for the end of the archive
	}
	_ = in.Close()
	waitErr := cmd.Wait()
	switch {
	case archive.err == nil:
		return rejected(words, words.failure("pg_restore", waitErr), copyErr)
	case outer.Err() != nil:
		return context.Cause(outer)
	default:
		return fmt.Errorf("%w: %w", ErrDamaged, archive.err)
	}
}

// noting remembers why reading failed, to tell that from a failure to write.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	read, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return read, err
}

// serverAway are words of pg_restore that mean that the server, not the archive, was at fault.
var serverAway = []string{"server closed the connection", "connection to server", "terminating connection", "no connection to the server",
	"the database system is", "SSL connection has been closed", "No space left on device"}

// rejected tells an archive that is at fault from a server that went away.
func rejected(words *lastWords, failure, copyErr error) error {
	if failure == nil && copyErr != nil {
		return fmt.Errorf("pg_restore stopped reading: %w", copyErr)
	}
	if failure == nil || len(words.errors()) == 0 {
		return failure // killed, for example
	}
	for _, away := range serverAway {
		if strings.Contains(failure.Error(), away) {
			return failure
		}
	}
	return fmt.Errorf("%w: %w", ErrRejected, failure)
}

// Count counts the rows of every table of a scratch database.
func Count(ctx context.Context, source Source, scratch string, meter *Meter) ([]Table, error) {
	target, err := source.restoring(scratch)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, target, "sms-drill")
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", scratch, err)
	}
	return countTables(ctx, tx, meter)
}

func createScratch(ctx context.Context, m Manifest, source Source, scratch string) error {
	conn, err := administer(ctx, source, "sms-drill")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	statement := fmt.Sprintf("create database %s template template0 encoding %s lc_collate %s lc_ctype %s",
		pgx.Identifier{scratch}.Sanitize(), quote(m.Encoding), quote(m.Collate), quote(m.CType))
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("make the scratch database %s: %w", scratch, err)
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
