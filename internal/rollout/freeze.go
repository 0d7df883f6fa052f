package rollout

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/school-sms/sms/internal/schedule"
)

// Freeze is a time again and again in which nothing new is rolled out: from each time that From is due until the next that Until is.
type Freeze struct {
	// From and Until are cron expressions of five fields in Zone, an IANA name. They mean the clock on the wall, on days on which that is
	// changed too.
	From  string `json:"from"`
	Until string `json:"until"`
	Zone  string `json:"zone"`
	// Reason is told to whom it stops.
	Reason string `json:"reason"`
	// Environments that it is for. Empty: all.
	Environments []string `json:"environments,omitempty"`
}

// FreezeFaults names everything that is wrong with freezes.
func FreezeFaults(freezes []Freeze) []Fault {
	var faults []Fault
	for i, freeze := range freezes {
		faults = append(faults, freeze.faults(fmt.Sprintf("freezes[%d]", i))...)
	}
	return faults
}

// faults are those of one freeze; field names it.
func (f Freeze) faults(field string) []Fault {
	var faults []Fault
	check := func(of string, err error) {
		if err != nil {
			faults = append(faults, Fault{field + "." + of, err.Error()})
		}
	}
	from, err := schedule.ParseCron(f.From)
	check("from", err)
	until, err := schedule.ParseCron(f.Until)
	check("until", err)
	check("zone", schedule.CheckZone(f.Zone))
	if f.Reason == "" {
		check("reason", errors.New("is missing: why is nothing rolled out then?"))
	}
	for _, environment := range f.Environments {
		if !slices.Contains(Environments(), environment) {
			check("environments", fmt.Errorf("%q is none of %v", environment, Environments()))
		}
	}
	leap := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) // what does not come within five years from here never does
	if len(faults) == 0 && (from.Next(leap, time.UTC).IsZero() || until.Next(leap, time.UTC).IsZero()) {
		check("from", fmt.Errorf("%q or %q never comes", f.From, f.Until))
	}
	return faults
}

// end is when a freeze ends that holds at a time. It holds when its next end comes before its next beginning.
func (f Freeze) end(now time.Time) (end time.Time, holds bool) {
	from, err := schedule.ParseCron(f.From)
	until, failed := schedule.ParseCron(f.Until)
	zone, unknown := time.LoadLocation(f.Zone)
	if err != nil || failed != nil || unknown != nil {
		return time.Time{}, false // refused before, by its faults
	}
	begin, end := from.Next(now, zone), until.Next(now, zone)
	return end, !end.After(begin)
}

// Frozen is the freeze that holds in an environment at a time and ends last; until is its end, or zero when none holds. Where one follows
// upon another, the end of the first is told.
func Frozen(freezes []Freeze, environment string, now time.Time) (until time.Time, reason string) {
	for _, f := range freezes {
		if len(f.Environments) > 0 && !slices.Contains(f.Environments, environment) {
			continue
		}
		if end, holds := f.end(now); holds && end.After(until) {
			until, reason = end, f.Reason
		}
	}
	return until, reason
}
