package backup_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
)

const aDay = 24 * time.Hour

var standard = backup.Policy{KeepDays: 30, KeepMonths: 12, KeepVerified: 3, ReverifyEvery: 20 * time.Hour}

// made is a backup as storage would show it.
func made(database string, n int, at time.Time) backup.Candidate {
	id := fmt.Sprintf("%010d", n)
	archive := backup.ArchiveName(backup.Base(database, id, at), true)
	base, _, _ := strings.Cut(archive, ".")
	return backup.Candidate{Entry: backup.Entry{
		Base: base, Manifest: backup.Manifest{ID: id, Database: database, Archive: archive, StartedAt: at},
		Objects: []storage.Object{{Name: archive, Bytes: 1000}, {Name: backup.ManifestName(archive), Bytes: 10}},
	}}
}

func proven(c backup.Candidate, number int64, at time.Time) backup.Candidate {
	c.Proofs = append(slices.Clip(c.Proofs), backup.Proof{DrillID: fmt.Sprint("d", number), Number: number, VerifiedAt: at})
	return c
}

func disproven(c backup.Candidate, number int64, at time.Time) backup.Candidate {
	c.Disproofs = append(slices.Clip(c.Disproofs), backup.Disproof{Number: number, FoundAt: at, Reason: "The backup is damaged: a hash differs."})
	return c
}

// nights are verified backups, one a night.
func nights(database string, from time.Time, n int) []backup.Candidate {
	all := make([]backup.Candidate, n)
	for i := range all {
		at := from.Add(time.Duration(i) * aDay)
		all[i] = proven(made(database, i+1, at), int64(i+1), at.Add(5*time.Minute))
	}
	return all
}

func TestTwoYearsOfNightsBecome30DaysAnd12Months(t *testing.T) {
	t.Parallel()
	const all = 730
	from := time.Date(2024, 11, 24, 2, 0, 0, 0, time.UTC)
	verdicts := standard.Decide(nights("student_db", from, all), from.Add(all*aDay))
	reasons := map[string]int{}
	for i, v := range verdicts {
		if !v.Keep {
			continue
		}
		reasons[v.Reason]++
		if age := all - 1 - i; age < 30 != (v.Reason == "daily: younger than 30 days") {
			t.Errorf("%s, %d days old, is kept: %s", v.StartedAt, age, v.Reason)
		}
		if strings.HasPrefix(v.Reason, "monthly") && v.StartedAt.Day() != 1 {
			t.Errorf("%s is kept: %s", v.StartedAt, v.Reason)
		}
	}
	if reasons["daily: younger than 30 days"] != 30 || reasons["monthly: first verified of 2025-12"] != 1 || reasons["monthly: first verified of 2026-10"] != 1 {
		t.Errorf("kept: %v", reasons)
	}
	if len(reasons) != 12 { // November's first is among the 30 days
		t.Errorf("kept for %d reasons: %v", len(reasons), reasons)
	}
}

