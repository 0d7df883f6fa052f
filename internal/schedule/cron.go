// Package schedule turns cron expressions into Temporal schedules that mean the same.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // images hold no zone files

	"github.com/robfig/cron/v3"
	"go.temporal.io/sdk/client"
)

// Cron is a checked cron expression of five fields: minute, hour, day of month, month, day of week.
type Cron struct {
	text   string
	fields *cron.SpecSchedule
}

// star marks a field that robfig/cron read as `*` or `?`.
const star = 1 << 63

// ParseCron checks an expression. Where both days are restricted, cron runs on either and Temporal only on both: such
// an expression is refused, because people mean different things by it.
func ParseCron(text string) (Cron, error) {
	text = strings.Join(strings.Fields(text), " ")
	if n := len(strings.Fields(text)); n != 5 {
		return Cron{}, fmt.Errorf("a cron expression has five fields (minute hour day month weekday), this one has %d", n)
	}
	if strings.Contains(text, "=") {
		return Cron{}, errors.New("the time zone is given beside the cron expression, not in it")
	}
	parsed, err := cron.ParseStandard(text)
	if err != nil {
		return Cron{}, fmt.Errorf("not a cron expression: %w", err)
	}
	fields, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Cron{}, errors.New("a cron expression has five fields, not a shorthand")
	}
	if fields.Dom&star == 0 && fields.Dow&star == 0 {
		return Cron{}, errors.New("day of month and day of week are both restricted: some programs run such a schedule when either fits, " +
			"others when both do; set one of them to * and make a second schedule for the other")
	}
	return Cron{text: text, fields: fields}, nil
}

// CheckZone returns an error that says what a zone may be, unless it is one of the IANA time zone database.
func CheckZone(name string) error {
	if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {
		return fmt.Errorf("%q is not a time zone, such as Asia/Kolkata", name)
	}
	return nil
}

// String is the expression with single spaces.
func (c Cron) String() string { return c.text }

// Spec is what Temporal runs by, in a zone that CheckZone takes. The expression is kept as the first calendar's comment, to
// be read back by Read. The changes of the zone's clock in the next years after now are seen to; Refresh sees to later ones.
func (c Cron) Spec(zone string, now time.Time) client.ScheduleSpec {
	spec := client.ScheduleSpec{
		TimeZoneName: zone,
		Calendars: []client.ScheduleCalendarSpec{{
			Minute: ranges(c.fields.Minute, 0, 59), Hour: ranges(c.fields.Hour, 0, 23), DayOfMonth: ranges(c.fields.Dom, 1, 31),
			Month: ranges(c.fields.Month, 1, 12), DayOfWeek: ranges(c.fields.Dow, 0, 6), Comment: c.text,
		}},
	}
	if location, err := time.LoadLocation(zone); err == nil {
		c.correct(&spec, location, now)
	}
	return spec
}

// Read returns the expression and zone that a spec was made of. The expression is empty when the schedule was changed
// elsewhere to something that Spec does not make.
func Read(spec *client.ScheduleSpec) (expression, zone string) {
	zone = spec.TimeZoneName
	if zone == "" {
		zone = "UTC"
	}
	if _, plain := corrections(spec); plain {
		if _, err := ParseCron(spec.Calendars[0].Comment); err == nil {
			expression = spec.Calendars[0].Comment
		}
	}
	return expression, zone
}

// ranges are the runs of set bits.
func ranges(bits uint64, low, high int) []client.ScheduleRange {
	var found []client.ScheduleRange
	for i := low; i <= high; i++ {
		if bits&(1<<i) == 0 {
			continue
		}
		if n := len(found); n > 0 && found[n-1].End == i-1 {
			found[n-1].End = i
			continue
		}
		found = append(found, client.ScheduleRange{Start: i, End: i})
	}
	return found
}
