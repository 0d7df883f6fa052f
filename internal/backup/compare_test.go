package backup_test

import (
	"slices"
	"testing"

	"github.com/school-sms/sms/internal/backup"
)

func TestCompareNamesEveryDifference(t *testing.T) {
	t.Parallel()
	expected := backup.Contents{
		Tables: []backup.Table{{Schema: "public", Name: "student", Rows: 13, Hash: "1"}, {Schema: "public", Name: "audit", Rows: 5, Hash: "2"},
			{Schema: "public", Name: "fee", Rows: 2, Hash: "3"}, {Schema: "other", Name: "x"}},
		Sequences: []backup.Sequence{{Schema: "public", Name: "id", Value: 7, Until: 7, Called: true, UntilCalled: true},
			{Schema: "public", Name: "moving", Value: 7, Until: 9, Called: true, UntilCalled: true}},
		Extensions: []backup.Extension{{Name: "pg_trgm", Schema: "public", Version: "1.6"}, {Name: "citext", Schema: "public", Version: "1.10"}},
		Objects: []backup.Object{{Kind: "index", Name: "public.student_name", On: "public.student", Definition: "a"},
			{Kind: "table", Name: "public.student", Definition: "b", Owner: "student_service", Grants: "x=r/student_service"},
			{Kind: "constraint", Name: "public.student.student_pkey", On: "public.student", Definition: "c"}},
		LargeObjects: 1,
	}
	if got := backup.Compare(expected, expected); len(got) != 0 {
		t.Errorf("equal databases differ: %v", got)
	}
	found := backup.Contents{
		Tables: []backup.Table{{Schema: "public", Name: "student", Rows: 3, Hash: "9"}, {Schema: "public", Name: "zoo", Rows: 1}, {Schema: "other", Name: "x"},
			{Schema: "public", Name: "fee", Rows: 2, Hash: "4"}},
		Sequences:  []backup.Sequence{{Schema: "public", Name: "id", Value: 7, Called: false}, {Schema: "public", Name: "moving", Value: 10, Called: true}},
		Extensions: []backup.Extension{{Name: "citext", Schema: "public", Version: "1.9"}},
		Objects: []backup.Object{{Kind: "index", Name: "public.student_name", On: "public.student", Definition: "z"},
			{Kind: "table", Name: "public.student", Definition: "b", Owner: "postgres"}},
	}
	want := []string{
		"table public.audit is missing with its 5 rows",
		"table public.fee: 2 rows, as many as expected, but not the same",
		"table public.student: 10 rows missing (3 of 13 there)",
		"table public.zoo was not in the database",
		"sequence public.id stands at 7 as expected, but gives out another next value",
		"sequence public.moving stands at 10, 7 to 9 expected",
		"extension citext has version 1.9, 1.10 expected",
		"extension pg_trgm 1.6 is missing",
		"constraint public.student.student_pkey of public.student is missing",
		"index public.student_name of public.student is defined differently",
		"table public.student belongs to postgres, student_service expected",
		"table public.student has other grants: the default ones, expected are x=r/student_service",
		"there are 0 large objects, 1 expected",
	}
	if got := backup.Compare(expected, found); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for value, equal := range map[int64]bool{6: false, 7: true, 8: true, 9: true, 10: false} {
		found := backup.Contents{Sequences: []backup.Sequence{{Schema: "s", Name: "q", Value: value, Called: true}}}
		moved := backup.Contents{Sequences: []backup.Sequence{{Schema: "s", Name: "q", Value: 7, Until: 9, Called: true, UntilCalled: true}}}
		if got := backup.Compare(moved, found); (len(got) == 0) != equal {
			t.Errorf("a sequence that moved from 7 to 9 is found at %d: %v", value, got)
		}
	}
}