func TestEveryReason(t *testing.T) {
	t.Parallel()
	now := started.Add(time.Hour)
	const d = "student_db"
	ago := func(days int) time.Time { return started.Add(-time.Duration(days) * aDay) }
	number := int64(0)
	verified := func(days int) backup.Candidate {
		number++
		return proven(made(d, days, ago(days)), number, ago(days))
	}
	with := func(c backup.Candidate, change func(*backup.Candidate)) backup.Candidate { change(&c); return c }
	leftover := func(c *backup.Candidate) {
		c.Objects, c.Fault = c.Objects[1:], fmt.Errorf("%w: the archive is missing", backup.ErrDamaged)
	}
	// 60 nights, so that days make age; the oldest begins the month.
	candidates := []backup.Candidate{
		verified(500), // before the newest twelve months that have backups
		verified(400),
	}
	for month := range 11 {
		candidates = append(candidates, verified(390-30*month))
	}
	for night := 59; night >= 0; night-- {
		candidates = append(candidates, verified(night))
	}
	want := map[string]string{
		fmt.Sprintf("%010d", 500): "delete: older than 30 days, and not of the newest 12 months",
		fmt.Sprintf("%010d", 58):  "delete: older than 30 days, and not the first verified of 2026-09",
		fmt.Sprintf("%010d", 53):  "keep: monthly: first verified of 2026-10",
		fmt.Sprintf("%010d", 29):  "keep: daily: younger than 30 days",
		fmt.Sprintf("%010d", 30):  "delete: older than 30 days, and not the first verified of 2026-10",
		fmt.Sprintf("%010d", 31):  "keep: locked by its storage until 2026-11-24T02:00:00Z, then: older than 30 days, and not the first verified of 2026-10",
		fmt.Sprintf("%010d", 32):  "keep: in use by restore abc",
	}
	for i, c := range candidates {
		switch c.Manifest.ID {
		case fmt.Sprintf("%010d", 31):
			candidates[i].LockedUntil = ago(-1)
		case fmt.Sprintf("%010d", 32):
			candidates[i].Use = "in use by restore abc"
		}
	}
	for i, other := range []struct {
		backup.Candidate
		want string
	}{
		{with(made(d, 0, ago(0).Add(time.Minute)), func(c *backup.Candidate) { c.Use = "running" }), "keep: running"},
		{made(d, 0, ago(0).Add(time.Second)), "keep: not yet proven; kept for 30 days"},
		{made(d, 0, ago(40)), "delete: not yet proven; older than 30 days"},
		{made(d, 0, ago(700)), "keep: monthly: first stored of 2024-12, which has no verified one"},
		{with(made(d, 0, ago(700)), func(c *backup.Candidate) { c.Objects = nil }), "keep: record only: its objects are missing"},
		{with(made(d, 0, ago(5)), leftover), "keep: failed: the archive is missing; kept for 30 days"},
		{with(made(d, 0, ago(50)), leftover), "delete: failed: the archive is missing; older than 30 days"},
		{disproven(made(d, 0, ago(50)), 900, ago(45)), "delete: failed: The backup is damaged: a hash differs; older than 30 days"},
		{disproven(made(d, 0, ago(50)), 900, ago(5)), "keep: failed: The backup is damaged: a hash differs; kept for 30 days"},
		{with(made(d, 0, ago(50)), func(c *backup.Candidate) { c.Fault = fmt.Errorf("%w: its manifest is missing", backup.ErrDamaged) }),
			"keep: damaged: its manifest is missing; a drill is to confirm that before it is deleted"},
		{with(made(d, 0, ago(50)), func(c *backup.Candidate) { c.Fault = errors.New("input/output error") }),
			"keep: cannot be looked at for now: input/output error"},
	} {
		other.Manifest.ID = fmt.Sprintf("other%d", i)
		candidates = append(candidates, other.Candidate)
		want[other.Manifest.ID] = other.want
	}
	got := map[string]string{}
	for _, v := range standard.Decide(candidates, now) {
		got[v.BackupID] = map[bool]string{true: "keep: ", false: "delete: "}[v.Keep] + v.Reason
	}
	for id, verdict := range want {
		if got[id] != verdict {
			t.Errorf("%s: %q, want %q", id, got[id], verdict)
		}
	}
	few := standard
	few.KeepDays, few.KeepMonths = 1, 0
	if v := few.Decide(nights(d, started, 5), now); !v[2].Keep || v[2].Reason != "one of the 3 newest verified" || v[1].Keep {
		t.Errorf("of five with the least kept: %+v", v)
	}
	for _, v := range standard.Decide([]backup.Candidate{made(d, 1, ago(900)), disproven(made(d, 2, ago(800)), 1, ago(800))}, now) {
		if !v.Keep || !strings.Contains(v.Reason, "nothing is deleted while no backup of the database is verified") {
			t.Errorf("without a verified one: %+v", v)
		}
	}
	behind := standard.Decide(append(nights(d, started, 60), made(d, 99, ago(2000)), made(d, 98, ago(2001))), ago(1990))
	if v := behind[0]; !v.Keep || !strings.Contains(v.Reason, "the clock stands before the newest verified backup") {
		t.Errorf("the clock has gone back: %+v", v)
	}
}

