package backup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// mostErased bounds how many erased students are named; all are counted.
const mostErased = 100

// Aftermath is what the database that is serving knows and the restored one that is to replace it does not.
type Aftermath struct {
	// Erased are the ids of students that were erased since the backup, and are back in the restored database: mostErased of
	// them at most. Students is how many there are.
	Erased   []string `json:"erased,omitempty"`
	Students int      `json:"students,omitempty"`
	// Numbered says that the restored database was told which student ids were given since the backup, so that it gives none
	// of them again.
	Numbered bool `json:"numbered,omitempty"`
	// SchemaServing and SchemaRestored are the numbers of the last migration; zero where there are none.
	SchemaServing  int `json:"schemaServing,omitempty"`
	SchemaRestored int `json:"schemaRestored,omitempty"`
}

const (
	// Of what is not a student database there is nothing to ask.
	hasStudents = `
select to_regclass('public.student_erasure') is not null and to_regclass('public.student_number') is not null
   and to_regclass('public.student') is not null`
	hasMigrations  = `select to_regclass('public.schema_version') is not null`
	lastMigration  = `select coalesce(max(version), 0) from public.schema_version`
	erasedStudents = `select student_id from public.student_erasure order by student_id`
	// Erased since: the id is a student's again.
	backAgain = `
select student_id
  from public.student
 where student_id = any($1)
 order by student_id`
	studentNumbers = `select year, synthetic, last from public.student_number`
	keepNumber     = `
insert into public.student_number as n (year, synthetic, last) values ($1, $2, $3)
on conflict (year, synthetic) do update set last = greatest(n.last, excluded.last)`
)

// Reconcile compares the database that serves with the restored one, and carries over what must never be lost: which
// student ids have been given. It changes nothing in the one that serves, and may be repeated.
func Reconcile(ctx context.Context, source Source, serving, restored string) (Aftermath, error) {
	var after Aftermath
	old, err := source.open(ctx, serving)
	if err != nil {
		return after, err
	}
	defer old.Close(context.WithoutCancel(ctx))
	now, err := source.open(ctx, restored)
	if err != nil {
		return after, err
	}
	defer now.Close(context.WithoutCancel(ctx))
	if after.SchemaServing, err = schemaOf(ctx, old); err != nil {
		return after, err
	}
	if after.SchemaRestored, err = schemaOf(ctx, now); err != nil {
		return after, err
	}
	for _, conn := range []*pgx.Conn{old, now} {
		var students bool
		if err := conn.QueryRow(ctx, hasStudents).Scan(&students); err != nil || !students {
			return after, wrapped("look for students", err)
		}
	}
	if err := after.erased(ctx, old, now); err != nil {
		return after, wrapped("look for erased students", err)
	}
	after.Numbered = true
	return after, wrapped("carry over which student ids were given", carryNumbers(ctx, old, now))
}

func schemaOf(ctx context.Context, conn *pgx.Conn) (version int, err error) {
	var there bool
	if err := conn.QueryRow(ctx, hasMigrations).Scan(&there); err != nil || !there {
		return 0, wrapped("look for migrations", err)
	}
	return version, wrapped("read the last migration", conn.QueryRow(ctx, lastMigration).Scan(&version))
}

func (a *Aftermath) erased(ctx context.Context, old, now *pgx.Conn) error {
	rows, _ := old.Query(ctx, erasedStudents) // the error comes with the rows
	erased, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(erased) == 0 {
		return err
	}
	rows, _ = now.Query(ctx, backAgain, erased)
	back, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	a.Students, a.Erased = len(back), back[:min(len(back), mostErased)]
	return nil
}

func carryNumbers(ctx context.Context, old, now *pgx.Conn) error {
	type series struct {
		Year      int
		Synthetic bool
		Last      int64
	}
	rows, _ := old.Query(ctx, studentNumbers)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[series])
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, now, func(tx pgx.Tx) error {
		for _, s := range all {
			if _, err := tx.Exec(ctx, keepNumber, s.Year, s.Synthetic, s.Last); err != nil {
				return err
			}
		}
		return nil
	})
}

// open connects to a database as the role that restores, with the settings under which contents are compared.
func (s Source) open(ctx context.Context, database string) (*pgx.Conn, error) {
	address, err := s.restoring(database)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, address, restoreApplication)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, session); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("read %s: %w", database, err)
	}
	return conn, nil
}

func wrapped(what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
