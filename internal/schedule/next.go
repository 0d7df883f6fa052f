package schedule

import (
	"time"

	"github.com/robfig/cron/v3"
)

// Next is the first time after a moment at which the expression is due in a zone; zero when there is none within five years. On days on
// which the zone's clock is changed it means the same as Spec: what the clock skips is due as much later as it is put forward, what it
// shows twice at the first.
func (c Cron) Next(after time.Time, zone *time.Location) time.Time {
	const mostSkipped = 24 * time.Hour // Samoa left out a day
	shown := cron.SpecSchedule{Minute: c.fields.Minute, Hour: c.fields.Hour, Dom: c.fields.Dom, Month: c.fields.Month, Dow: c.fields.Dow,
		Second: 1, Location: time.UTC}
	for clock := wall(after, offset(after, zone)).Add(-mostSkipped); ; {
		if clock = shown.Next(clock); clock.IsZero() {
			return time.Time{}
		}
		if at := moment(clock, zone); at.After(after) {
			return at.In(zone)
		}
	}
}

// moment is when a zone's clock shows a time, which is given as one in UTC.
func moment(clock time.Time, zone *time.Location) time.Time {
	const aside = 26 * time.Hour // no zone is further from UTC
	before, after := offset(clock.Add(-aside), zone), offset(clock.Add(aside), zone)
	first := clock.Add(-before)
	if second := clock.Add(-after); offset(first, zone) != before && offset(second, zone) == after {
		return second
	}
	return first
}

func offset(at time.Time, zone *time.Location) time.Duration {
	_, seconds := at.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}
