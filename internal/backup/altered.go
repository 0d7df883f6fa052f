package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrAltered says that somebody dropped, truncated or rewrote something of the snapshot before the dump held its locks. What was dumped
// may lack it, or the hashes may. The next attempt takes another snapshot.
var ErrAltered = errors.New("the database was altered while its dump began")

// checkUnaltered looks for what is not any more as the snapshot of tx has it, though pg_dump and the hashes count on it: a truncated or
// rewritten table seems to have been empty in older snapshots too (PostgreSQL manual, section 13.6), and the definition of a dropped
// index cannot be had any more. It is asked when pg_dump has locked the tables, and tx those that it has hashed.
func checkUnaltered(ctx context.Context, tx pgx.Tx) error {
	// The tables are read as of the snapshot, while these functions tell what is now.
	const query = `
select n.nspname || '.' || c.relname
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'i', 'I') and c.relpersistence <> 't'
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_%'
   and case c.relkind when 'r' then pg_relation_filenode(c.oid) is distinct from c.relfilenode
            else pg_get_indexdef(c.oid) is null end
 order by 1`
	rows, _ := tx.Query(ctx, query) // the error comes with the rows
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for what was altered: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s", ErrAltered, strings.Join(names, ", "))
	}
	return nil
}
