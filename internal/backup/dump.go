package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/storage"
)

// Meter shows how far a dump, a check or a restore is. It may be read while it is written.
type Meter struct {
	// Bytes went through: those of the archive as stored.
	Bytes atomic.Int64
	// Tables were counted and hashed, of AllTables.
	Tables, AllTables atomic.Int64
}

func (m *Meter) Write(p []byte) (int, error) {
	m.Bytes.Add(int64(len(p)))
	return len(p), nil
}

// dump writes the archive of a database to w. The manifest it returns holds all but the names of the backup.
//
// One transaction holds the snapshot that both the archive and the hashes are of, so that writers do not matter.
func (t Tools) dump(ctx context.Context, source Source, keys Keys, w io.Writer, meter *Meter) (Manifest, error) {
	m := Manifest{FormatVersion: FormatVersion, Database: source.Database, Compression: "zstd", Encryption: keys.encryption(),
		Recipients: keys.Fingerprints(), StartedAt: time.Now().UTC()}
	conn, err := connect(ctx, source.URL, "sms-backup")
	if err != nil {
		return m, err
	}
	// The transaction holds locks: it ends with ctx, whatever still hangs.
	release := context.AfterFunc(ctx, func() { _ = conn.PgConn().Conn().Close() })
	defer conn.Close(context.WithoutCancel(ctx))
	defer release()
	program, err := t.describe(ctx, conn, &m)
	if err != nil {
		return m, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return m, fmt.Errorf("begin the snapshot of %s: %w", source.Database, err)
	}
	var snapshot string
	const exportSnapshot = `
select pg_export_snapshot(), case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text`
	if err := tx.QueryRow(ctx, exportSnapshot).Scan(&snapshot, &m.LSN); err != nil {
		return m, fmt.Errorf("export the snapshot of %s: %w", source.Database, err)
	}
	if m.Sequences, err = readSequences(ctx, tx); err != nil { // before pg_dump does
		return m, err
	}

	work, ctx := errgroup.WithContext(ctx) // what fails ends the other at once
	begun := make(chan struct{})
	work.Go(func() error {
		return t.pump(ctx, program, source, snapshot, keys, io.MultiWriter(w, meter), begun, &m)
	})
	contents := Contents{Sequences: m.Sequences}
	work.Go(func() error {
		if err := contents.read(ctx, tx, meter); err != nil {
			return err
		}
		select {
		case <-begun: // pg_dump has locked the tables and read the sequences
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := checkUnaltered(ctx, tx); err != nil {
			return err
		}
		for i := range contents.Sequences {
			s := &contents.Sequences[i]
			if err := readSequence(ctx, tx, s, &s.Until, &s.UntilCalled); err != nil {
				return err
			}
		}
		return nil
	})
	if err := work.Wait(); err != nil {
		return m, fmt.Errorf("dump %s: %w", source.Database, err)
	}
	m.Contents = contents
	m.SchemaHash, m.EndedAt = m.schemaHash(), time.Now().UTC()
	return m, nil
}

// describe fills in versions and what a database to restore into is made with, and picks the pg_dump that fits the server.
func (t Tools) describe(ctx context.Context, conn *pgx.Conn, m *Manifest) (installed, error) {
	var provider string
	server, version, err := serverVersion(ctx, conn)
	if err != nil {
		return installed{}, err
	}
	m.ServerVersion = version
	if server < oldestServer {
		return installed{}, fmt.Errorf("%w: PostgreSQL %s, at least %d is needed", ErrServerOlder, m.ServerVersion, oldestServer)
	}
	program, err := t.fittingServer(ctx, "pg_dump", server, m.ServerVersion)
	if err != nil {
		return installed{}, err
	}
	m.DumpVersion = program.version
	if _, err := conn.Exec(ctx, session+"; set lock_timeout = "+strconv.FormatInt(t.lockWait().Milliseconds(), 10)); err != nil {
		return installed{}, fmt.Errorf("describe %s: %w", m.Database, err)
	}
	const describeDatabase = `
select pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, pg_get_userbyid(d.datdba),
       case coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') when 'i' then 'icu' when 'b' then 'builtin' else '' end,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', '')
  from pg_catalog.pg_database d
 where d.datname = current_database()`
	err = conn.QueryRow(ctx, describeDatabase).Scan(&m.Encoding, &m.Collate, &m.CType, &m.Owner, &provider, &m.Locale)
	if err != nil {
		return installed{}, fmt.Errorf("describe %s: %w", m.Database, err)
	}
	if m.LocaleProvider = provider; provider == "" {
		m.Locale = ""
	}
	return program, nil
}

// pump runs pg_dump and sends what it writes, packed, to stored. Only an end that pg_dump itself calls good, by its exit
// status and by naming no error, is one. begun is closed at its first byte, when it has read all but the rows.
func (t Tools) pump(ctx context.Context, program installed, source Source, snapshot string, keys Keys, stored io.Writer, begun chan<- struct{}, m *Manifest) error {
	stamp := newStamp(stored)
	packed, err := pack(stamp, keys)
	if err != nil {
		return err
	}
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	cmd, words := program.command(ctx, "--format=custom", "--compress=0", "--no-password", "--snapshot="+snapshot,
		"--lock-wait-timeout="+strconv.FormatInt(t.lockWait().Milliseconds(), 10), "--dbname="+source.URL)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := start(cmd); err != nil {
		return err
	}
	dumped, copyErr := io.Copy(packed, &first{Reader: out, seen: begun})
	if copyErr != nil {
		kill()
	}
	waitErr := cmd.Wait()
	if copyErr != nil {
		if ctx.Err() != nil && errors.Is(copyErr, context.Canceled) {
			return context.Cause(ctx)
		}
		return fmt.Errorf("store the dump: %w", copyErr)
	}
	if err := words.failure("pg_dump", waitErr); err != nil {
		return err
	}
	if err := packed.Close(); err != nil { // only now: a dump that broke off must not end like a whole one
		return fmt.Errorf("store the dump: %w", err)
	}
	m.DumpBytes, m.Warnings = dumped, words.lines()
	m.Bytes, m.SHA256 = stamp.sum()
	return nil
}

// first closes seen at the first byte.
type first struct {
	io.Reader
	seen chan<- struct{}
}

func (f *first) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if n > 0 && f.seen != nil {
		close(f.seen)
		f.seen = nil
	}
	return n, err
}

