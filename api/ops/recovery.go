package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

// States of what is promised of a database.
const (
	// InTime says that the newest verified backup is as young as promised.
	InTime = "in-time"
	// Overdue says that it is older, or that there is none though there was time for one.
	Overdue = "overdue"
	// Awaited says that there is none yet, and that the time for the first has not passed.
	Awaited = "awaited"
)

// Recovery is what could be had back of one database, and how fast.
type Recovery struct {
	Database string `json:"database" example:"student_db"`
	State    string `json:"state" enum:"in-time,overdue,awaited" doc:"Whether the newest verified backup is as young as promised."`
	Summary  string `json:"summary" doc:"The same in a sentence."`
	// PromiseSeconds is BACKUP_PROMISE.
	PromiseSeconds float64 `json:"promiseSeconds" doc:"How old the newest verified backup may be."`
	// Point is nil when no verified backup is on record.
	Point *RecoveryPoint `json:"recoveryPoint,omitempty" doc:"The newest verified backup; what was written later would be lost."`
	// Time is nil when no drill has succeeded.
	Time *RecoveryTime `json:"recoveryTime,omitempty" doc:"How long the last drill took to get the data back."`
	// LastRun is nil when none was ever made.
	LastRun *BackupRun `json:"lastRun,omitempty" doc:"The newest backup, whatever came of it."`
}

// RecoveryPoint is a verified backup.
type RecoveryPoint struct {
	BackupID   string    `json:"backupId"`
	TakenAt    time.Time `json:"takenAt"`
	AgeSeconds float64   `json:"ageSeconds"`
	// EndedAt is when the backup had proven itself.
	EndedAt     time.Time `json:"endedAt"`
	Bytes       int64     `json:"bytes" doc:"Of the archive as stored."`
	DumpBytes   int64     `json:"dumpBytes" doc:"Of the dump, before compression."`
	DumpSeconds float64   `json:"dumpSeconds" doc:"How long the dump took."`
}

// RecoveryTime is measured by a drill.
type RecoveryTime struct {
	DrillID    string    `json:"drillId"`
	MeasuredAt time.Time `json:"measuredAt"`
	Seconds    float64   `json:"seconds"`
}

// BackupRun is one backup.
type BackupRun struct {
	ID        string     `json:"id"`
	State     string     `json:"state"`
	Summary   string     `json:"summary"`
	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
}

// assess judges what is on record of a database.
func assess(s operation.Standing, promise time.Duration, now time.Time) Recovery {
	r := Recovery{Database: s.Database, PromiseSeconds: promise.Seconds(), Point: pointOf(s.Verified, now), Time: timeOf(s.Drill)}
	if last := s.Last; last != nil {
		view := present(*last)
		r.LastRun = &BackupRun{ID: view.ID, State: view.State, Summary: view.Summary, StartedAt: view.StartedAt, EndedAt: view.EndedAt}
	}
	since := s.Since
	if since.IsZero() {
		since = now
	}
	switch {
	case r.Point != nil && r.Point.AgeSeconds <= r.PromiseSeconds:
		r.State, r.Summary = InTime, fmt.Sprintf("the newest verified backup is %s old", Age(now.Sub(r.Point.TakenAt)))
	case r.Point != nil:
		r.State, r.Summary = Overdue, fmt.Sprintf("the newest verified backup is %s old, promised are at most %s", Age(now.Sub(r.Point.TakenAt)), Age(promise))
	case now.Sub(since) <= promise:
		r.State, r.Summary = Awaited, fmt.Sprintf("no verified backup is on record yet; the first is due by %s", since.Add(promise).UTC().Format(time.RFC3339))
	default:
		r.State, r.Summary = Overdue, "no verified backup is on record"
	}
	if r.State == Overdue && r.LastRun != nil && (r.Point == nil || r.LastRun.ID != r.Point.BackupID) {
		r.Summary += fmt.Sprintf("; the last try, %s, is %s: %s", r.LastRun.ID, r.LastRun.State, r.LastRun.Summary)
	}
	return r
}

func pointOf(r *operation.Record, now time.Time) *RecoveryPoint {
	if r == nil || r.EndedAt == nil {
		return nil
	}
	// The snapshot is taken after the start, so that this age is never too small.
	p := &RecoveryPoint{BackupID: r.ID, TakenAt: r.StartedAt.UTC(), EndedAt: r.EndedAt.UTC(), AgeSeconds: max(0, now.Sub(r.StartedAt).Seconds())}
	var out backup.Outcome
	if outcomeOf(r, &out) && out.Stored != nil {
		p.Bytes, p.DumpBytes, p.DumpSeconds = out.Stored.Bytes, out.Stored.DumpBytes, out.Stored.Seconds
	}
	return p
}

func timeOf(r *operation.Record) *RecoveryTime {
	var out backup.DrillOutcome
	if r == nil || r.EndedAt == nil || !outcomeOf(r, &out) {
		return nil
	}
	return &RecoveryTime{DrillID: r.ID, MeasuredAt: r.EndedAt.UTC(), Seconds: out.RestoreSeconds}
}

// outcomeOf reports whether a record has an outcome that can be read.
func outcomeOf(r *operation.Record, out any) bool {
	var result operation.Result
	return json.Unmarshal(r.Result, &result) == nil && len(result.Outcome) > 0 && json.Unmarshal(result.Outcome, out) == nil
}

// Age is a duration for people, in its greatest unit and what is left of it in the next.
func Age(d time.Duration) string {
	units := []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	d = max(0, d)
	for i, unit := range units[:len(units)-1] {
		if d < unit.length {
			continue
		}
		words := fmt.Sprintf("%d%s", d/unit.length, unit.name)
		if rest := d % unit.length / units[i+1].length; rest > 0 {
			words += fmt.Sprintf(" %d%s", rest, units[i+1].name)
		}
		return words
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

type recoveriesOutput struct {
	Body struct {
		Content []Recovery `json:"content" nullable:"false"`
	}
}

func (s *Service) mountRecovery(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "recovery-of-databases", Method: http.MethodGet, Path: backups.path + "/recovery",
		Summary: "Tell what could be had back of each database, how old it is, and how long that would take", Roles: readers}, s.recoveries)
}

func (s *Service) recoveries(ctx context.Context, _ *struct{}) (*recoveriesOutput, error) {
	standings, err := s.store.Standings(ctx, s.cfg.Databases.Names())
	if err != nil {
		return nil, err
	}
	out := &recoveriesOutput{}
	out.Body.Content = []Recovery{}
	for _, standing := range standings {
		out.Body.Content = append(out.Body.Content, assess(standing, s.cfg.Promise, s.now()))
	}
	return out, nil
}
