package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// pulseTaken is what a tick tells.
type pulseTaken struct {
	at        time.Time     // by the database's clock
	others    int           // registries that live besides this one
	blocked   time.Duration // how long another may yet answer without asking
	gap       time.Duration // time in which no registry stored renewals, given back to every lease
	preserved *float64      // seconds since a registry held evictions; nil means never
	renewals  map[key]time.Duration
}

const tickMember = `
select at, others, blocked, gap, preserved
  from registry_tick($1, make_interval(secs => $2), make_interval(secs => $3), make_interval(secs => $4), $5, $6)`

const storeRenewals = `
update renewal r
   set renewed_at = greatest(r.renewed_at, clock_timestamp() - make_interval(secs => u.age)), stored_at = clock_timestamp(), member = $4
  from unnest($1::text[], $2::text[], $3::float8[]) as u(app, id, age)
 where r.app = u.app and r.instance_id = u.id`

const selectRenewals = `
select app, instance_id, extract(epoch from clock_timestamp() - renewed_at)::float8
  from renewal
 where stored_at > $1 and member <> $2`

// tick says that this registry lives, stores renewals, and reads those that others have stored since the last tick. The first
// statement locks the state of the registries, so ticks come one after the other.
func (s store) tick(ctx context.Context, me string, cfg Config, surrender, preserving bool, renewals map[key]time.Duration,
	heard time.Time) (pulseTaken, error) {
	var taken pulseTaken
	batch := &pgx.Batch{}
	batch.Queue(tickMember, me, cfg.MemberLease.Seconds(), cfg.sole().Seconds(), cfg.pause().Seconds(), surrender, preserving).
		QueryRow(func(row pgx.Row) error {
			var blocked, gap float64
			err := row.Scan(&taken.at, &taken.others, &blocked, &gap, &taken.preserved)
			taken.blocked, taken.gap = seconds(blocked), seconds(gap)
			return err
		})
	if len(renewals) > 0 {
		apps, ids, ages := make([]string, 0, len(renewals)), make([]string, 0, len(renewals)), make([]float64, 0, len(renewals))
		for k, age := range renewals {
			apps, ids, ages = append(apps, k.app), append(ids, k.id), append(ages, age.Seconds())
		}
		batch.Queue(storeRenewals, apps, ids, ages, me)
	}
	if !heard.IsZero() {
		taken.renewals = map[key]time.Duration{}
		batch.Queue(selectRenewals, heard, me).Query(func(rows pgx.Rows) error {
			var k key
			var age float64
			_, err := pgx.ForEachRow(rows, []any{&k.app, &k.id, &age}, func() error {
				taken.renewals[k] = seconds(age)
				return nil
			})
			return err
		})
	}
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return pulseTaken{}, fmt.Errorf("exchange renewals: %w", err)
	}
	return taken, nil
}

const leaveMembers = `
with gone as (delete from member where id = $1 returning id)
select pg_notify('registry', id || ' left') from gone`

// tick exchanges renewals with the other registries and finds out whether there are any. surrender gives up the right to
// answer without asking, which another waits for.
func (r *Registry) tick(ctx context.Context, surrender bool) (blocked time.Duration, err error) {
	if surrender {
		r.soleUntil.Store(0) // before anybody hears of it
	}
	began := r.now()
	r.mu.Lock()
	renewals := map[key]time.Duration{}
	for k, l := range r.leases {
		if here := instant(l.spoke.here.Load()); here > 0 && here >= r.flushed {
			renewals[k] = began - here
		}
	}
	preserving, heard := r.preserving, r.heard
	if r.others == 0 && !surrender {
		heard = time.Time{} // nobody else has stored any; the first tick with others reads them all again
	}
	r.mu.Unlock()
	taken, err := r.store.tick(ctx, r.id, r.cfg, surrender, preserving, renewals, heard)
	if err != nil {
		return 0, err
	}
	if taken.others == 0 {
		r.soleUntil.Store(int64(began + r.cfg.sole()))
	} else {
		r.soleUntil.Store(0)
	}
	r.flushed = began
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if taken.others > 0 && heard.IsZero() {
		// What others stored before this tick is not known: the next one reads everything.
		r.heard = time.Unix(0, 1)
	} else {
		r.heard = taken.at
	}
	r.others, r.ticked = taken.others, now
	if taken.preserved != nil {
		if at := now - seconds(*taken.preserved); !r.preservedOnce || at > r.preserved {
			r.preserved, r.preservedOnce = at, true
		}
	}
	for k, age := range taken.renewals {
		if l, known := r.leases[k]; known {
			l.spoke.at(now - age)
		}
	}
	return taken.blocked, nil
}

// join becomes a member, and returns once no other registry answers without asking. Until then nothing may be written, but reads
// are answered.
func (r *Registry) join(ctx context.Context, said <-chan told) error {
	const again = 50 * time.Millisecond // when nobody says that it has given up
	defer r.wake()                      // for what waits
	for {
		blocked, err := r.exchangeTick(ctx, true)
		if err == nil {
			err = r.bounded(ctx, r.lookUp)
		}
		if err != nil || blocked <= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.kick:
		case <-said:
		case <-time.After(min(blocked, again)):
		}
	}
}

// leave gives what is known to the others and says farewell.
func (r *Registry) leave(ctx context.Context) error {
	if _, err := r.exchangeTick(ctx, true); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.WriteWait)
	defer cancel()
	if _, err := r.store.pool.Exec(ctx, leaveMembers, r.id); err != nil {
		return fmt.Errorf("leave the registries: %w", err)
	}
	return nil
}

// exchange is a tick of a registry that may write. It fails when the others took this one for dead, as after a pause of the
// process, and one of them answers alone by now.
func (r *Registry) exchange(ctx context.Context, surrender bool) error {
	blocked, err := r.exchangeTick(ctx, surrender)
	if err == nil && blocked > 0 {
		return errNotMember
	}
	return err
}

func (r *Registry) exchangeTick(ctx context.Context, surrender bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.WriteWait)
	defer cancel()
	return r.tick(ctx, surrender)
}