func TestDueIsTheOldestProof(t *testing.T) {
	t.Parallel()
	all := nights("student_db", started, 5)
	now := started.Add(4*aDay + time.Hour)
	check := func(what string, candidates []backup.Candidate, now time.Time, want string) {
		t.Helper()
		due, ok := standard.Due(candidates, now)
		if got := due.Manifest.ID; got != want || ok != (want != "") {
			t.Errorf("%s: %q is due, want %q", what, got, want)
		}
	}
	check("the oldest", all, now, all[0].Manifest.ID)
	check("nothing", nil, now, "")
	check("only the one just made", all[4:], now, "")
	again := slices.Clone(all)
	again[0] = proven(again[0], 6, now)
	check("the same night", again, now.Add(time.Hour), "")
	check("the next night", again, now.Add(aDay), all[1].Manifest.ID)
	check("the clock went back in between", again, now.AddDate(-3, 0, 0), all[1].Manifest.ID)
	check("what has no proof yet", append(slices.Clone(again), made("student_db", 77, started.AddDate(0, 0, 2))), now.Add(aDay), "0000000077")
	bad := slices.Clone(all)
	bad[0], bad[1].Use, bad[2].Objects = disproven(bad[0], 6, now.Add(-aDay)), "running", nil
	check("neither disproven, nor in use, nor without an archive", bad, now, all[3].Manifest.ID)
	never := standard
	never.ReverifyEvery = 0
	if _, ok := never.Due(all, now); ok {
		t.Error("switched off, one is due")
	}
}

