package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
)

const (
	// clockYears is how far ahead the changes of a zone's clock are known to a schedule. Refresh goes on from there.
	clockYears = 3
	// around is how far from the repeated hour Temporal's calendars may go wrong (see correct).
	around = time.Hour
)

// clockChange is one change of a zone's clock.
type clockChange struct {
	at time.Time
	// before and after are the offsets from UTC.
	before, after time.Duration
}

// clockChanges are those between two times. Changes of a zone's name only are none.
func clockChanges(zone *time.Location, from, until time.Time) []clockChange {
	var changes []clockChange
	for at := from.In(zone); ; {
		_, end := at.ZoneBounds()
		if end.IsZero() || end.After(until) {
			return changes
		}
		_, before := end.Add(-time.Second).Zone()
		_, after := end.Zone()
		if before != after {
			changes = append(changes, clockChange{end, time.Duration(before) * time.Second, time.Duration(after) * time.Second})
		}
		at = end
	}
}

// wall is what a clock shows at a time, as a time in UTC.
func wall(at time.Time, offset time.Duration) time.Time { return at.UTC().Add(offset) }

// matches reports whether the clock shows a minute of the expression.
func (c Cron) matches(wall time.Time) bool {
	has := func(bits uint64, n int) bool { return bits&(1<<n) != 0 }
	f := c.fields
	return has(f.Minute, wall.Minute()) && has(f.Hour, wall.Hour()) && has(f.Dom, wall.Day()) &&
		has(f.Month, int(wall.Month())) && has(f.Dow, int(wall.Weekday()))
}

// everyHour reports whether the expression names no hour. Then nothing is to be said about an hour that a clock skips or
// shows twice.
func (c Cron) everyHour() bool { return c.fields.Hour&star != 0 }

// correct adds to a spec what makes the expression run once on days on which the zone's clock is changed:
//
//   - A time that the clock skips runs as much later as the clock is put forward: 02:30 at 03:30. Temporal's calendars leave
//     such a day out.
//   - A time that the clock shows twice runs at the first. Temporal's calendars run at both in some zones, at the second or
//     at another time in others, so those of that day are skipped; instead there is an interval that begins in 1970 and ends
//     at the very time, the only way to name a moment rather than a time of the clock. It is a second later, so that
//     it is not skipped itself.
func (c Cron) correct(spec *client.ScheduleSpec, zone *time.Location, now time.Time) {
	if c.everyHour() {
		return
	}
	for _, change := range clockChanges(zone, now.Add(-24*time.Hour), now.AddDate(clockYears, 0, 0)) {
		if change.after > change.before {
			c.correctSkipped(spec, change)
		} else {
			c.correctRepeated(spec, change)
		}
	}
}

func (c Cron) correctSkipped(spec *client.ScheduleSpec, change clockChange) {
	gap := change.after - change.before
	due := minutes{}
	for at := wall(change.at, change.before); at.Before(wall(change.at, change.after)); at = at.Add(time.Minute) {
		if later := at.Add(gap); c.matches(at) && !c.matches(later) {
			due.add(later)
		}
	}
	comment := fmt.Sprintf("%s %s to %s: what is due then runs %s later", skipsWords, wall(change.at, change.before).Format(shownAs),
		wall(change.at, change.after).Format(shownAs), gap)
	spec.Calendars = append(spec.Calendars, due.calendars(comment)...)
}

func (c Cron) correctRepeated(spec *client.ScheduleSpec, change clockChange) {
	repeated := change.before - change.after
	window := minutes{}
	var due []client.ScheduleIntervalSpec
	for at := change.at.Add(-repeated - around); at.Before(change.at.Add(repeated + around)); at = at.Add(time.Minute) {
		shown, again := wall(at, change.before), false
		if !at.Before(change.at) {
			shown, again = wall(at, change.after), at.Before(change.at.Add(repeated))
		}
		window.add(shown)
		if c.matches(shown) && !again {
			due = append(due, client.ScheduleIntervalSpec{Every: time.Duration(at.Unix()+1) * time.Second})
		}
	}
	if len(due) == 0 {
		return
	}
	comment := fmt.Sprintf("%s %s to %s twice: what is due around then runs once, at moments named by intervals since 1970", repeatsWords,
		wall(change.at, change.after).Format(shownAs), wall(change.at, change.before).Format(shownAs))
	spec.Intervals = append(spec.Intervals, due...)
	spec.Skip = append(spec.Skip, window.calendars(comment)...)
}

const (
	shownAs = "2006-01-02 15:04"
	// skipsWords and repeatsWords begin the comments of corrections.
	skipsWords   = "the clock skips"
	repeatsWords = "the clock shows"
	// sinceEpoch is below every interval that names a moment.
	sinceEpoch = 50 * 365 * 24 * time.Hour
)

// corrections are what correct has added to a spec, in words that can be compared. Plain reports whether the spec holds
// nothing else besides its first calendar.
func corrections(spec *client.ScheduleSpec) (found []string, plain bool) {
	plain = len(spec.Calendars) > 0 && len(spec.CronExpressions) == 0
	note := func(calendars []client.ScheduleCalendarSpec, begins string) {
		for _, calendar := range calendars {
			found = append(found, calendar.Comment+spans(calendar.Hour)+spans(calendar.Minute))
			plain = plain && strings.HasPrefix(calendar.Comment, begins)
		}
	}
	if len(spec.Calendars) > 0 {
		note(spec.Calendars[1:], skipsWords)
	}
	note(spec.Skip, repeatsWords)
	for _, interval := range spec.Intervals {
		found = append(found, interval.Every.String())
		plain = plain && interval.Every > sinceEpoch && interval.Offset == 0
	}
	return found, plain
}

func spans(ranges []client.ScheduleRange) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, " %d-%d", r.Start, r.End)
	}
	return b.String()
}

// minutes is a set of minutes that a clock shows, as bits by hour.
type minutes map[time.Time]uint64

func (m minutes) add(shown time.Time) {
	m[shown.Truncate(time.Hour)] |= 1 << shown.Minute()
}

// calendars match the minutes, a calendar an hour, in order.
func (m minutes) calendars(comment string) []client.ScheduleCalendarSpec {
	var all []client.ScheduleCalendarSpec
	for _, hour := range slices.SortedFunc(maps.Keys(m), time.Time.Compare) {
		one := func(n int) []client.ScheduleRange { return []client.ScheduleRange{{Start: n, End: n}} }
		all = append(all, client.ScheduleCalendarSpec{
			Year: one(hour.Year()), Month: one(int(hour.Month())), DayOfMonth: one(hour.Day()), Hour: one(hour.Hour()),
			Minute: ranges(m[hour], 0, 59), DayOfWeek: []client.ScheduleRange{{Start: 0, End: 6}}, Comment: comment,
		})
	}
	return all
}
