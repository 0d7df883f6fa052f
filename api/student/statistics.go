package student

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

type statisticsOutput struct{ Body Statistics }

// Statistics counts the students of the school, those too who have been erased.
type Statistics struct {
	Total      int64            `db:"total" json:"total"`
	Active     int64            `db:"active" json:"active"`
	Inactive   int64            `db:"inactive" json:"inactive"`
	AverageAge float64          `db:"average_age" json:"averageAge" doc:"In completed years, of all students, to one place; 0 when there are none."`
	ByAgeBand  map[string]int64 `db:"by_age_band" json:"byAgeBand" doc:"All students by age; bands without students are left out."`
	ByCaste    map[string]int64 `db:"by_caste" json:"byCaste" doc:"All students by caste."`
}

func (s *service) statistics(ctx context.Context, _ *struct{}) (*statisticsOutput, error) {
	statistics, err := s.store.Statistics(ctx, s.today())
	if err != nil {
		return nil, err
	}
	return &statisticsOutput{Body: statistics}, nil
}

// One pass over the table: sums by caste, status and age, which are then summed up each way, together with the tallies that
// erased students have left.
const selectStatistics = `
with counted as (
    select caste, status, age, count(*) as students
    from (
        select caste, status, extract(year from age($1::date, date_of_birth))::int as age from student where not synthetic
    ) as aged
    group by caste, status, age
), fact as (
    select 'status' as kind, status as value, 0 as age, students from counted
    union all
    select 'caste', caste, 0, students from counted
    union all
    select 'date_of_birth', '', age, students from counted
    union all
    select kind, value, case kind when 'date_of_birth' then extract(year from age($1::date, value::date))::int else 0 end, students
    from student_erased_count
), banded as (
    select case when age < 3 then '0-2' when age < 6 then '3-5' when age < 9 then '6-8' when age < 12 then '9-11'
                when age < 15 then '12-14' when age < 19 then '15-18' else '19+' end as band,
        sum(students) as students
    from fact where kind = 'date_of_birth' group by band
), casted as (
    select value as caste, sum(students) as students from fact where kind = 'caste' group by value
)
select coalesce(sum(students) filter (where kind = 'status'), 0)::bigint as total,
    coalesce(sum(students) filter (where kind = 'status' and value = 'ACTIVE'), 0)::bigint as active,
    coalesce(sum(students) filter (where kind = 'status' and value = 'INACTIVE'), 0)::bigint as inactive,
    coalesce(round(sum(students * age) / sum(students) filter (where kind = 'date_of_birth'), 1), 0)::float8 as average_age,
    coalesce((select jsonb_object_agg(band, students) from banded), '{}') as by_age_band,
    coalesce((select jsonb_object_agg(caste, students) from casted), '{}') as by_caste
from fact`

// Statistics counts as of a day, in one consistent query.
func (s *Store) Statistics(ctx context.Context, today Date) (Statistics, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectStatistics, today)
	statistics, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Statistics])
	if err != nil {
		return Statistics{}, fmt.Errorf("count students: %w", err)
	}
	return statistics, nil
}
