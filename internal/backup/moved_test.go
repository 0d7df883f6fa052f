package backup_test

import (
	"testing"
	"time"

	"github.com/school-sms/sms/internal/backup"
)

func TestPaceSaysHowFarAndHowFast(t *testing.T) {
	t.Parallel()
	var meter backup.Meter
	now := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	pace := backup.NewPace(&meter, now)
	read := func() (string, bool) {
		now = now.Add(2 * time.Second)
		moved, moving := pace.Read(now)
		return moved.String(), moving
	}
	expect := func(words string, moving bool) {
		t.Helper()
		if got, was := read(); got != words || was != moving {
			t.Errorf("%q moving %t, want %q %t", got, was, words, moving)
		}
	}
	expect("", false)
	meter.AllTables.Store(11)
	meter.Bytes.Store(40_000_000)
	expect("40.0 MB at 20.0 MB/s, 0 of 11 tables counted", true)
	meter.Tables.Add(3)
	meter.Bytes.Store(80_000_000)
	expect("80.0 MB at 20.0 MB/s, 3 of 11 tables counted", true)
	expect("80.0 MB at 14.0 MB/s, 3 of 11 tables counted", false)
	for range 20 {
		read()
	}
	if got, _ := pace.Read(now); got.BytesPerSecond > 100_000 {
		t.Errorf("a meter that has long stood still moves at %f", got.BytesPerSecond)
	}
}
