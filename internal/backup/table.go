package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/storage"
)

// ErrNoTable says that a backup does not hold a table.
var ErrNoTable = errors.New("the backup holds no such table")

// maxIdentifier is how long a name may be, in bytes (PostgreSQL manual, section 4.1.1).
const maxIdentifier = 63

// RestoredTable is what a table is called that was restored beside the one that serves.
func RestoredTable(table, restoreID string) string {
	suffix := "_restored_" + restoreID
	return table[:min(len(table), maxIdentifier-len(suffix))] + suffix
}

// Table finds a table of the backup by schema.name. It returns ErrNoTable.
func (m Manifest) Table(name string) (Table, error) {
	i := slices.IndexFunc(m.Tables, func(t Table) bool { return t.key() == name })
	if i >= 0 {
		return m.Tables[i], nil
	}
	known := make([]string, len(m.Tables))
	for j, t := range m.Tables {
		known[j] = t.key()
	}
	return Table{}, fmt.Errorf("%w: %s; it holds %s", ErrNoTable, name, strings.Join(known, ", "))
}

// FillTable restores the definitions of an archive and the rows of one table into a database that is there and empty.
// What the rows do not need is left out: indexes, constraints between tables, triggers.
func (t Tools) FillTable(ctx context.Context, store storage.Store, m Manifest, source Source, database string, table Table, meter *Meter) error {
	p, err := t.pouring(ctx, store, m, source, database)
	if err != nil {
		return err
	}
	for _, part := range [][]string{{"--section=pre-data"}, {"--section=data", "--schema=" + table.Schema, "--table=" + table.Name}} {
		err := p.pour(ctx, meter, nil, part...)
		if err != nil && !errors.Is(err, errStoppedReading) { // which it does when it has all that it was told to take
			return err
		}
	}
	return nil
}

// CompareTable reads a table of a database and returns how it differs from what was backed up.
func CompareTable(ctx context.Context, source Source, database string, table Table) (differences []string, err error) {
	conn, err := source.open(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		differences, err = compareTable(ctx, tx, table, table.Name)
		return err
	})
	return differences, err
}

// compareTable compares a table under the name that it has now.
func compareTable(ctx context.Context, tx pgx.Tx, table Table, name string) ([]string, error) {
	found := Table{Schema: table.Schema, Name: name}
	if err := hashTable(ctx, tx, &found); err != nil {
		return nil, err
	}
	found.Name = table.Name
	return tableDiffers(table, found), nil
}

// CopyTable copies a table from the database of a restore into the one that serves, under another name in the same schema,
// as its owner's: its columns but the generated ones, without defaults, keys and indexes. It is there whole, and compared
// with what was backed up, or not at all. Called again, it leaves what is there.
func CopyTable(ctx context.Context, source Source, from string, serving Placed, table Table, name string) error {
	reading, err := source.open(ctx, from)
	if err != nil {
		return err
	}
	defer reading.Close(context.WithoutCancel(ctx))
	writing, err := source.open(ctx, serving.Name)
	if err != nil {
		return err
	}
	defer writing.Close(context.WithoutCancel(ctx))
	var there bool
	target := pgx.Identifier{table.Schema, name}.Sanitize()
	if err := writing.QueryRow(ctx, `select to_regclass($1) is not null`, target).Scan(&there); err != nil || there {
		return wrapped("look for "+target, err)
	}
	columns, definitions, err := columnsOf(ctx, reading, table)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, writing, func(tx pgx.Tx) error {
		for _, statement := range []string{"set local role " + ident(serving.Owner), "create table " + target + " (" + definitions + ")"} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("make the table %s: %w", target, err)
			}
		}
		rows := fmt.Sprintf("copy (select %s from only %s) to stdout (format binary)", columns, pgx.Identifier{table.Schema, table.Name}.Sanitize())
		if err := copyRows(ctx, reading, tx, rows, "copy "+target+" from stdin (format binary)"); err != nil {
			return fmt.Errorf("copy the rows into %s: %w", target, err)
		}
		differences, err := compareTable(ctx, tx, table, name)
		if err == nil && len(differences) > 0 {
			err = fmt.Errorf("%w: its copy differs: %s", ErrRejected, strings.Join(differences, "; "))
		}
		return err
	})
}

// columnsOf are the columns of a table, and their definitions. All are compared with what was backed up, so the sessions'
// settings that texts and hashes depend on are those of open.
func columnsOf(ctx context.Context, conn *pgx.Conn, table Table) (columns, definitions string, err error) {
	const list = `
select coalesce(string_agg(quote_ident(attname), ', ' order by attnum), ''),
       coalesce(string_agg(format('%I %s%s%s', attname, format_type(atttypid, atttypmod),
                         case when attcollation <> 0 and attcollation <> typcollation
                              then format(' collate %s', attcollation::regcollation) else '' end,
                         case when attnotnull then ' not null' else '' end), ', ' order by attnum), '')
  from pg_attribute
  join pg_type on pg_type.oid = atttypid
 where attrelid = format('%I.%I', $1::text, $2::text)::regclass and attnum > 0 and not attisdropped and attgenerated = ''`
	err = conn.QueryRow(ctx, list, table.Schema, table.Name).Scan(&columns, &definitions)
	return columns, definitions, wrapped("read the columns of "+table.key(), err)
}

// copyRows sends what one session's COPY writes to another's.
func copyRows(ctx context.Context, reading *pgx.Conn, writing pgx.Tx, from, to string) error {
	work, ctx := errgroup.WithContext(ctx)
	read, write := io.Pipe()
	work.Go(func() error {
		_, err := reading.PgConn().CopyTo(ctx, write, from)
		return errors.Join(err, write.CloseWithError(err))
	})
	work.Go(func() error {
		_, err := writing.Conn().PgConn().CopyFrom(ctx, read, to)
		_ = read.CloseWithError(err)
		return err
	})
	return work.Wait()
}
