package student

import (
	"context"
	"fmt"
)

// series is a row of student_number. Synthetic students have numbers of their own, so that smoke tests use up no ids.
type series struct {
	year      int
	synthetic bool
}

type numbers = batches[struct{}, int64]

// numbersTogether is the most numbers that are taken in one statement.
const numbersTogether = 64

// takeNumbers is committed before one of its numbers is used, so that none is given out twice whatever fails afterwards. The number
// of a student who then is not created is lost.
const takeNumbers = `
insert into student_number as n (year, synthetic, last)
values ($1, $2, case when $2 then 900000000 else 0 end + $3)
on conflict (year, synthetic) do update set last = n.last + $3
returning last`

// NewID gives out an id that no student had or will have. In a statement of its own it is quick: within that of the new student
// the row of the series would stay locked until the commit is on the disk, and one student could be created at a time. It must
// not be called while a connection is held: all that there are could be held by callers who wait for one more.
func (s *Store) NewID(ctx context.Context, year int, synthetic bool) (string, error) {
	of := series{year, synthetic}
	taken, there := s.numbers.Load(of)
	if !there {
		taken, _ = s.numbers.LoadOrStore(of, &numbers{most: numbersTogether, ask: func(ctx context.Context, callers []struct{}) ([]int64, error) {
			given := make([]int64, len(callers))
			var last int64
			err := s.db.QueryRow(ctx, takeNumbers, of.year, of.synthetic, len(callers)).Scan(&last)
			for i := range given {
				given[i] = last - int64(len(given)-1-i)
			}
			return given, err
		}})
	}
	number, err := taken.(*numbers).do(ctx, struct{}{})
	if err != nil {
		return "", fmt.Errorf("take a student number: %w", err)
	}
	return fmt.Sprintf("STU-%d-%05d", of.year, number), nil
}
