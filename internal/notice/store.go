package notice

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A webhook that is new is told of what comes after.
const addWebhooks = `
insert into webhook (name, told)
select name, coalesce((select max(id) from notice), 0) from unnest($1::text[]) as name
on conflict (name) do nothing`

const standings = `
select name, failures, failure, sent_at, failed_at, waiting_since,
       retry_at <= now() and held_until <= now() and told < (select max(id) from notice) as due
  from webhook
 where name = any($1)
 order by name`

const holdWebhook = `
update webhook
   set held_by = $2, held_until = now() + $3
 where name = $1 and retry_at <= now() and held_until <= now()
returning told`

const noticesAfter = `
select id, operation, kind, environment, subject, state, summary, started_by, notify, at, at < now() - $2::interval as late
  from notice
 where id > $1
 order by id
 limit 100`

const markSent = `
update webhook
   set told = $3, sent_at = now(), failures = 0, failure = '', waiting_since = null, held_until = now() + $4
 where name = $1 and held_by = $2`

const markPassed = `
update webhook
   set told = $3, waiting_since = null, held_until = now() + $4
 where name = $1 and held_by = $2`

const markFailed = `
update webhook
   set failures = failures + 1, failure = $3, failed_at = now(), waiting_since = $4,
       retry_at = now() + least($6::interval, $5::interval * 2 ^ least(failures, 30)), held_until = now()
 where name = $1 and held_by = $2
returning failures`

const releaseWebhook = `update webhook set held_until = now() where name = $1 and held_by = $2`

const deleteNotices = `delete from notice where at < now() - $1::interval`

// Standing is how a webhook is doing.
type Standing struct {
	Name string
	// Failures counts in a row; Failure is why not the last time.
	Failures         int
	Failure          string
	SentAt, FailedAt *time.Time
	// WaitingSince is when the notice happened that it did not take.
	WaitingSince *time.Time
	// Due says that there may be something to tell it now.
	Due bool
}

// store keeps notices and how far webhooks are told, in ops_db. A webhook is told by one Deliverer at a time, its holder; by the time of the
// database, so that no two clocks have to agree.
type store struct{ pool *pgxpool.Pool }

// standings adds webhooks that are new, and returns how all are doing.
func (s store) standings(ctx context.Context, names []string) ([]Standing, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if _, err := s.pool.Exec(ctx, addWebhooks, names); err != nil {
		return nil, fmt.Errorf("add webhooks: %w", err)
	}
	rows, err := s.pool.Query(ctx, standings, names)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Standing])
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	return found, nil
}

// hold makes holder the one who tells a webhook, for a time that every mark begins anew. It returns the last notice that was told, or
// pgx.ErrNoRows while somebody else is the one or it is not time yet.
func (s store) hold(ctx context.Context, name, holder string, lease time.Duration) (told int64, err error) {
	return told, s.pool.QueryRow(ctx, holdWebhook, name, holder, lease).Scan(&told)
}

// after returns the next notices; those older than keep are late.
func (s store) after(ctx context.Context, told int64, keep time.Duration) ([]Notice, error) {
	rows, err := s.pool.Query(ctx, noticesAfter, told, keep)
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Notice])
	if err != nil {
		return nil, fmt.Errorf("read notices: %w", err)
	}
	return found, nil
}

// mark does a statement of the holder. It fails with errNotHeld when that is somebody else by now.
func (s store) mark(ctx context.Context, statement string, args ...any) error {
	done, err := s.pool.Exec(ctx, statement, args...)
	if err == nil && done.RowsAffected() == 0 {
		err = errNotHeld
	}
	return err
}
