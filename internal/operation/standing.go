package operation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const watchDatabases = `
insert into watched_database (name, since)
select name, $2 from unnest($1::text[]) as name
on conflict (name) do nothing`

const databasesSince = `select name, since from watched_database where name = any($1)`

// standingOperations yields at most one row for each of three questions a database.
const standingOperations = `
select 'verified' as question, v.*
  from unnest($1::text[]) as d (name)
 cross join lateral (select ` + columns + ` from operation
                      where subject = d.name and kind = 'backup' and state = 'verified' and ended_at is not null
                      order by started_at desc limit 1) v
union all
select 'drill', v.*
  from unnest($1::text[]) as d (name)
 cross join lateral (select ` + columns + ` from operation
                      where subject = d.name and kind = 'restore-drill' and state = 'succeeded'
                      order by started_at desc limit 1) v
union all
select 'last', v.*
  from unnest($1::text[]) as d (name)
 cross join lateral (select ` + columns + ` from operation
                      where subject = d.name and kind = 'backup'
                      order by started_at desc limit 1) v`

const newestPlans = `
select p.*
  from unnest($1::text[]) as d (name)
 cross join lateral (select ` + columns + ` from operation
                      where subject = d.name and kind = 'retention' and result -> 'outcome' -> 'storages' is not null
                      order by started_at desc limit 1) p`

// Standing is what is on record of the backups of one database. What there is none of is nil.
type Standing struct {
	Database string
	// Since is when Watch first named the database; zero when it never did.
	Since time.Time
	// Verified is the newest verified backup, Drill the newest drill that succeeded, Last the newest backup of any state.
	Verified, Drill, Last *Record
}

// Watch remembers since when databases are watched. One that is known keeps its time.
func (s *Store) Watch(ctx context.Context, databases []string, now time.Time) error {
	if _, err := s.pool.Exec(ctx, watchDatabases, databases, now); err != nil {
		return fmt.Errorf("remember the databases to watch: %w", err)
	}
	return nil
}

// Standings returns what is on record of the backups of databases, in the order given.
func (s *Store) Standings(ctx context.Context, databases []string) ([]Standing, error) {
	standings := make([]Standing, len(databases))
	at := map[string]*Standing{}
	for i, name := range databases {
		standings[i].Database = name
		at[name] = &standings[i]
	}
	rows, err := s.pool.Query(ctx, databasesSince, databases)
	if err != nil {
		return nil, fmt.Errorf("read the watched databases: %w", err)
	}
	var name string
	var since time.Time
	if _, err := pgx.ForEachRow(rows, []any{&name, &since}, func() error {
		at[name].Since = since
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the watched databases: %w", err)
	}
	rows, err = s.pool.Query(ctx, standingOperations, databases)
	if err != nil {
		return nil, fmt.Errorf("read the backups of databases: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[answer])
	if err != nil {
		return nil, fmt.Errorf("read the backups of databases: %w", err)
	}
	for _, one := range found {
		standing := at[one.Subject]
		*map[string]**Record{"verified": &standing.Verified, "drill": &standing.Drill, "last": &standing.Last}[one.Question] = &one.Record
	}
	return standings, nil
}

// answer is a row of standingOperations.
type answer struct {
	Question string
	Record
}

// Plans returns the newest retention of each database that has decided what is kept.
func (s *Store) Plans(ctx context.Context, databases []string) ([]Record, error) {
	return s.all(ctx, newestPlans, databases)
}
