package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/internal/schedule"
)

func TestCronMeansTheSameToTemporal(t *testing.T) {
	t.Parallel()
	one := func(from, to int) []client.ScheduleRange { return []client.ScheduleRange{{Start: from, End: to}} }
	for expression, want := range map[string]client.ScheduleCalendarSpec{
		"0 2 * * *":      {Minute: one(0, 0), Hour: one(2, 2), DayOfMonth: one(1, 31), Month: one(1, 12), DayOfWeek: one(0, 6)},
		" 30  1 * * 1-5": {Minute: one(30, 30), Hour: one(1, 1), DayOfMonth: one(1, 31), Month: one(1, 12), DayOfWeek: one(1, 5)},
		"0 0 1 jan *":    {Minute: one(0, 0), Hour: one(0, 0), DayOfMonth: one(1, 1), Month: one(1, 1), DayOfWeek: one(0, 6)},
		"*/30 * * * sun": {Minute: []client.ScheduleRange{{Start: 0, End: 0}, {Start: 30, End: 30}}, Hour: one(0, 23), DayOfMonth: one(1, 31),
			Month: one(1, 12), DayOfWeek: one(0, 0)},
	} {
		cron, err := schedule.ParseCron(expression)
		if err != nil {
			t.Errorf("%q: %v", expression, err)
			continue
		}
		want.Comment = strings.Join(strings.Fields(expression), " ")
		spec := cron.Spec("Asia/Kolkata", time.Now())
		if diff := cmp.Diff([]client.ScheduleCalendarSpec{want}, spec.Calendars); diff != "" {
			t.Errorf("%q: %s", expression, diff)
		}
		if back, zone := schedule.Read(&spec); back != want.Comment || zone != "Asia/Kolkata" {
			t.Errorf("%q is read back as %q in %s", expression, back, zone)
		}
	}
}

func TestCronIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	for expression, reason := range map[string]string{
		"": "five fields", "0 2 * *": "this one has 4", "0 0 2 * * *": "this one has 6", "@daily": "five fields",
		"0 2 1 * 1": "both restricted", "60 2 * * *": "not a cron expression", "0 25 * * *": "not a cron expression", "TZ=UTC 2 * * *": "time zone",
	} {
		if _, err := schedule.ParseCron(expression); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want a refusal that says %q", expression, err, reason)
		}
	}
	for zone, good := range map[string]bool{"Asia/Kolkata": true, "UTC": true, "": false, "Local": false, "Asia/Nowhere": false} {
		if err := schedule.CheckZone(zone); (err == nil) != good {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
}
