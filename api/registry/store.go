package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/discovery"
)

// store is registry_db. Times cross the border as ages, so that clocks of two machines never meet.
type store struct{ pool *pgxpool.Pool }

var (
	// errBehind says that others have committed changes that the decision did not know.
	errBehind = errors.New("others have changed something since")
	// errNotMember says that the others took this registry for dead: it must join again before it writes.
	errNotMember = errors.New("this registry is not a member")
)

// refusal translates what registry_advance raises.
func refusal(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "SR001":
			return errBehind
		case "SR002":
			return errNotMember
		}
	}
	return err
}

const selectPosition = `select position from registry_state`

// moved reads the position, without which nothing else is worth reading.
func (s store) moved(ctx context.Context) (position int64, err error) {
	if err := s.pool.QueryRow(ctx, selectPosition).Scan(&position); err != nil {
		return 0, fmt.Errorf("read the position: %w", err)
	}
	return position, nil
}

// news is what was committed after a position.
type news struct {
	position   int64
	leases     []storedLease
	departures []departure
	splits     []discovery.SplitState
}

type storedLease struct {
	key
	doc              document
	duration         time.Duration
	changed, renewed instant
	position         int64
}

type departure struct {
	key
	doc     document
	left    instant
	evicted bool
}

const selectClock = `select position, clock_timestamp() from registry_state`

const selectDepartures = `
select app, instance_id, document, left_at, evicted
  from departure
 where position > $1`

const selectLeases = `
select l.app, l.instance_id, l.document, l.lease_seconds, l.position, l.written_at, coalesce(r.renewed_at, l.written_at)
  from lease l
  left join renewal r using (app, instance_id)
 where l.position > $1`

const selectSplits = `
select app, shares, sticky, fence, updated_by, updated_at
  from split
 where position > $1`

// everything is the position before all changes: also of those that were made before changes were numbered.
const everything = -1

// since reads what was committed after a position. What is committed meanwhile may be in it too, beyond the position it names.
// The clock here is read before the database's, by no more than a round trip, which makes instants of its times: none is later than
// it was, so that what was changed here after it was stored is known to be newer.
func (s store) since(ctx context.Context, position int64, now func() instant) (news, error) {
	var n news
	var clock time.Time
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return n, fmt.Errorf("read what is stored: %w", err)
	}
	defer conn.Release()
	read := now()
	at := func(t time.Time) instant { return read - clock.Sub(t) }
	batch := &pgx.Batch{}
	batch.Queue(selectClock).QueryRow(func(row pgx.Row) error {
		return row.Scan(&n.position, &clock)
	})
	batch.Queue(selectDepartures, position).Query(func(rows pgx.Rows) error {
		var d departure
		var encoded []byte
		var left time.Time
		_, err := pgx.ForEachRow(rows, []any{&d.app, &d.id, &encoded, &left, &d.evicted}, func() error {
			d.doc, d.left = document{}, at(left)
			err := decode(encoded, &d.doc)
			n.departures = append(n.departures, d)
			return err
		})
		return err
	})
	batch.Queue(selectLeases, position).Query(func(rows pgx.Rows) error {
		var l storedLease
		var encoded []byte
		var duration int64
		var written, renewed time.Time
		_, err := pgx.ForEachRow(rows, []any{&l.app, &l.id, &encoded, &duration, &l.position, &written, &renewed}, func() error {
			l.doc, l.duration, l.changed, l.renewed = document{}, time.Duration(duration)*time.Second, at(written), at(renewed)
			err := decode(encoded, &l.doc)
			n.leases = append(n.leases, l)
			return err
		})
		return err
	})
	batch.Queue(selectSplits, position).Query(func(rows pgx.Rows) error {
		var state discovery.SplitState
		_, err := pgx.ForEachRow(rows, splitFields(&state), func() error {
			n.splits = append(n.splits, state)
			state = discovery.SplitState{}
			return nil
		})
		return err
	})
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		return news{}, fmt.Errorf("read what is stored: %w", err)
	}
	return n, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func decode(encoded []byte, doc *document) error {
	if err := json.Unmarshal(encoded, doc); err != nil {
		return fmt.Errorf("a stored instance: %w", err)
	}
	doc.own = doc.Status
	return nil
}

// outcome is one lease as the database shall have it; next is nil when it ends.
type outcome struct {
	key
	next    *lease
	at      instant // of the change
	evicted bool
}

const advance = `select registry_advance($1, $2)`

const depart = `
with gone as (
    delete from lease l
     using unnest($1::text[], $2::text[], $3::float8[], $4::boolean[]) as u(app, id, age, evicted)
     where l.app = u.app and l.instance_id = u.id
    returning l.app, l.instance_id, l.document, u.age, u.evicted)
insert into departure (app, instance_id, document, position, left_at, evicted)
select app, instance_id, document, $5, clock_timestamp() - make_interval(secs => age), evicted
  from gone
    on conflict (app, instance_id) do update
   set document = excluded.document, position = excluded.position, left_at = excluded.left_at, evicted = excluded.evicted`