// saveGlobals stores the roles and tablespaces of the source's server. The hashes of passwords are among them only where they
// are encrypted and the role may read them.
func (t Tools) saveGlobals(ctx context.Context, store storage.Store, source Source, keys Keys, name string) (*Globals, []string, error) {
	var warnings []string
	content, err := t.dumpGlobals(ctx, source, keys.on)
	if keys.on && err != nil && bytes.Contains([]byte(err.Error()), []byte("permission denied for table pg_authid")) {
		warnings = append(warnings, "the roles are saved without their passwords: the role may not read pg_authid")
		content, err = t.dumpGlobals(ctx, source, false)
	}
	if err != nil {
		return nil, nil, err
	}
	w, err := t.create(ctx, store, name)
	if err != nil {
		return nil, nil, err
	}
	defer w.Abort()
	stamp := newStamp(w)
	packed, err := pack(stamp, keys)
	if err != nil {
		return nil, nil, err
	}
	if _, err := packed.Write(content); err != nil {
		return nil, nil, fmt.Errorf("store the globals: %w", err)
	}
	if err := packed.Close(); err != nil {
		return nil, nil, fmt.Errorf("store the globals: %w", err)
	}
	if err := w.Commit(ctx); err != nil {
		return nil, nil, err
	}
	g := &Globals{Object: name, Passwords: keys.on && len(warnings) == 0}
	g.Bytes, g.SHA256 = stamp.sum()
	return g, warnings, nil
}

// dumpGlobals runs pg_dumpall. What it writes is a few kilobytes.
func (t Tools) dumpGlobals(ctx context.Context, source Source, passwords bool) ([]byte, error) {
	conn, err := connect(ctx, source.URL, "sms-backup")
	if err != nil {
		return nil, err
	}
	major, version, err := serverVersion(ctx, conn)
	database := conn.Config().Database
	conn.Close(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	program, err := t.fittingServer(ctx, "pg_dumpall", major, version)
	if err != nil {
		return nil, err
	}
	args := []string{"--globals-only", "--no-password", "--lock-wait-timeout=" + strconv.FormatInt(t.lockWait().Milliseconds(), 10),
		"--database=" + database, "--dbname=" + source.URL}
	if !passwords {
		args = append(args, "--no-role-passwords")
	}
	cmd, words := program.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := start(cmd); err != nil {
		return nil, err
	}
	if err := words.failure("pg_dumpall", cmd.Wait()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// connectTimeout bounds one attempt to connect.
const connectTimeout = 10 * time.Second

// connect opens a connection whose statements may take as long as the data is big.
func connect(ctx context.Context, url, application string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("not a PostgreSQL URL")
	}
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams["application_name"] = application
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Database, err)
	}
	return conn, nil
}

func serverVersion(ctx context.Context, conn *pgx.Conn) (major int, version string, err error) {
	const query = `select current_setting('server_version_num')::int / 10000, current_setting('server_version')`
	if err := conn.QueryRow(ctx, query).Scan(&major, &version); err != nil {
		return 0, "", fmt.Errorf("ask the server for its version: %w", err)
	}
	return major, version, nil
}
