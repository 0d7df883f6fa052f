package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/storage"
)

// The storages that retention looks after, by the names that operators see.
const (
	FirstStorage = "storage"
	CopyStorage  = "copy"
)

// PlanInput names the database to decide about.
type PlanInput struct {
	Database string    `json:"database"`
	Now      time.Time `json:"now"`
}

// Plan is what is kept and what is deleted, in each storage by itself.
type Plan struct {
	Storages []StoragePlan `json:"storages"`
	// Due is the backup of the first storage to prove again; nil: none.
	Due *Due `json:"due,omitempty"`
}

// StoragePlan is the plan of one storage.
type StoragePlan struct {
	Storage  string           `json:"storage"`
	Verdicts []backup.Verdict `json:"verdicts"`
	// Fault is why the storage cannot be looked at: then nothing is deleted in it.
	Fault string `json:"fault,omitempty"`
}

// Due is a backup to prove again.
type Due struct {
	BackupID string `json:"backupId"`
	Archive  string `json:"archive"`
	SHA256   string `json:"sha256"`
}

// PlanRetention decides about every backup of a database, and deletes nothing.
func (a *Activities) PlanRetention(ctx context.Context, in PlanInput) (Plan, error) {
	if _, err := a.source(in.Database); err != nil {
		return Plan{}, err
	}
	var plan Plan
	err := alive(ctx, func(ctx context.Context) error {
		records, err := a.Operations.Of(ctx, operation.Backup, in.Database)
		if err != nil {
			return err
		}
		first, err := a.candidates(ctx, a.Store, in.Database, records)
		if err != nil {
			return err
		}
		verdicts := a.Policy.Decide(first, in.Now)
		plan.Storages = []StoragePlan{{Storage: FirstStorage, Verdicts: verdicts}}
		if due, ok := a.Policy.Due(keptOf(first, verdicts), in.Now); ok {
			plan.Due = &Due{BackupID: due.Manifest.ID, Archive: archiveOf(due), SHA256: due.Manifest.SHA256}
		}
		if a.Copy == nil {
			return nil
		}
		copied := StoragePlan{Storage: CopyStorage}
		if second, err := a.candidates(ctx, a.Copy, in.Database, nil); err != nil {
			copied.Fault = err.Error() // the first storage goes on without it
		} else {
			copied.Verdicts = a.Policy.Decide(second, in.Now)
		}
		plan.Storages = append(plan.Storages, copied)
		return nil
	})
	return plan, err
}

// keptOf are the candidates that stay.
func keptOf(candidates []backup.Candidate, verdicts []backup.Verdict) []backup.Candidate {
	kept := map[string]bool{}
	for _, v := range verdicts {
		kept[v.Base] = v.Keep
	}
	return slices.DeleteFunc(candidates, func(c backup.Candidate) bool { return !kept[c.Base] })
}

// archiveOf is the name of an archive, also of one whose manifest cannot be read.
func archiveOf(e backup.Entry) string {
	if e.Manifest.Archive != "" {
		return e.Manifest.Archive
	}
	return e.Order()[0].Name
}

// candidates are the backups in a store, and those that only records know of.
func (a *Activities) candidates(ctx context.Context, store storage.Store, database string, records []operation.Record) ([]backup.Candidate, error) {
	used, err := a.inUse(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := backup.Scan(ctx, store, database)
	if err != nil {
		return nil, fmt.Errorf("list the backups that are stored: %w", err)
	}
	var candidates []backup.Candidate
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Manifest.ID] = true
		candidates = append(candidates, backup.Candidate{Entry: e, Use: used.of(e.Manifest.ID, e.Base), LockedUntil: lockedUntil(store, e)})
	}
	for _, r := range records {
		if !found[r.ID] && r.Ended() && (r.State == backup.StateVerified || r.State == backup.StateStored || r.State == backup.StateMissing) {
			candidates = append(candidates, backup.Candidate{Entry: backup.Entry{
				Manifest: backup.Manifest{ID: r.ID, Database: r.Subject, StartedAt: r.StartedAt}}})
		}
	}
	return candidates, nil
}

func lockedUntil(store storage.Store, e backup.Entry) time.Time {
	return storage.LockedUntil(store, e.Order()[0])
}

// uses are the operations that run.
type uses []operation.Record

