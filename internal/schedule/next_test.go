package schedule

import (
	"testing"
	"time"
)

func TestNextMeansTheSameWhereClocksAreChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ zone, cron, after, want string }{
		"on the day":         {"Asia/Kolkata", "0 8 * * 1-5", "2026-11-27T07:59:00+05:30", "2026-11-27T08:00:00+05:30"},
		"strictly after":     {"Asia/Kolkata", "0 8 * * 1-5", "2026-11-27T08:00:00+05:30", "2026-11-30T08:00:00+05:30"},
		"skipped":            {"Europe/Berlin", "30 2 * * *", "2026-03-29T00:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		"after the skipped":  {"Europe/Berlin", "30 3 * * *", "2026-03-29T00:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		"shown twice, first": {"Europe/Berlin", "30 2 * * *", "2026-10-25T00:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		"not the second":     {"Europe/Berlin", "30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		"once a year":        {"Australia/Lord_Howe", "0 0 20 12 *", "2026-12-20T00:00:00+11:00", "2027-12-20T00:00:00+11:00"},
		"a day left out":     {"Pacific/Apia", "0 12 * * *", "2011-12-29T13:00:00-10:00", "2011-12-31T12:00:00+14:00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cron, err := ParseCron(c.cron)
			if err != nil {
				t.Fatal(err)
			}
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			after, _ := time.Parse(time.RFC3339, c.after)
			if got := cron.Next(after, zone).Format(time.RFC3339); got != c.want {
				t.Errorf("after %s: %s, want %s", c.after, got, c.want)
			}
		})
	}
	if never, err := ParseCron("0 0 31 2 *"); err == nil && !never.Next(time.Unix(0, 0), time.UTC).IsZero() {
		t.Error("the 31st of February is due")
	}
}

// In every zone, over years with all their changes of the clock: a daily time is due once on each day of its calendar.
func TestADailyTimeIsDueOnceADayInEveryZone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Asia/Kolkata", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns", "Pacific/Chatham"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"30 0 * * *", "30 1 * * *", "15 2 * * *", "45 2 * * *", "30 3 * * *"} {
			cron, err := ParseCron(text)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Date(2025, 12, 31, 12, 0, 0, 0, zone)
			day := at
			for range 365 * 3 {
				at, day = cron.Next(at, zone), day.AddDate(0, 0, 1)
				if at.In(zone).Format(time.DateOnly) != day.Format(time.DateOnly) {
					t.Fatalf("%s in %s: due at %s, want once on %s", text, name, at.In(zone), day.Format(time.DateOnly))
				}
			}
		}
	}
}
