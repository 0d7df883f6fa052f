package student

import (
	"fmt"
	"sync"
	"testing"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

func TestNumbersAreNeverGivenOutTwice(t *testing.T) {
	t.Parallel()
	const instances, callers, each = 4, 12, 15
	cfg := pgtest.New(t, migrations.Student())
	ids := sync.Map{}
	var wg sync.WaitGroup
	for instance := range instances {
		pool, err := postgres.Open(t.Context(), cfg, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		shared := NewStore(postgres.NewDB(pool))
		for caller := range callers {
			wg.Go(func() {
				store := shared
				for i := range each {
					if i == each/2 { // as after a kill: what was taken and not used is lost
						store = NewStore(postgres.NewDB(pool))
					}
					of := series{year: 2026 + (caller+i)%2, synthetic: caller%3 == 0}
					id, err := store.NewID(t.Context(), of.year, of.synthetic)
					if err != nil {
						t.Error(err)
					} else if _, twice := ids.LoadOrStore(id, of); twice {
						t.Errorf("%s was given out twice", id)
					}
				}
			})
		}
		wg.Go(func() { // an import takes numbers in its own transaction
			for i := range each {
				var last int
				if err := pool.QueryRow(t.Context(), `insert into student_number as n (year, synthetic, last) values (2026, false, 3)
					on conflict (year, synthetic) do update set last = n.last + 3 returning last`).Scan(&last); err != nil {
					t.Error(err)
				}
				for n := last - 2; n <= last; n++ {
					if _, twice := ids.LoadOrStore(fmt.Sprintf("STU-2026-%05d", n), i); twice {
						t.Errorf("instance %d: number %d was given out twice", instance, n)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestNumbersOfOneInstanceCountUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	store := NewStore(postgres.NewDB(f.pool))
	for _, test := range []struct {
		of   series
		want string
	}{
		{series{2026, false}, "STU-2026-00001"}, {series{2026, false}, "STU-2026-00002"}, {series{2027, false}, "STU-2027-00001"},
		{series{2026, true}, "STU-2026-900000001"}, {series{2026, false}, "STU-2026-00003"}, {series{2026, true}, "STU-2026-900000002"},
	} {
		if got, err := store.NewID(t.Context(), test.of.year, test.of.synthetic); err != nil || got != test.want {
			t.Errorf("%+v: %s %v, want %s", test.of, got, err, test.want)
		}
	}
	if _, err := f.pool.Exec(t.Context(), "update student_number set last = 99999 where year = 2026 and not synthetic"); err != nil {
		t.Fatal(err)
	}
	if got, err := store.NewID(t.Context(), 2026, false); err != nil || got != "STU-2026-100000" {
		t.Errorf("%s %v", got, err)
	}
}
