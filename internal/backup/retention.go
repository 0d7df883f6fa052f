package backup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Policy says which backups of a database are kept, and how often old ones are proven again.
type Policy struct {
	// KeepDays is how many days back from the newest verified backup every verified one is kept. Days on which none was
	// made do not count, so that neither a pause nor a jump of the clock makes backups old.
	KeepDays int `env:"BACKUP_KEEP_DAYS" envDefault:"30"`
	// KeepMonths is of how many months the first verified backup is kept.
	KeepMonths int `env:"BACKUP_KEEP_MONTHS" envDefault:"12"`
	// KeepVerified is how many verified backups are kept in any case.
	KeepVerified int `env:"BACKUP_KEEP_VERIFIED" envDefault:"3"`
	// ReverifyEvery is the least time between two repeated proofs of a database's backups: the one whose proof is the oldest
	// has its turn after a backup. Less than a day, so that each night has one; 0: never.
	ReverifyEvery time.Duration `env:"BACKUP_REVERIFY_EVERY" envDefault:"20h"`
}

// Check names every fault.
func (p Policy) Check() error {
	var faults []error
	if p.KeepDays < 1 {
		faults = append(faults, errors.New("BACKUP_KEEP_DAYS must be at least 1"))
	}
	if p.KeepMonths < 0 {
		faults = append(faults, errors.New("BACKUP_KEEP_MONTHS must not be negative"))
	}
	if p.KeepVerified < 1 {
		faults = append(faults, errors.New("BACKUP_KEEP_VERIFIED must be at least 1"))
	}
	if p.ReverifyEvery < 0 {
		faults = append(faults, errors.New("BACKUP_REVERIFY_EVERY must not be negative; 0 switches repeated proofs off"))
	}
	return errors.Join(faults...)
}

// Candidate is a backup that retention decides on. One without objects is known from its record only.
type Candidate struct {
	Entry
	// Use is what needs the backup at this moment, such as "running" or "in use by restore 4g8k2m0x7c".
	Use string
	// LockedUntil is how long its storage refuses to delete it.
	LockedUntil time.Time
}

// Verdict says whether a backup is kept, and why.
type Verdict struct {
	BackupID  string    `json:"backupId"`
	Database  string    `json:"database"`
	Base      string    `json:"base,omitempty"`
	StartedAt time.Time `json:"startedAt"`
	// State is running, verified, stored, failed or missing.
	State string `json:"state"`
	Bytes int64  `json:"bytes"`
	Keep  bool   `json:"keep"`
	// Reason is for operators.
	Reason string `json:"reason"`
}

// States of a backup by what its objects say.
const (
	StateVerified = "verified"
	StateStored   = "stored"
	StateFailed   = "failed"
	// StateMissing is that of a record whose objects are gone, though nobody deleted them here.
	StateMissing = "missing"
	// StateDeleted is that of a record whose archive retention has deleted.
	StateDeleted = "deleted"
	stateRunning = "running"
)

const (
	day = 24 * time.Hour
	// clockSlack is how far the clocks of the machines that make backups may lie apart.
	clockSlack = time.Hour
)

// Decide judges every candidate, each database by itself: in the order of databases, then of times.
//
// Age is counted from proof to proof, in the order in which they were written, from the newest back: a gap between two
// counts for a day at most, and for nothing when the clock went back. So it never exceeds the time that has really
// passed by more than a day for each time that the clock was put forward, and deleting makes nobody older. What is not
// verified is judged by what is, and never counts for it. now matters only to tell a clock that has gone back, and locks.
func (p Policy) Decide(candidates []Candidate, now time.Time) []Verdict {
	byDatabase := map[string][]Candidate{}
	for _, c := range candidates {
		byDatabase[c.Manifest.Database] = append(byDatabase[c.Manifest.Database], c)
	}
	var verdicts []Verdict
	for _, database := range slices.Sorted(maps.Keys(byDatabase)) {
		own := byDatabase[database]
		slices.SortFunc(own, byTime)
		j := p.newJudge(own, now)
		for _, c := range own {
			verdicts = append(verdicts, j.verdict(c))
		}
	}
	return verdicts
}

func byTime(a, b Candidate) int {
	return cmp.Or(a.Manifest.StartedAt.Compare(b.Manifest.StartedAt), strings.Compare(a.Base, b.Base), strings.Compare(a.Manifest.ID, b.Manifest.ID))
}

