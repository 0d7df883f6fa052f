package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/postgres"
)

const oneBackupConstraint = "operation_one_backup"

const columns = `id, kind, workflow_id, run_id, environment, subject, state, summary, started_by, started_at, ended_at,
       input, result, revision, updated_at`

const insertOperation = `
insert into operation (id, kind, workflow_id, run_id, environment, subject, state, summary, started_by, started_at, ended_at,
                       input, result, revision)
values (@id, @kind, @workflow_id, @run_id, @environment, @subject, @state, @summary, @started_by, @started_at, @ended_at,
        @input, @result, @revision)`

const beginOperation = insertOperation + `
on conflict (id) do nothing`

const recordOperation = insertOperation + `
on conflict (id) do update
   set state = excluded.state, summary = excluded.summary, ended_at = excluded.ended_at, result = excluded.result,
       revision = excluded.revision, updated_at = now()
 where operation.revision < excluded.revision
   and operation.ended_at is null`

const holderOfBackup = `
select ` + columns + `
  from operation
 where kind = 'backup' and subject = $1 and ended_at is null`

const abandonOperation = `
update operation
   set state = 'failed', summary = $2, ended_at = now(), updated_at = now()
 where id = $1 and ended_at is null`

const abandonBefore = `
update operation
   set state = 'failed', summary = $3, ended_at = now(), updated_at = now()
 where workflow_id = $1 and id <> $2 and ended_at is null`

const amendOperation = `
update operation
   set state = $2, summary = $3, updated_at = now()
 where id = $1 and ended_at is not null`

const correctOperation = `
update operation
   set state = $3, summary = $4, updated_at = now()
 where id = $1 and state = $2 and ended_at is not null`

const operationsOfSubject = `
select ` + columns + `
  from operation
 where kind = $1 and ($2 = '' or subject = $2)
 order by started_at, id`

const openOperations = `
select ` + columns + `
  from operation
 where kind = any($1) and ended_at is null
 order by started_at, id`

const operationsByPrefix = `
select ` + columns + `
  from operation
 where kind = any($1) and id ^@ $2
 order by id
 limit 2`

const operationOfRequest = `
select ` + columns + `
  from operation
 where kind = $1 and started_by = $2 and input ? 'requestId' and input ->> 'requestId' = $3
 order by started_at desc
 limit 1`

// ofFilter takes the fields of a Filter. A rollout plan has several environments and services.
const ofFilter = `
  from operation
 where kind = $1
   and ($2 = '' or $2 = any(string_to_array(environment, ', ')))
   and ($3 = '' or $3 = any(string_to_array(subject, ', ')))
   and ($4 = '' or state = $4)`

const listOperations = `
select ` + columns + ofFilter + `
 order by started_at desc, id desc
 limit $5 offset $6`

const countOperations = `select count(*)` + ofFilter

// Store keeps the records in ops_db. Its errors are ErrNotFound, ErrAmbiguous, *HeldError, or the database's.
type Store struct{ pool *pgxpool.Pool }

// NewStore uses the pool of ops_db.
func NewStore(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Begin records a new operation and takes its lock, if its kind has one. It returns *HeldError when another has the
// lock. Begun twice, it changes nothing.
func (s *Store) Begin(ctx context.Context, r Record) error {
	_, err := s.pool.Exec(ctx, beginOperation, arguments(r))
	if postgres.ViolatedConstraint(err) != oneBackupConstraint {
		return wrap("begin", r, err)
	}
	holder, err := s.Holder(ctx, r.Subject)
	if err != nil {
		return err
	}
	if holder == nil {
		return s.Begin(ctx, r) // it ended between the two statements
	}
	return &HeldError{Holder: *holder}
}

// Holder returns the backup of a database that holds the lock; nil when none does.
func (s *Store) Holder(ctx context.Context, database string) (*Record, error) {
	rows, err := s.pool.Query(ctx, holderOfBackup, database)
	if err != nil {
		return nil, wrap("find the holder of", Record{Kind: Backup}, err)
	}
	holder, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[Record])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return holder, wrap("find the holder of", Record{Kind: Backup}, err)
}

// Record writes what an operation has come to. An older word that arrives late changes nothing, nor does any word
// after the last.
func (s *Store) Record(ctx context.Context, r Record) error {
	_, err := s.pool.Exec(ctx, recordOperation, arguments(r))
	return wrap("record", r, err)
}

// Abandon ends the record of an operation whose workflow is gone without a word.
func (s *Store) Abandon(ctx context.Context, id, why string) error {
	_, err := s.pool.Exec(ctx, abandonOperation, id, why)
	return wrap("abandon", Record{ID: id}, err)
}

