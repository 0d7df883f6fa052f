package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	common "go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

func dial(t *testing.T, namespace string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: temporaltest.Address(t), Namespace: temporaltest.Namespace(t, namespace)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// create makes a paused schedule in a real Temporal server.
func create(t *testing.T, c client.Client, id string, spec client.ScheduleSpec) {
	t.Helper()
	_, err := c.ScheduleClient().Create(t.Context(), client.ScheduleOptions{ID: id, Spec: spec, Paused: true,
		Action: &client.ScheduleWorkflowAction{ID: id, Workflow: "Nothing", TaskQueue: "nobody"}})
	if err != nil {
		t.Fatal(err)
	}
}

// matching asks the server when a schedule runs.
func matching(t *testing.T, c client.Client, namespace, id string, from, until time.Time) []time.Time {
	t.Helper()
	res, err := c.WorkflowService().ListScheduleMatchingTimes(t.Context(), &workflowservice.ListScheduleMatchingTimesRequest{
		Namespace: namespace, ScheduleId: id, StartTime: timestamppb.New(from), EndTime: timestamppb.New(until)})
	if err != nil {
		t.Fatal(err)
	}
	var times []time.Time
	for _, at := range res.GetStartTime() {
		times = append(times, at.AsTime())
	}
	return times
}

// dueAt is when something is due at a time of day on a date, by trying: at the first moment at which the clock shows it, or
// else, where the clock skips it, as much later as the clock is put forward.
func dueAt(date time.Time, clock time.Duration, zone *time.Location) time.Time {
	shown := date.Add(clock)
	_, before := shown.Add(-26 * time.Hour).In(zone).Zone()
	_, after := shown.Add(26 * time.Hour).In(zone).Zone()
	for _, offset := range []int{max(before, after), min(before, after)} { // the greater offset is the earlier moment
		at := shown.Add(-time.Duration(offset) * time.Second)
		if at.In(zone).Format(time.DateTime) == shown.Format(time.DateTime) {
			return at
		}
	}
	return shown.Add(-time.Duration(before) * time.Second)
}

func TestADailyScheduleRunsOnceADayWhereClocksAreChanged(t *testing.T) {
	t.Parallel()
	const namespace = "clocks"
	c := dial(t, namespace)
	now := time.Now().UTC().Truncate(24 * time.Hour)
	for _, name := range []string{"Europe/Berlin", "Europe/London", "America/New_York", "America/Santiago", "America/Havana", "Africa/Cairo",
		"Africa/Casablanca", "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Kolkata"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, clock := range []string{"00:00", "00:30", "01:00", "01:45", "02:00", "02:15", "02:59", "03:30", "23:30"} {
				hour, minute, _ := strings.Cut(clock, ":")
				cron, err := schedule.ParseCron(minute + " " + hour + " * * *")
				if err != nil {
					t.Fatal(err)
				}
				id := strings.ReplaceAll(name+"-"+clock, "/", "-")
				create(t, c, id, cron.Spec(name, now))
				sinceMidnight, _ := time.ParseDuration(hour + "h" + minute + "m")
				from, until := dueAt(now.AddDate(0, 0, 2), sinceMidnight, zone), dueAt(now.AddDate(0, 0, 902), sinceMidnight, zone)
				runs := matching(t, c, namespace, id, from.Add(-time.Second), until.Add(-time.Second))
				if len(runs) != 900 {
					t.Errorf("at %s: %d runs in 900 days", clock, len(runs))
				}
				for day, at := range runs {
					due := dueAt(now.AddDate(0, 0, 2+day), sinceMidnight, zone)
					if late := at.Sub(due); late < 0 || late > time.Second {
						t.Fatalf("at %s: runs at %s, due is %s", clock, at.In(zone), due.In(zone))
					}
				}
			}
		})
	}
}

