package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// lockWait bounds pg_dump's wait for a table that somebody alters: a waiting dump holds up everybody behind it.
const lockWait = 60 * time.Second

// Meter shows how far a dump, a check or a restore is. It may be read while it is written.
type Meter struct {
	// Bytes went through: those of the archive as stored.
	Bytes atomic.Int64
	// Tables were counted, of AllTables.
	Tables, AllTables atomic.Int64
}

func (m *Meter) Write(p []byte) (int, error) {
	m.Bytes.Add(int64(len(p)))
	return len(p), nil
}

// Dump writes a compressed archive of a database to w. The manifest it returns holds all but the names of the backup.
//
// One transaction holds the snapshot that both the archive and the row counts are of, so that writers do not matter.
func (t Tools) Dump(ctx context.Context, source Source, w io.Writer, meter *Meter) (Manifest, error) {
	m := Manifest{FormatVersion: FormatVersion, Database: source.Database, Compression: "zstd", StartedAt: time.Now().UTC()}
	conn, err := connect(ctx, source.URL, "sms-backup")
	if err != nil {
		return m, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := t.describe(ctx, conn, &m); err != nil {
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

	work, ctx := errgroup.WithContext(ctx) // what fails ends the other at once
	work.Go(func() error { return t.pump(ctx, source, snapshot, io.MultiWriter(w, meter), &m) })
	var tables []Table
	work.Go(func() (err error) {
		tables, err = countTables(ctx, tx, meter)
		return err
	})
	if err := work.Wait(); err != nil {
		return m, fmt.Errorf("dump %s: %w", source.Database, err)
	}
	m.Tables, m.EndedAt = tables, time.Now().UTC()
	return m, nil
}

// describe fills in versions and what a database to restore into is made with.
func (t Tools) describe(ctx context.Context, conn *pgx.Conn, m *Manifest) error {
	const describeDatabase = `
select current_setting('server_version'), current_setting('server_version_num')::int / 10000,
       pg_encoding_to_char(encoding), datcollate, datctype
  from pg_database
 where datname = current_database()`
	var server, client int
	err := conn.QueryRow(ctx, describeDatabase).Scan(&m.ServerVersion, &server, &m.Encoding, &m.Collate, &m.CType)
	if err != nil {
		return fmt.Errorf("describe %s: %w", m.Database, err)
	}
	if m.DumpVersion, client, err = t.version(ctx, "pg_dump"); err != nil {
		return err
	}
	if client < server {
		return fmt.Errorf("%w: PostgreSQL %s, pg_dump %s", ErrServerNewer, m.ServerVersion, m.DumpVersion)
	}
	return nil
}

// pump runs pg_dump and sends what it writes through compression to stored. Only an end that pg_dump itself calls good,
// by its exit status and by naming no error, is one.
func (t Tools) pump(ctx context.Context, source Source, snapshot string, stored io.Writer, m *Manifest) error {
	hash := sha256.New()
	size := &counter{}
	packed, err := pack(io.MultiWriter(stored, hash, size))
	if err != nil {
		return err
	}
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	cmd, words, err := t.command(ctx, "pg_dump", "--format=custom", "--compress=0", "--no-password", "--snapshot="+snapshot,
		"--lock-wait-timeout="+strconv.FormatInt(lockWait.Milliseconds(), 10), "--dbname="+source.URL)
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := start(cmd); err != nil {
		return err
	}
	dumped, copyErr := io.Copy(packed, out)
	if copyErr != nil {
		kill()
	}
	waitErr := cmd.Wait()
	if copyErr != nil {
		return fmt.Errorf("store the dump: %w", copyErr)
	}
	if err := words.failure("pg_dump", waitErr); err != nil {
		return err
	}
	if err := packed.Close(); err != nil { // only now: a dump that broke off must not end like a whole one
		return fmt.Errorf("store the dump: %w", err)
	}
	m.DumpBytes, m.Bytes, m.SHA256, m.Warnings = dumped, size.n, hex.EncodeToString(hash.Sum(nil)), words.lines()
	return nil
}

// pack is what an archive passes through on its way to storage; unpack is the way back. Encryption belongs between
// compression and storage.
func pack(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
}

func unpack(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// counter counts bytes.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// userTables are those whose rows pg_dump writes: no view, no partitioned parent, nothing of the system or of an extension.
const userTables = `
select n.nspname, c.relname
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and c.relpersistence <> 't'
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_toast%'
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by n.nspname, c.relname`

// countTables counts the rows of every table, exactly.
func countTables(ctx context.Context, tx pgx.Tx, meter *Meter) ([]Table, error) {
	rows, err := tx.Query(ctx, userTables)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Table, err error) {
		return t, row.Scan(&t.Schema, &t.Name)
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	meter.AllTables.Store(int64(len(tables)))
	for i := range tables {
		t := &tables[i]
		err := tx.QueryRow(ctx, "select count(*) from only "+pgx.Identifier{t.Schema, t.Name}.Sanitize()).Scan(&t.Rows)
		if err != nil {
			return nil, fmt.Errorf("count the rows of %s: %w", t.key(), err)
		}
		meter.Tables.Add(1)
	}
	return tables, nil
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
