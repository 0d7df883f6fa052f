package backup

import (
	"context"
	"crypto/sha256"
	_ "embed" // for the queries
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// session are the settings under which every database is read, so that equal contents have equal texts and hashes wherever
// they lie. A backend that waits, for a lock for example, notices within checkInterval that its client is gone.
const session = `
set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 3; set bytea_output = 'hex';
set xmloption = 'content'; set lc_monetary = 'C'; set lc_numeric = 'C'; set search_path = ''; set row_security = off;
set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set client_connection_check_interval = '` + checkInterval + `'`

const checkInterval = "500ms"

// oldestServer is the first major version that can hash whole rows and that notices that a client is gone.
const oldestServer = 14

// read fills in all that a database holds but its sequences, as of the snapshot of tx. It waits for tables that somebody alters.
func (c *Contents) read(ctx context.Context, tx pgx.Tx, meter *Meter) (err error) {
	if c.Tables, err = listTables(ctx, tx, meter); err != nil { // before what waits for tables that are locked
		return err
	}
	if err := c.readDefinitions(ctx, tx); err != nil {
		return err
	}
	return hashTables(ctx, tx, c.Tables, meter)
}

// readTables fills in the tables, readDefinitions the rest but the sequences.
func (c *Contents) readTables(ctx context.Context, tx pgx.Tx, meter *Meter) (err error) {
	if c.Tables, err = listTables(ctx, tx, meter); err != nil {
		return err
	}
	return hashTables(ctx, tx, c.Tables, meter)
}

func (c *Contents) readDefinitions(ctx context.Context, tx pgx.Tx) (err error) {
	if c.Objects, err = collect[Object](ctx, tx, "objects", listObjects); err != nil {
		return err
	}
	if c.Extensions, err = collect[Extension](ctx, tx, "extensions", listExtensions); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, `select count(*) from pg_catalog.pg_largeobject_metadata`).Scan(&c.LargeObjects); err != nil {
		return fmt.Errorf("count large objects: %w", err)
	}
	return nil
}

func collect[T any](ctx context.Context, tx pgx.Tx, what, query string) ([]T, error) {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return all, nil
}

// listObjects is what pg_dump would make again, an object a row: nothing of the system, nothing that an extension brings.
// Expressions are compared without casts and parentheses: PostgreSQL writes them differently after they were read back once.
//
//go:embed objects.sql
var listObjects string

const listExtensions = `
select e.extname, n.nspname, e.extversion
  from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace
 order by e.extname`

// listTables names, and tells the meter the number of, the tables whose rows pg_dump writes: no view, no partitioned parent, nothing of the system or of an
// extension.
func listTables(ctx context.Context, tx pgx.Tx, meter *Meter) ([]Table, error) {
	const query = `
select n.nspname, c.relname
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and c.relpersistence <> 't'
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_toast%'
   and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by n.nspname, c.relname`
	rows, err := tx.Query(ctx, query)
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
	return tables, nil
}

// hashTables counts and hashes the rows of tables.
func hashTables(ctx context.Context, tx pgx.Tx, tables []Table, meter *Meter) error {
	for i := range tables {
		if err := hashTable(ctx, tx, &tables[i]); err != nil {
			return err
		}
		meter.Tables.Add(1)
	}
	return nil
}

// hashedColumns writes the columns of a table as they are hashed. Where PostgreSQL's own hash of a type says exactly that
// values are equal, it is taken of the value; of other types (enumerations, whose hash is of an oid; intervals, of which a
// month equals 30 days; json, which has none) it is taken of the text. Generated columns are left out: they are made again.
const hashedColumns = `
select coalesce(string_agg(case
         when a.atttypid = any ('{bool,"char",int2,int4,int8,oid,xid8,float4,float8,numeric,text,varchar,bpchar,name,bytea,uuid,date,time,timetz,timestamp,timestamptz,jsonb,inet,cidr,macaddr}'::regtype[])
          and coalesce(k.collisdeterministic, true)
         then pg_catalog.quote_ident(a.attname)
         else pg_catalog.quote_ident(a.attname) || '::pg_catalog.text collate "C"' end, ', ' order by a.attnum), '')
  from pg_catalog.pg_attribute a
  left join pg_catalog.pg_collation k on k.oid = a.attcollation
 where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''`

// hashTable fills in rows, hash and size. A row's hash is stirred before the sum over all rows is taken: PostgreSQL's is a sum over
// the columns, so that without it two rows could swap a value unnoticed.
func hashTable(ctx context.Context, tx pgx.Tx, t *Table) error {
	name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
	var columns string
	if err := tx.QueryRow(ctx, hashedColumns, name).Scan(&columns); err != nil {
		return fmt.Errorf("hash the rows of %s: %w", t.key(), err)
	}
	size := ", pg_table_size(" + quote(name) + "::regclass)"
	query := "select count(*), ''" + size + " from only " + name
	if columns != "" {
		query = "select count(*), coalesce(sum(h # hashint8extended(h, 0)), 0)::text" + size + " from (select hash_record_extended(row(" + columns + "), 0) as h from only " +
			name + " offset 0) as hashed"
	}
	if err := tx.QueryRow(ctx, query, pgx.QueryExecModeExec).Scan(&t.Rows, &t.Hash, &t.Bytes); err != nil {
		return fmt.Errorf("hash the rows of %s: %w", t.key(), err)
	}
	return nil
}

// readSequences reads where the sequences stand now: no snapshot holds them.
func readSequences(ctx context.Context, tx pgx.Tx) ([]Sequence, error) {
	const list = `
select n.nspname, c.relname, s.seqcycle
  from pg_catalog.pg_sequence s
  join pg_catalog.pg_class c on c.oid = s.seqrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relpersistence <> 't'
   and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
 order by n.nspname, c.relname`
	rows, err := tx.Query(ctx, list)
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	sequences, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Sequence, err error) {
		return s, row.Scan(&s.Schema, &s.Name, &s.Cycles)
	})
	if err != nil {
		return nil, fmt.Errorf("list sequences: %w", err)
	}
	for i := range sequences {
		s := &sequences[i]
		if err := readSequence(ctx, tx, s, &s.Value, &s.Called); err != nil {
			return nil, err
		}
		s.Until, s.UntilCalled = s.Value, s.Called
	}
	return sequences, nil
}

func readSequence(ctx context.Context, tx pgx.Tx, s *Sequence, value *int64, called *bool) error {
	name := pgx.Identifier{s.Schema, s.Name}.Sanitize()
	if err := tx.QueryRow(ctx, "select last_value, is_called from "+name, pgx.QueryExecModeExec).Scan(value, called); err != nil {
		return fmt.Errorf("read the sequence %s: %w", s.key(), err)
	}
	return nil
}

// schemaHash is over all definitions, owners, grants and extensions.
func (c Contents) schemaHash() string {
	hash := sha256.New()
	for _, o := range c.Objects {
		fmt.Fprintf(hash, "%q\n", []string{o.Kind, o.Name, o.On, o.Definition, o.Owner, o.Grants})
	}
	for _, e := range c.Extensions {
		fmt.Fprintf(hash, "%q\n", []string{e.Name, e.Schema, e.Version})
	}
	return hex.EncodeToString(hash.Sum(nil))
}