// When this fails, a newer Temporal does what people expect, and correct has become needless.
func TestTemporalsOwnCalendarsDoNotRunOnceADay(t *testing.T) {
	t.Parallel()
	const namespace = "calendars"
	c := dial(t, namespace)
	for _, test := range []struct {
		zone, cron, from string
		runs             []string
	}{
		{"Europe/Berlin", "30 2 * * *", "2027-03-28", nil},
		{"America/New_York", "30 1 * * *", "2027-11-07", []string{"01:30 EDT", "01:30 EST"}},
		{"Europe/Berlin", "30 1 * * *", "2027-10-31", []string{"01:30 CEST", "02:30 CEST"}},
	} {
		zone, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := time.ParseInLocation(time.DateOnly, test.from, zone)
		cron, err := schedule.ParseCron(test.cron)
		if err != nil {
			t.Fatal(err)
		}
		spec := cron.Spec(test.zone, time.Now())
		spec.Calendars, spec.Skip, spec.Intervals = spec.Calendars[:1], nil, nil
		create(t, c, test.from, spec)
		var runs []string
		for _, at := range matching(t, c, namespace, test.from, from, from.AddDate(0, 0, 1)) {
			runs = append(runs, at.In(zone).Format("15:04 MST"))
		}
		if diff := cmp.Diff(test.runs, runs); diff != "" {
			t.Errorf("%s in %s on %s: %s", test.cron, test.zone, test.from, diff)
		}
	}
}

func TestRefreshSeesToClocksAndKeepsWhatAnOperatorHasSet(t *testing.T) {
	t.Parallel()
	c := dial(t, "refresh")
	cron, err := schedule.ParseCron("*/20 2 * * 0")
	if err != nil {
		t.Fatal(err)
	}
	old := cron.Spec("Europe/Berlin", time.Now().AddDate(-2, 0, 0)) // as it was made two years ago
	old.EndAt = time.Now().AddDate(10, 0, 0).UTC().Truncate(time.Second)
	create(t, c, "old", old)
	create(t, c, "foreign", client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}})
	for _, step := range []struct {
		id, input string
		changed   bool
	}{{"old", "as before", true}, {"old", "as before", false}, {"old", "of a newer version", true}, {"old", "of a newer version", false},
		{"foreign", "as before", false}, {"missing", "as before", false}} {
		means := schedule.Definition{ID: step.id, WorkflowID: step.id, Workflow: "Nothing", Input: step.input}
		if changed, err := schedule.Refresh(t.Context(), c, means); err != nil || changed != step.changed {
			t.Errorf("refresh %s, %s: %t %v, want %t", step.id, step.input, changed, err, step.changed)
		}
	}
	described, err := c.ScheduleClient().GetHandle(t.Context(), "old").Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var input string
	action := described.Schedule.Action.(*client.ScheduleWorkflowAction)
	if err := converter.GetDefaultDataConverter().FromPayload(action.Args[0].(*common.Payload), &input); err != nil || input != "of a newer version" {
		t.Errorf("it does %q: %v", input, err)
	}
	expression, zone := schedule.Read(described.Schedule.Spec)
	if expression != "*/20 2 * * 0" || zone != "Europe/Berlin" || !described.Schedule.State.Paused || !described.Schedule.Spec.EndAt.Equal(old.EndAt) {
		t.Errorf("%q in %s, %+v", expression, zone, described.Schedule)
	}
	berlin, _ := time.LoadLocation("Europe/Berlin")
	sundays := 0
	for _, change := range []time.Month{time.March, time.October} { // the last Sundays, three runs each
		year := time.Now().AddDate(2, 0, 0).Year()
		first := time.Date(year, change, 1, 0, 0, 0, 0, berlin)
		for _, at := range matching(t, c, "refresh", "old", first, first.AddDate(0, 1, 0)) {
			if local := at.In(berlin); local.Day() > 24 {
				sundays++
			}
		}
	}
	if sundays != 6 {
		t.Errorf("%d runs on the Sundays on which the clock is changed, want 6", sundays)
	}
	foreign, err := c.ScheduleClient().GetHandle(t.Context(), "foreign").Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if expression, _ := schedule.Read(foreign.Schedule.Spec); expression != "" {
		t.Errorf("a schedule of somebody else is read as %q", expression)
	}
}