func TestPolicyNamesEveryFault(t *testing.T) {
	t.Parallel()
	if err := standard.Check(); err != nil {
		t.Error(err)
	}
	err := backup.Policy{KeepMonths: -1, ReverifyEvery: -1}.Check()
	for _, name := range []string{"BACKUP_KEEP_DAYS", "BACKUP_KEEP_MONTHS", "BACKUP_KEEP_VERIFIED", "BACKUP_REVERIFY_EVERY"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

// history is a random life of two databases' backups, with the time that has really passed beside what the clock says.
type history struct {
	*rapid.T
	policy backup.Policy
	real   time.Time
	wrong  time.Duration // what the clock is ahead by
	number int64
	serial int
	all    []backup.Candidate
	// proofs are the real times of first proofs by base, forward those at which the clock was put forward.
	proofs  map[string]time.Time
	forward []time.Time
	deleted int
}

func (h *history) clock() time.Time { return h.real.Add(h.wrong) }

func (h *history) add(c backup.Candidate) { h.all = append(h.all, c) }

func (h *history) make(database string) backup.Candidate {
	h.serial++
	return made(database, h.serial, h.clock().Truncate(time.Second))
}

func (h *history) prove(c backup.Candidate) backup.Candidate {
	h.number++
	if len(c.Proofs) == 0 {
		h.proofs[c.Base] = h.real
	}
	return proven(c, h.number, h.clock())
}

// any picks a backup that is there.
func (h *history) any() *backup.Candidate {
	if len(h.all) == 0 {
		return &backup.Candidate{}
	}
	return &h.all[rapid.IntRange(0, len(h.all)-1).Draw(h.T, "which")]
}

func (h *history) step() {
	database := rapid.SampledFrom([]string{"ops_db", "student_db"}).Draw(h.T, "database")
	missing := fmt.Errorf("%w: the archive is missing", backup.ErrDamaged)
	switch rapid.SampledFrom([]string{"nights", "nights", "nights", "now", "failed", "stored", "damage", "again", "lose", "forward", "back", "pause", "unclear", "record", "use", "prune", "prune"}).Draw(h.T, "step") {
	case "nights":
		for range rapid.IntRange(1, 8).Draw(h.T, "nights") {
			h.real = h.real.Add(aDay)
			h.add(h.prove(h.make(database)))
		}
	case "now":
		h.real = h.real.Add(time.Duration(rapid.IntRange(1, 600).Draw(h.T, "minutes")) * time.Minute)
		h.add(h.prove(h.make(database)))
	case "failed":
		h.real = h.real.Add(time.Hour)
		c := h.make(database)
		c.Objects, c.Fault = c.Objects[1:], missing
		h.add(c)
	case "stored":
		h.real = h.real.Add(time.Hour)
		h.add(h.make(database))
	case "damage":
		h.number++
		c := h.any()
		*c = disproven(*c, h.number, h.clock())
	case "again":
		if c := h.any(); c.Fault == nil && len(c.Objects) > 0 {
			*c = h.prove(*c)
		}
	case "lose":
		if c := h.any(); len(c.Objects) > 1 {
			c.Objects, c.Fault = c.Objects[1:], missing
		}
	case "forward":
		h.wrong += time.Duration(rapid.IntRange(1, 24*3650).Draw(h.T, "hours")) * time.Hour
		h.forward = append(h.forward, h.real)
	case "back":
		h.wrong -= time.Duration(rapid.IntRange(1, 24*3650).Draw(h.T, "hours")) * time.Hour
	case "pause":
		h.real = h.real.Add(time.Duration(rapid.IntRange(1, 400).Draw(h.T, "days")) * aDay)
	case "unclear":
		if c := h.any(); c.Fault == nil && len(c.Objects) > 0 {
			c.Fault = errors.New("input/output error")
		}
	case "record":
		c := h.make(database)
		c.Objects = nil
		h.add(c)
	case "use":
		h.any().Use = rapid.SampledFrom([]string{"running", "in use by restore abc", ""}).Draw(h.T, "use")
	case "prune":
		h.prune()
	}
}

// prune deletes what the rule says, some of it only in part or not at all, and checks all that was promised.
func (h *history) prune() {
	verdicts := h.check()
	var left []backup.Candidate
	for _, c := range h.all {
		if v := verdicts[key(c)]; v.Keep {
			left = append(left, c)
			continue
		}
		h.deleted++
		switch rapid.IntRange(0, 9).Draw(h.T, "delete") {
		case 0: // refused
			left = append(left, c)
		case 1: // half
			c.Objects, c.Fault = c.Objects[len(c.Objects)-1:], fmt.Errorf("%w: the archive is missing", backup.ErrDamaged)
			left = append(left, c)
		}
	}
	h.all = left
}

func key(c backup.Candidate) string { return c.Manifest.Database + " " + c.Manifest.ID }

func (h *history) decide(p backup.Policy, candidates []backup.Candidate) map[string]backup.Verdict {
	verdicts := map[string]backup.Verdict{}
	decided := p.Decide(candidates, h.clock())
	for _, v := range decided {
		if v.Reason == "" {
			h.Fatalf("no reason for %+v", v)
		}
		verdicts[v.Database+" "+v.BackupID] = v
	}
	if len(decided) != len(candidates) || len(verdicts) != len(candidates) {
		h.Fatalf("%d verdicts on %d of %d candidates", len(decided), len(verdicts), len(candidates))
	}
	return verdicts
}

func (h *history) check() map[string]backup.Verdict {
	verdicts := h.decide(h.policy, h.all)
	kept := slices.DeleteFunc(slices.Clone(h.all), func(c backup.Candidate) bool { return !verdicts[key(c)].Keep })

	for _, database := range []string{"ops_db", "student_db"} {
		own := func(c backup.Candidate) bool { return c.Manifest.Database != database }
		before, after := slices.DeleteFunc(slices.Clone(h.all), own), slices.DeleteFunc(slices.Clone(kept), own)
		verified := count(before)
		if got := count(after); got < min(h.policy.KeepVerified, verified) {
			h.Fatalf("%d of %d verified backups are left", got, verified)
		}
		if verified == 0 && len(before) != len(after) {
			h.Fatalf("something was deleted, though nothing is verified")
		}
		h.equal("alone and beside another database", h.decide(h.policy, before), filter(verdicts, before))
	}
	newest := map[string]time.Time{}
	for _, c := range h.all {
		if at := h.proofs[c.Base]; c.Verified() && at.After(newest[c.Manifest.Database]) {
			newest[c.Manifest.Database] = at
		}
	}
	for _, c := range h.all {
		v := verdicts[key(c)]
		if v.Keep {
			continue
		}
		if c.Use != "" || len(c.Objects) == 0 || c.Unclear() {
			h.Fatalf("%+v would be deleted", v)
		}
		if !c.Verified() {
			continue
		}
		proof := h.proofs[c.Base]
		age := newest[c.Manifest.Database].Sub(proof)
		for _, jump := range h.forward {
			if !jump.Before(proof) {
				age += aDay
			}
		}
		if age < time.Duration(h.policy.KeepDays)*aDay {
			h.Fatalf("%+v is below the floor: %s old", v, age)
		}
	}

	again := h.decide(h.policy, kept)
	for _, c := range kept {
		if !again[key(c)].Keep {
			h.Fatalf("run again, it deletes more: %+v, first %+v", again[key(c)], verdicts[key(c)])
		}
	}

	failed := h.make("student_db")
	failed.Manifest.ID, failed.Fault = "failed", fmt.Errorf("%w: the archive is missing", backup.ErrDamaged)
	bad := disproven(h.make("student_db"), h.number+1, h.clock())
	bad.Manifest.ID = "bad"
	h.equal("with failed runs and without", filter(h.decide(h.policy, append(slices.Clone(h.all), failed, bad)), h.all), verdicts)

	more := h.policy
	more.KeepDays, more.KeepMonths, more.KeepVerified = more.KeepDays+2, more.KeepMonths+1, more.KeepVerified+1
	larger := h.decide(more, h.all)
	for _, c := range kept {
		if !larger[key(c)].Keep {
			h.Fatalf("a policy that keeps more deletes %+v", larger[key(c)])
		}
	}
	return verdicts
}

func (h *history) equal(what string, a, b map[string]backup.Verdict) {
	if !maps.Equal(a, b) {
		h.Fatalf("%s: %s", what, cmp.Diff(a, b))
	}
}

func filter(verdicts map[string]backup.Verdict, candidates []backup.Candidate) map[string]backup.Verdict {
	some := map[string]backup.Verdict{}
	for _, c := range candidates {
		some[key(c)] = verdicts[key(c)]
	}
	return some
}

func count(candidates []backup.Candidate) (verified int) {
	for _, c := range candidates {
		if c.Verified() {
			verified++
		}
	}
	return verified
}

// histories is how many random ones are tried.
const histories = "10000"

func TestRetentionKeepsItsPromisesInRandomHistories(t *testing.T) {
	t.Parallel()
	if err := errors.Join(flag.Set("rapid.checks", histories), flag.Set("rapid.nofailfile", "true")); err != nil {
		t.Fatal(err)
	}
	var deleted int
	rapid.Check(t, func(t *rapid.T) {
		h := &history{T: t, real: started, proofs: map[string]time.Time{}, policy: backup.Policy{
			KeepDays: rapid.IntRange(1, 10).Draw(t, "days"), KeepMonths: rapid.IntRange(0, 6).Draw(t, "months"),
			KeepVerified: rapid.IntRange(1, 4).Draw(t, "verified")}}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			h.step()
		}
		h.check()
		deleted += h.deleted
	})
	if deleted < 10000 {
		t.Errorf("only %d backups were deleted in all histories: they show nothing", deleted)
	}
	t.Logf("%d backups were deleted", deleted)
}
