package operation

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const tallyRollouts = `
select environment, subject as service, state, count(*) as total, count(*) filter (where ended_at is null) as running,
       max(ended_at) as last_ended, (array_agg(started_at order by ended_at desc) filter (where ended_at is not null))[1] as last_started
  from operation
 where kind = 'rollout' and environment = any($1) and subject = any($2)
 group by environment, subject, state`

// Tally is how many rollouts of a service in an environment are in one state.
type Tally struct {
	Environment, Service, State string
	Total, Running              int64
	// LastStarted and LastEnded are those of the one that has ended last; nil when none has.
	LastStarted, LastEnded *time.Time
}

// TallyRollouts counts the rollouts of services in environments, without the plans that they belong to.
func (s *Store) TallyRollouts(ctx context.Context, environments, services []string) ([]Tally, error) {
	rows, err := s.pool.Query(ctx, tallyRollouts, environments, services)
	if err != nil {
		return nil, fmt.Errorf("count rollouts: %w", err)
	}
	tallies, err := pgx.CollectRows(rows, pgx.RowToStructByName[Tally])
	if err != nil {
		return nil, fmt.Errorf("count rollouts: %w", err)
	}
	return tallies, nil
}
