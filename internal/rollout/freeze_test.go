package rollout

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFreezeHoldsByTheClockOnTheWall(t *testing.T) {
	t.Parallel()
	weekend := Freeze{From: "0 18 * * 5", Until: "0 6 * * 1", Zone: "Europe/Berlin", Reason: "nobody is there"}
	exams := Freeze{From: "0 0 1 3 *", Until: "0 0 1 4 *", Zone: "Asia/Kolkata", Reason: "exams", Environments: []string{Production}}
	for name, c := range map[string]struct{ environment, now, until, reason string }{
		"before it begins":                      {"staging", "2026-11-27T17:59:59+01:00", "", ""},
		"the moment it begins":                  {"staging", "2026-11-27T18:00:00+01:00", "2026-11-30T06:00:00+01:00", "nobody is there"},
		"the moment it ends":                    {"staging", "2026-11-30T06:00:00+01:00", "", ""},
		"over the end of summer time, 1 h more": {"staging", "2026-10-23T18:00:00+02:00", "2026-10-26T06:00:00+01:00", "nobody is there"},
		"over its beginning, 1 h less":          {"staging", "2026-03-29T00:00:00+01:00", "2026-03-30T06:00:00+02:00", "nobody is there"},
		"the one that ends last counts":         {Production, "2026-03-07T12:00:00+01:00", "2026-04-01T00:00:00+05:30", "exams"},
		"of another environment":                {"staging", "2026-03-04T12:00:00+01:00", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now, err := time.Parse(time.RFC3339, c.now)
			if err != nil {
				t.Fatal(err)
			}
			until, reason := Frozen([]Freeze{weekend, exams}, c.environment, now)
			said := ""
			if !until.IsZero() {
				said = until.Format(time.RFC3339)
			}
			if said != c.until || reason != c.reason {
				t.Errorf("until %q because of %q, want %q, %q", said, reason, c.until, c.reason)
			}
		})
	}
}

// At its end a freeze no longer holds, one moment before it does, whatever the time and the zone.
func TestFreezeEndsWhenItSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom([]string{"Asia/Kolkata", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}).Draw(t, "zone")
		f := Freeze{From: "30 1 * * *", Until: rapid.SampledFrom([]string{"30 2 * * *", "0 3 * * *", "0 14 * * *"}).Draw(t, "until"), Zone: zone, Reason: "x"}
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "now"), 0)
		until, _ := Frozen([]Freeze{f}, "staging", now)
		if until.IsZero() {
			return
		}
		if !until.After(now) || until.Sub(now) > 25*time.Hour {
			t.Fatalf("at %s it holds until %s", now, until)
		}
		if again, _ := Frozen([]Freeze{f}, "staging", until); !again.IsZero() {
			t.Fatalf("at its end %s it holds until %s", until, again)
		}
		if before, _ := Frozen([]Freeze{f}, "staging", until.Add(-time.Second)); !before.Equal(until) {
			t.Fatalf("a second before its end %s it holds until %s", until, before)
		}
	})
}

func TestFreezeIsRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	r := Request{Environment: "staging", Service: "student-service", Release: "/x", Freezes: []Freeze{
		{From: "0 25 * * *", Until: "0 6", Zone: "Mars", Environments: []string{"test"}}, {From: "0 0 31 2 *", Until: "0 0 1 1 *", Zone: "UTC", Reason: "x"},
	}}.WithDefaults()
	var fields []string
	for _, f := range r.Faults() {
		fields = append(fields, f.Field)
	}
	want := []string{"freezes[0].from", "freezes[0].until", "freezes[0].zone", "freezes[0].reason", "freezes[0].environments", "freezes[1].from"}
	if len(fields) != len(want) {
		t.Fatalf("faults of %v, want %v", fields, want)
	}
	for i := range want {
		if fields[i] != want[i] {
			t.Errorf("fault %d is of %s, want %s", i, fields[i], want[i])
		}
	}
}