const upsertLeases = `
insert into lease (app, instance_id, document, lease_seconds, position, written_at)
select app, id, document, seconds, $6, clock_timestamp() - make_interval(secs => age)
  from unnest($1::text[], $2::text[], $3::jsonb[], $4::integer[], $5::float8[]) as u(app, id, document, seconds, age)
    on conflict (app, instance_id) do update
   set document = excluded.document, lease_seconds = excluded.lease_seconds, position = excluded.position, written_at = excluded.written_at`

const insertRenewals = `
insert into renewal (app, instance_id, renewed_at, stored_at, member)
select app, id, clock_timestamp() - make_interval(secs => age), clock_timestamp(), $4
  from unnest($1::text[], $2::text[], $3::float8[]) as u(app, id, age)
    on conflict (app, instance_id) do update
   set renewed_at = greatest(renewal.renewed_at, excluded.renewed_at), stored_at = excluded.stored_at, member = excluded.member`

const notify = `select pg_notify('registry', $1)`

// write commits the outcomes of decisions that know everything up to a position, tells the other registries, and returns the
// new position. The statements are sent together: a registry that stops in the middle leaves no lock behind.
func (s store) write(ctx context.Context, me string, known int64, now instant, outcomes []outcome) error {
	var gone struct {
		apps, ids []string
		ages      []float64
		evicted   []bool
	}
	var here struct {
		apps, ids      []string
		documents      [][]byte
		seconds        []int64
		ages, renewals []float64
	}
	for _, o := range outcomes {
		age := (now - o.at).Seconds()
		if o.next == nil {
			gone.apps, gone.ids = append(gone.apps, o.app), append(gone.ids, o.id)
			gone.ages, gone.evicted = append(gone.ages, age), append(gone.evicted, o.evicted)
			continue
		}
		encoded, err := o.next.stored()
		if err != nil {
			return fmt.Errorf("encode lease %s: %w", o.id, err)
		}
		here.apps, here.ids = append(here.apps, o.app), append(here.ids, o.id)
		here.documents, here.seconds = append(here.documents, encoded), append(here.seconds, int64(max(o.next.duration.Seconds(), 1)))
		here.ages, here.renewals = append(here.ages, age), append(here.renewals, o.next.age(now).Seconds())
	}
	batch := &pgx.Batch{}
	batch.Queue(advance, me, known)
	if len(gone.ids) > 0 {
		batch.Queue(depart, gone.apps, gone.ids, gone.ages, gone.evicted, known+1)
	}
	if len(here.ids) > 0 {
		batch.Queue(upsertLeases, here.apps, here.ids, here.documents, here.seconds, here.ages, known+1)
		batch.Queue(insertRenewals, here.apps, here.ids, here.renewals, me)
	}
	batch.Queue(notify, me+" changed")
	if err := refusal(s.pool.SendBatch(ctx, batch).Close()); err != nil {
		return fmt.Errorf("store %d leases: %w", len(outcomes), err)
	}
	return nil
}

const forget = `delete from departure where left_at < clock_timestamp() - make_interval(secs => $1)`

// forget drops the departures that are older than keep.
func (s store) forget(ctx context.Context, keep time.Duration) error {
	if _, err := s.pool.Exec(ctx, forget, keep.Seconds()); err != nil {
		return fmt.Errorf("forget old departures: %w", err)
	}
	return nil
}

func splitFields(s *discovery.SplitState) []any {
	return []any{&s.App, &s.Split, &s.Sticky, &s.Fence, &s.UpdatedBy, &s.UpdatedAt}
}

const upsertSplit = `
insert into split (app, shares, sticky, fence, updated_by, position)
values ($1, $2, coalesce($3, false), $4, $5, $6)
    on conflict (app) do update
   set shares = excluded.shares, sticky = coalesce($3, split.sticky), fence = excluded.fence, updated_by = excluded.updated_by,
       updated_at = now(), position = excluded.position
 where split.fence <= excluded.fence
returning app, shares, sticky, fence, updated_by, updated_at`

// setSplit stores a split unless a higher fence is stored: then the error is discovery.ErrFenced.
func (s store) setSplit(ctx context.Context, me string, known int64, c *splitChange) (discovery.SplitState, error) {
	split := c.split
	if split == nil {
		split = discovery.Split{}
	}
	var state discovery.SplitState
	fenced := false
	batch := &pgx.Batch{}
	batch.Queue(advance, me, known)
	batch.Queue(upsertSplit, strings.ToLower(c.app), split, c.sticky, c.fence, c.by, known+1).QueryRow(func(row pgx.Row) error {
		err := row.Scan(splitFields(&state)...)
		if fenced = errors.Is(err, pgx.ErrNoRows); fenced {
			return nil
		}
		return err
	})
	batch.Queue(notify, me+" changed")
	switch err := refusal(s.pool.SendBatch(ctx, batch).Close()); {
	case err != nil:
		return state, fmt.Errorf("store the split of %s: %w", c.app, err)
	case fenced:
		return state, discovery.ErrFenced
	}
	return state, nil
}

// sortOutcomes keeps the order of rows the same for all.
func sortOutcomes(outcomes []outcome) {
	slices.SortFunc(outcomes, func(a, b outcome) int { return a.compare(b.key) })
}