// AbandonBefore ends the records of earlier runs of an operation's workflow: Temporal has let this one begin, so they are gone.
func (s *Store) AbandonBefore(ctx context.Context, r Record, why string) error {
	_, err := s.pool.Exec(ctx, abandonBefore, r.WorkflowID, r.ID, why)
	return wrap("abandon what was before", r, err)
}

// Amend changes the outcome of an operation that has ended, when something was found out about it later.
func (s *Store) Amend(ctx context.Context, id, state, summary string) error {
	_, err := s.pool.Exec(ctx, amendOperation, id, state, summary)
	return wrap("amend", Record{ID: id}, err)
}

// Restore puts the record of an operation that has ended back, as it was told by what it left. A record that is there
// stays as it is. It reports whether there was none.
func (s *Store) Restore(ctx context.Context, r Record) (bool, error) {
	done, err := s.pool.Exec(ctx, beginOperation, arguments(r))
	return done.RowsAffected() > 0, wrap("restore", r, err)
}

// Correct is an Amend of an operation that still is in a state. It reports whether it was.
func (s *Store) Correct(ctx context.Context, id, from, to, summary string) (bool, error) {
	done, err := s.pool.Exec(ctx, correctOperation, id, from, to, summary)
	return done.RowsAffected() > 0, wrap("correct", Record{ID: id}, err)
}

// Of returns all operations of a kind on a subject, or on every one if subject is empty: the oldest first.
func (s *Store) Of(ctx context.Context, kind Kind, subject string) ([]Record, error) {
	return s.all(ctx, operationsOfSubject, kind, subject)
}

// Open returns the operations of some kinds whose end is not on record, the oldest first.
func (s *Store) Open(ctx context.Context, kinds ...Kind) ([]Record, error) {
	return s.all(ctx, openOperations, kinds)
}

func (s *Store) all(ctx context.Context, query string, args ...any) ([]Record, error) {
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read operations: %w", err)
	}
	records, err := pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	if err != nil {
		return nil, fmt.Errorf("read operations: %w", err)
	}
	return records, nil
}

// Get returns the one operation of one of the kinds whose id is, or begins with, the prefix.
func (s *Store) Get(ctx context.Context, prefix string, kinds ...Kind) (Record, error) {
	rows, err := s.pool.Query(ctx, operationsByPrefix, kinds, strings.ToLower(prefix))
	if err != nil {
		return Record{}, wrap("read", Record{ID: prefix}, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	switch {
	case err != nil:
		return Record{}, wrap("read", Record{ID: prefix}, err)
	case len(found) == 0 || prefix == "":
		return Record{}, ErrNotFound
	case len(found) > 1:
		return Record{}, ErrAmbiguous
	}
	return found[0], nil
}

// OfRequest returns the operation that a user has asked for under a request id, or ErrNotFound.
func (s *Store) OfRequest(ctx context.Context, kind Kind, user, requestID string) (Record, error) {
	found, err := s.all(ctx, operationOfRequest, kind, user, requestID)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	return found[0], nil
}

// Filter picks operations of a kind. What is empty picks all.
type Filter struct {
	Kind                        Kind
	Environment, Subject, State string
}

// List returns a page of operations, newest first, and how many there are in all. Pages count from 0.
func (s *Store) List(ctx context.Context, f Filter, page, size int) (records []Record, total int64, err error) {
	if err := s.pool.QueryRow(ctx, countOperations, f.Kind, f.Environment, f.Subject, f.State).Scan(&total); err != nil {
		return nil, 0, wrap("count", Record{Kind: f.Kind}, err)
	}
	rows, err := s.pool.Query(ctx, listOperations, f.Kind, f.Environment, f.Subject, f.State, size, page*size)
	if err != nil {
		return nil, 0, wrap("list", Record{Kind: f.Kind}, err)
	}
	records, err = pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	return records, total, wrap("list", Record{Kind: f.Kind}, err)
}

func arguments(r Record) pgx.NamedArgs {
	return pgx.NamedArgs{
		"id": r.ID, "kind": r.Kind, "workflow_id": r.WorkflowID, "run_id": r.RunID, "environment": r.Environment,
		"subject": r.Subject, "state": r.State, "summary": r.Summary, "started_by": r.StartedBy, "started_at": r.StartedAt,
		"ended_at": r.EndedAt, "input": object(r.Input), "result": object(r.Result), "revision": r.Revision,
	}
}

// object is an empty JSON object where nothing was given.
func object(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage("{}")
	}
	return raw
}

func wrap(what string, r Record, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s operation %s%s: %w", what, r.Kind, r.ID, err)
}
