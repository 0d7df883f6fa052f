package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/internal/discovery"
)

// store is registry_db.
type store struct{ pool *pgxpool.Pool }

const selectLeases = `
select app, instance_id, document, lease_seconds
  from lease`

// leases reads every stored lease.
func (s store) leases(ctx context.Context) (map[key]*lease, error) {
	rows, err := s.pool.Query(ctx, selectLeases)
	if err != nil {
		return nil, fmt.Errorf("read the stored leases: %w", err)
	}
	leases := map[key]*lease{}
	var k key
	var encoded []byte
	var seconds int64
	_, err = pgx.ForEachRow(rows, []any{&k.app, &k.id, &encoded, &seconds}, func() error {
		l := &lease{duration: time.Duration(seconds) * time.Second}
		if err := json.Unmarshal(encoded, &l.doc); err != nil {
			return fmt.Errorf("lease %s of %s: %w", k.id, k.app, err)
		}
		l.doc.own = l.doc.Status
		l.doc.Status = l.doc.effective()
		l.registered = time.UnixMilli(int64(l.doc.Lease.Registered))
		leases[k] = l
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the stored leases: %w", err)
	}
	return leases, nil
}

const upsertLease = `
insert into lease (app, instance_id, document, lease_seconds)
values ($1, $2, $3, $4)
    on conflict (app, instance_id) do update
   set document = excluded.document, lease_seconds = excluded.lease_seconds, written_at = now()`

const deleteLease = `
delete from lease
 where app = $1 and instance_id = $2`

// write makes the stored leases equal to those given; nil means that there is none.
func (s store) write(ctx context.Context, leases map[key]*lease) error {
	batch := &pgx.Batch{}
	for k, l := range leases {
		if l == nil {
			batch.Queue(deleteLease, k.app, k.id)
			continue
		}
		doc := l.doc
		doc.Status = doc.own
		encoded, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("encode lease %s: %w", k.id, err)
		}
		batch.Queue(upsertLease, k.app, k.id, encoded, int64(l.duration.Seconds()))
	}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
	if err != nil {
		return fmt.Errorf("store %d leases: %w", len(leases), err)
	}
	return nil
}

const selectSplits = `
select app, shares, fence, updated_by, updated_at
  from split`

// splits reads every stored split.
func (s store) splits(ctx context.Context) (map[string]discovery.SplitState, error) {
	rows, err := s.pool.Query(ctx, selectSplits)
	if err != nil {
		return nil, fmt.Errorf("read the stored splits: %w", err)
	}
	splits := map[string]discovery.SplitState{}
	var state discovery.SplitState
	_, err = pgx.ForEachRow(rows, splitFields(&state), func() error {
		splits[state.App] = state
		state = discovery.SplitState{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the stored splits: %w", err)
	}
	return splits, nil
}

func splitFields(s *discovery.SplitState) []any {
	return []any{&s.App, &s.Split, &s.Fence, &s.UpdatedBy, &s.UpdatedAt}
}

const upsertSplit = `
insert into split (app, shares, fence, updated_by)
values ($1, $2, $3, $4)
    on conflict (app) do update
   set shares = excluded.shares, fence = excluded.fence, updated_by = excluded.updated_by, updated_at = now()
 where split.fence <= excluded.fence
returning app, shares, fence, updated_by, updated_at`

// setSplit stores a split unless a higher fence is stored: then the error is discovery.ErrFenced.
func (s store) setSplit(ctx context.Context, app string, split discovery.Split, fence int64, by string) (discovery.SplitState, error) {
	if split == nil {
		split = discovery.Split{}
	}
	var state discovery.SplitState
	row := s.pool.QueryRow(ctx, upsertSplit, strings.ToLower(app), split, fence, by)
	switch err := row.Scan(splitFields(&state)...); {
	case errors.Is(err, pgx.ErrNoRows):
		return state, discovery.ErrFenced
	case err != nil:
		return state, fmt.Errorf("store the split of %s: %w", app, err)
	}
	return state, nil
}
