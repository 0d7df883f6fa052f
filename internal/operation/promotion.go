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