// inUse finds what runs. A record whose workflow is gone uses nothing.
func (a *Activities) inUse(ctx context.Context) (uses, error) {
	open, err := a.Operations.Open(ctx, operation.Backup, operation.RestoreDrill, operation.Restore)
	if err != nil {
		return nil, err
	}
	var running uses
	for _, r := range open {
		runs, err := a.Liveness.Running(ctx, r.WorkflowID, r.RunID)
		if err != nil {
			return nil, fmt.Errorf("ask whether %s %s still runs: %w", r.Kind, r.ID, err)
		}
		if runs {
			running = append(running, r)
		}
	}
	return running, nil
}

// of says what uses a backup; empty: nothing. An operation uses what it was asked for, and what it says that it has
// found: a restore may be asked for the newest.
func (u uses) of(id, base string) string {
	for _, r := range u {
		named := string(r.Input) + string(r.Result)
		switch {
		case r.ID == id:
			return "running"
		case r.Kind != operation.Backup && (strings.Contains(named, `"`+id+`"`) || strings.Contains(named, base+".")):
			return fmt.Sprintf("in use by %s %s", r.Kind, r.ID)
		}
	}
	return ""
}

// DeleteInput names a backup to delete from a storage.
type DeleteInput struct {
	Storage  string `json:"storage"`
	Database string `json:"database"`
	BackupID string `json:"backupId"`
	Base     string `json:"base"`
	// Reason is that of the verdict.
	Reason string `json:"reason"`
	// Attempts is how often a storage that refuses or fails is asked before that is the outcome.
	Attempts int32 `json:"attempts"`
}

// Deletion is what has become of a backup that was to be deleted.
type Deletion struct {
	Storage  string `json:"storage"`
	BackupID string `json:"backupId"`
	Base     string `json:"base"`
	// Objects are how many were deleted, Left those that were not.
	Objects int      `json:"objects"`
	Left    []string `json:"left,omitempty"`
	// Why says why objects are left; empty when none is.
	Why string `json:"why,omitempty"`
}

// DeleteBackup deletes what is stored of a backup, and puts on its record what it came to. An object that is gone is no
// error; one that the storage does not give up leaves itself and those after it, which is an outcome too: what is left
// is tried again by the next retention. A backup that is used by now is left alone.
func (a *Activities) DeleteBackup(ctx context.Context, in DeleteInput) (Deletion, error) {
	out := Deletion{Storage: in.Storage, BackupID: in.BackupID, Base: in.Base}
	store := a.Store
	if in.Storage == CopyStorage {
		store = a.Copy
	}
	if store == nil {
		return out, final("the storage "+in.Storage+" is not configured any more", SetupType, nil)
	}
	used, err := a.inUse(ctx)
	if err != nil {
		return out, err
	}
	objects, err := store.List(ctx, in.Base+".")
	if err != nil {
		return out, err
	}
	set := backup.Entry{Base: in.Base, Objects: objects}.Order()
	archives := 0
	if use := used.of(in.BackupID, in.Base); use != "" {
		out.Why = use
	} else {
		for _, o := range set {
			if err = store.Remove(ctx, o.Name); err != nil {
				break
			}
			out.Objects++
		}
	}
	if err != nil {
		if errors.Is(err, context.Canceled) || activity.GetInfo(ctx).Attempt < in.Attempts {
			return out, err
		}
		out.Why = err.Error()
	}
	for _, o := range set[out.Objects:] {
		out.Left = append(out.Left, o.Name)
		if (backup.Entry{Objects: []storage.Object{o}}).HasArchive() {
			archives++
		}
	}
	if in.Storage != FirstStorage {
		return out, nil
	}
	return out, a.recordDeletion(ctx, in, out, archives == 0)
}

// recordDeletion puts a deletion on the backup's record. The record stays, whatever became of the objects.
func (a *Activities) recordDeletion(ctx context.Context, in DeleteInput, out Deletion, archiveGone bool) error {
	r, err := a.Operations.Get(ctx, in.BackupID, operation.Backup)
	if errors.Is(err, operation.ErrNotFound) {
		return nil // none to lose
	}
	if err != nil {
		return err
	}
	state, summary := r.State, "Deleted by retention: "+in.Reason+"."
	if archiveGone {
		state = backup.StateDeleted
	}
	if len(out.Left) > 0 {
		summary = fmt.Sprintf("Retention could not delete all of it (%s); left are %s: %s.", in.Reason, strings.Join(out.Left, ", "), out.Why)
	}
	return a.Operations.Amend(ctx, r.ID, state, summary)
}
