package operation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/operation"
)

func TestStandingsAreTheNewestOfEachKind(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	start := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	add := func(kind operation.Kind, database, state string, day int) string {
		t.Helper()
		r := backupOf(database, fmt.Sprint(kind, day))
		r.Kind, r.State, r.StartedAt = kind, state, start.AddDate(0, 0, day)
		if state != operation.Running {
			ended := r.StartedAt.Add(time.Minute)
			r.EndedAt = &ended
		}
		if err := store.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	add(operation.Backup, "student_db", "verified", 0)
	good := add(operation.Backup, "student_db", "verified", 1)
	add(operation.Backup, "student_db", "failed", 2)
	last := add(operation.Backup, "student_db", operation.Running, 3)
	add(operation.RestoreDrill, "student_db", "succeeded", 0)
	drill := add(operation.RestoreDrill, "student_db", "succeeded", 1)
	add(operation.RestoreDrill, "student_db", "failed", 2)
	only := add(operation.Backup, "ops_db", "failed", 0)
	add(operation.Backup, "other_db", "verified", 0)

	databases := []string{"student_db", "ops_db", "new_db"}
	for i, since := range []time.Time{start, start.AddDate(0, 0, 1)} { // the second changes nothing
		if err := store.Watch(t.Context(), databases[:2+i], since); err != nil {
			t.Fatal(err)
		}
	}
	got, err := store.Standings(t.Context(), databases)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v %v", got, err)
	}
	id := func(r *operation.Record) string {
		if r == nil {
			return ""
		}
		return r.ID
	}
	for i, want := range [][]string{{good, drill, last}, {"", "", only}, {"", "", ""}} {
		if s := got[i]; s.Database != databases[i] || id(s.Verified) != want[0] || id(s.Drill) != want[1] || id(s.Last) != want[2] {
			t.Errorf("%s: %+v, want %q", databases[i], s, want)
		}
	}
	if !got[0].Since.Equal(start) || !got[2].Since.Equal(start.AddDate(0, 0, 1)) {
		t.Errorf("watched since %s and %s", got[0].Since, got[2].Since)
	}
}