// judge knows the backups of one database.
type judge struct {
	Policy
	now time.Time
	// verified are in the order of their first proofs.
	verified []Candidate
	// daily, monthly and newest are the bases of verified backups that the rules keep; months are those that have one.
	daily, newest map[string]bool
	monthly       map[string]string // base → month
	months        map[string]bool
	// unproven are the bases of the first whole backups of months without a verified one; lastStored is the newest of all.
	unproven   map[string]string
	lastStored string
	// floor is when the time begins in which nothing is deleted.
	floor time.Time
}

// newJudge takes the candidates of one database, in the order of their times.
func (p Policy) newJudge(candidates []Candidate, now time.Time) *judge {
	j := &judge{Policy: p, now: now, daily: map[string]bool{}, newest: map[string]bool{}, months: map[string]bool{}}
	var stored []Candidate
	for _, c := range candidates {
		switch {
		case c.Verified():
			j.verified = append(j.verified, c)
		case c.Fault == nil && len(c.Objects) > 0 && !c.Disproven():
			stored = append(stored, c)
			j.lastStored = c.Base
		}
	}
	j.monthly = firstOfMonths(j.verified, p.KeepMonths, nil)
	for _, c := range j.verified {
		j.months[month(c)] = true
	}
	j.unproven = firstOfMonths(stored, p.KeepMonths, j.months)
	slices.SortStableFunc(j.verified, func(a, b Candidate) int {
		first, second := a.Proofs[0], b.Proofs[0]
		return cmp.Or(cmp.Compare(first.Number, second.Number), first.VerifiedAt.Compare(second.VerifiedAt))
	})
	j.keepDaily()
	for _, c := range j.verified[max(0, len(j.verified)-p.KeepVerified):] {
		j.newest[c.Base] = true
	}
	return j
}

// keepDaily keeps what is younger than the floor, which begins no later than KeepDays before the newest verified backup.
func (j *judge) keepDaily() {
	var age time.Duration
	for i := len(j.verified) - 1; i >= 0; i-- {
		c := j.verified[i]
		if i < len(j.verified)-1 {
			gap := j.verified[i+1].Proofs[0].VerifiedAt.Sub(c.Proofs[0].VerifiedAt)
			age += min(max(gap, 0), day)
		} else {
			j.floor = c.Manifest.StartedAt.Add(-j.span())
		}
		if age >= j.span() {
			return
		}
		j.daily[c.Base] = true
		if c.Manifest.StartedAt.Before(j.floor) {
			j.floor = c.Manifest.StartedAt
		}
	}
}

func (j *judge) span() time.Duration { return time.Duration(j.KeepDays) * day }

// firstOfMonths are the first backups, by base, of the newest months that have any, but for months in without. Those
// count too: else the end of what such a month has would push out another month later.
func firstOfMonths(candidates []Candidate, months int, without map[string]bool) map[string]string {
	first := map[string]string{} // month → base
	for _, c := range candidates {
		if m := month(c); first[m] == "" {
			first[m] = c.Base
		}
	}
	kept := map[string]string{}
	names := slices.Sorted(maps.Keys(first))
	for _, m := range names[max(0, len(names)-months):] {
		if !without[m] {
			kept[first[m]] = m
		}
	}
	return kept
}

func month(c Candidate) string { return c.Manifest.StartedAt.UTC().Format("2006-01") }

func (j *judge) verdict(c Candidate) Verdict {
	v := Verdict{BackupID: c.Manifest.ID, Database: c.Manifest.Database, Base: c.Base, StartedAt: c.Manifest.StartedAt.UTC(),
		State: c.State(), Bytes: c.Bytes()}
	switch {
	case c.Use != "":
		v.Keep, v.Reason = true, c.Use
		if c.Use == stateRunning {
			v.State = stateRunning
		}
		return v
	case len(c.Objects) == 0:
		v.State, v.Keep, v.Reason = StateMissing, true, "record only: its objects are missing"
		return v
	case c.Verified():
		v.Keep, v.Reason = j.judgeVerified(c)
	default:
		v.Keep, v.Reason = j.judgeOther(c)
	}
	if !v.Keep && c.LockedUntil.After(j.now) {
		v.Keep, v.Reason = true, fmt.Sprintf("locked by its storage until %s, then: %s", c.LockedUntil.UTC().Format(time.RFC3339), v.Reason)
	}
	return v
}

