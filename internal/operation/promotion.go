package operation

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/rollout"
)

const insertPromotion = `
insert into promotion (operation, environment, service, release, replaced, rollback, promoted_by)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (operation) do nothing`

const promotionsOfService = `
select operation, environment, service, release, replaced, rollback, promoted_by, promoted_at
  from promotion
 where environment = $1 and service = $2
 order by promoted_at, operation`

const newestPromotions = `
select operation, environment, service, release, replaced, rollback, promoted_by, promoted_at` + ofPromotions + `
 order by promoted_at desc, operation desc
 limit $4 offset $5`

const countPromotions = `select count(*)` + ofPromotions

// ofPromotions takes environment and service, empty for all, and whether only the newest of each service counts.
const ofPromotions = `
  from promotion p
 where ($1 = '' or environment = $1)
   and ($2 = '' or service = $2)
   and not ($3 and exists (select from promotion later
                            where later.environment = p.environment and later.service = p.service
                              and (later.promoted_at, later.operation) > (p.promoted_at, p.operation)))`

// Promote records that a release has become the stable one. Told twice, it changes nothing. The time is the database's.
func (s *Store) Promote(ctx context.Context, p rollout.Promotion) error {
	_, err := s.pool.Exec(ctx, insertPromotion, p.Operation, p.Environment, p.Service, p.Release, p.Replaced, p.Rollback, p.PromotedBy)
	if err != nil {
		return fmt.Errorf("record the promotion of %s: %w", p.Service, err)
	}
	return nil
}

// Promotions is the history of a service in an environment, the oldest first.
func (s *Store) Promotions(ctx context.Context, environment, service string) ([]rollout.Promotion, error) {
	rows, err := s.pool.Query(ctx, promotionsOfService, environment, service)
	if err != nil {
		return nil, fmt.Errorf("read the promotions of %s: %w", service, err)
	}
	history, err := pgx.CollectRows(rows, pgx.RowToStructByName[rollout.Promotion])
	if err != nil {
		return nil, fmt.Errorf("read the promotions of %s: %w", service, err)
	}
	return history, nil
}

// NewestPromotions is a page of promotions in an environment and of a service, or in and of all where that is empty, and how many there
// are: the newest first. With current, only the newest of each service. Pages count from 0.
func (s *Store) NewestPromotions(ctx context.Context, environment, service string, current bool, page, size int) (found []rollout.Promotion, total int64, err error) {
	if err := s.pool.QueryRow(ctx, countPromotions, environment, service, current).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count promotions: %w", err)
	}
	rows, err := s.pool.Query(ctx, newestPromotions, environment, service, current, size, page*size)
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[rollout.Promotion])
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list promotions: %w", err)
	}
	return found, total, nil
}