func (j *judge) judgeVerified(c Candidate) (keep bool, reason string) {
	switch m := month(c); {
	case j.daily[c.Base] && c.Manifest.StartedAt.Before(j.verified[len(j.verified)-1].Manifest.StartedAt.Add(-j.span())):
		return true, fmt.Sprintf("daily: proven within the newest %d days that have backups", j.KeepDays)
	case j.daily[c.Base]:
		return true, fmt.Sprintf("daily: younger than %d days", j.KeepDays)
	case j.monthly[c.Base] != "":
		return true, "monthly: first verified of " + m
	case j.newest[c.Base]:
		return true, fmt.Sprintf("one of the %d newest verified", j.KeepVerified)
	case j.keptMonth(m):
		return false, fmt.Sprintf("older than %d days, and not the first verified of %s", j.KeepDays, m)
	default:
		return false, fmt.Sprintf("older than %d days, and not of the newest %d months", j.KeepDays, j.KeepMonths)
	}
}

func (j *judge) keptMonth(m string) bool {
	for _, kept := range j.monthly {
		if kept == m {
			return true
		}
	}
	return false
}

// judgeOther judges what is not verified.
func (j *judge) judgeOther(c Candidate) (keep bool, reason string) {
	what, why := "failed", ""
	switch {
	case c.Disproven():
		why = ": " + strings.TrimSuffix(c.Disproofs[len(c.Disproofs)-1].Reason, ".")
	case c.Fault != nil:
		why = ": " + strings.TrimPrefix(c.Fault.Error(), ErrDamaged.Error()+": ")
	default:
		what = "not yet proven"
	}
	switch {
	case c.Unclear():
		return true, "cannot be looked at for now" + why
	case len(j.verified) == 0:
		return true, what + why + "; nothing is deleted while no backup of the database is verified"
	case !c.Manifest.StartedAt.Before(j.floor), c.Disproven() && !c.Disproofs[len(c.Disproofs)-1].FoundAt.Before(j.floor):
		return true, fmt.Sprintf("%s%s; kept for %d days", what, why, j.KeepDays)
	case j.now.Before(j.verified[len(j.verified)-1].Manifest.StartedAt.Add(-clockSlack)):
		return true, what + why + "; the clock stands before the newest verified backup, so nobody knows how old it is"
	case c.Base == j.lastStored:
		return true, "the newest stored, not yet proven"
	case j.unproven[c.Base] != "":
		return true, "monthly: first stored of " + j.unproven[c.Base] + ", which has no verified one"
	case c.Fault != nil && c.HasArchive() && !c.Disproven():
		return true, "damaged" + why + "; a drill is to confirm that before it is deleted"
	default:
		return false, fmt.Sprintf("%s%s; older than %d days", what, why, j.KeepDays)
	}
}

// Due picks the backup to prove again: the one whose last proof is the oldest, what has none before all others. It
// reports false when there is none, or when one was proven again within ReverifyEvery.
func (p Policy) Due(candidates []Candidate, now time.Time) (Entry, bool) {
	if p.ReverifyEvery == 0 {
		return Entry{}, false
	}
	recent := func(t time.Time) bool { return !t.After(now) && now.Sub(t) < p.ReverifyEvery }
	var due *Candidate
	for i, c := range candidates {
		for _, proof := range c.Proofs[min(1, len(c.Proofs)):] {
			if recent(proof.VerifiedAt) {
				return Entry{}, false
			}
		}
		for _, disproof := range c.Disproofs {
			if recent(disproof.FoundAt) && len(c.Proofs) > 0 {
				return Entry{}, false
			}
		}
		switch {
		case c.Use != "", c.Unclear(), !c.HasArchive(), c.Disproven(), len(c.Proofs) > 0 && recent(c.Proofs[len(c.Proofs)-1].VerifiedAt):
		case due == nil || c.lastNumber() < due.lastNumber() || c.lastNumber() == due.lastNumber() && byTime(c, *due) < 0:
			due = &candidates[i]
		}
	}
	if due == nil {
		return Entry{}, false
	}
	return due.Entry, true
}

func (e Entry) lastNumber() int64 {
	if len(e.Proofs) == 0 {
		return 0
	}
	return e.Proofs[len(e.Proofs)-1].Number
}
