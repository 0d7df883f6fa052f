package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
)

// settling is how long an unproven backup that has no record may still be one that runs, whose workflow will say so.
const settling = 24 * time.Hour

// CatalogueInput names the database whose backups are looked at; empty: all.
type CatalogueInput struct {
	Database string `json:"database"`
}

// Rebuilt is what was found when the records were compared with the storage.
type Rebuilt struct {
	Backups int `json:"backups"`
	// Added are records that were missing, Corrected those that said something else than the storage.
	Added     int `json:"added"`
	Corrected int `json:"corrected"`
}

// RebuildCatalogue makes the records of backups, which are for listing, say what the storage says: backups without a
// record get one, and a record of what is gone or damaged says so. Nothing that runs is touched; done twice, it changes
// nothing.
func (a *Activities) RebuildCatalogue(ctx context.Context, in CatalogueInput) (Rebuilt, error) {
	var out Rebuilt
	err := alive(ctx, func(ctx context.Context) (err error) {
		out, err = a.Rebuild(ctx, in.Database)
		return err
	})
	return out, err
}

// Rebuild is RebuildCatalogue outside a workflow.
func (a *Activities) Rebuild(ctx context.Context, database string) (Rebuilt, error) {
	var out Rebuilt
	// The records first: what is stored meanwhile has a record of its own, and is not taken for missing.
	records, err := a.Operations.Of(ctx, operation.Backup, database)
	if err != nil {
		return out, err
	}
	entries, err := backup.Scan(ctx, a.Store, database)
	if err != nil {
		return out, fmt.Errorf("list the backups that are stored: %w", err)
	}
	out.Backups = len(entries)
	known := map[string]operation.Record{}
	for _, r := range records {
		known[r.ID] = r
	}
	found := map[string]bool{}
	for _, e := range entries {
		found[e.Manifest.ID] = true
		r, recorded := known[e.Manifest.ID]
		switch {
		case recorded:
			err = a.correct(ctx, r, e, &out)
		case !e.Unclear() && (e.Verified() || time.Since(e.Manifest.StartedAt) > settling):
			var added bool
			if added, err = a.Operations.Restore(ctx, recordOf(e)); added {
				out.Added++
			}
		}
		if err != nil {
			return out, err
		}
	}
	for _, r := range records {
		if found[r.ID] || !r.Ended() || r.State != backup.StateVerified && r.State != backup.StateStored {
			continue
		}
		if err := a.amendIf(ctx, r, backup.StateMissing, "Its objects are gone from the storage, and not by retention.", &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// correct makes a record say what storage shows. A record that says worse than the storage stays: who wrote it knew why.
func (a *Activities) correct(ctx context.Context, r operation.Record, e backup.Entry, out *Rebuilt) error {
	switch state := e.State(); {
	case !r.Ended(), e.Unclear():
		return nil
	case r.State == backup.StateMissing && e.Fault == nil, r.State == backup.StateStored && state == backup.StateVerified:
		return a.amendIf(ctx, r, state, sentenceOf(e), out)
	case state == backup.StateFailed && (r.State == backup.StateVerified || r.State == backup.StateStored):
		return a.amendIf(ctx, r, state, sentenceOf(e), out)
	}
	return nil
}

func (a *Activities) amendIf(ctx context.Context, r operation.Record, state, summary string, out *Rebuilt) error {
	changed, err := a.Operations.Correct(ctx, r.ID, r.State, state, summary)
	if changed {
		out.Corrected++
		a.Log.Warn("a backup is not what its record said", "backup", r.ID, "database", r.Subject, "said", r.State, "is", state, "why", summary)
	}
	return err
}

// drillResult is the part of a backup's outcome that a proof can fill.
type drillResult struct {
	DrillID        string    `json:"drillId"`
	Tables         int       `json:"tables"`
	Rows           int64     `json:"rows"`
	RestoreSeconds float64   `json:"restoreSeconds"`
	VerifiedAt     time.Time `json:"verifiedAt"`
}

// recordOf is the record of a backup as its objects tell it.
func recordOf(e backup.Entry) operation.Record {
	m := e.Manifest
	ended := m.EndedAt
	if ended.IsZero() {
		ended = m.StartedAt
	}
	var outcome struct {
		Stored *Stored      `json:"stored,omitempty"`
		Drill  *drillResult `json:"drill,omitempty"`
	}
	if m.Archive != "" {
		stored := storedOf(m)
		outcome.Stored = &stored
	}
	if n := len(e.Proofs); n > 0 {
		p := e.Proofs[n-1]
		outcome.Drill = &drillResult{DrillID: p.DrillID, Tables: p.Tables, Rows: p.Rows, RestoreSeconds: p.RestoreSeconds, VerifiedAt: p.VerifiedAt}
	}
	raw, _ := json.Marshal(outcome) // numbers and strings
	result, _ := json.Marshal(operation.Result{Outcome: raw})
	input, _ := json.Marshal(map[string]string{"database": m.Database})
	return operation.Record{ID: m.ID, Kind: operation.Backup, Subject: m.Database, State: e.State(), Summary: sentenceOf(e),
		StartedBy: "rebuilt from storage", StartedAt: m.StartedAt, EndedAt: &ended, Input: input, Result: result, Revision: 1}
}

// sentenceOf says how it stands with a backup.
func sentenceOf(e backup.Entry) string {
	switch {
	case e.Verified():
		p := e.Proofs[len(e.Proofs)-1]
		return fmt.Sprintf("%s, %d tables, %d rows, restored and compared in %.1f s.", backup.Size(e.Bytes()), p.Tables, p.Rows, p.RestoreSeconds)
	case e.Disproven():
		return "No longer good: " + strings.TrimSuffix(e.Disproofs[len(e.Disproofs)-1].Reason, ".") + "."
	case e.Fault != nil:
		return "No longer good: " + strings.TrimPrefix(e.Fault.Error(), backup.ErrDamaged.Error()+": ") + "."
	}
	return "Stored, not yet proven."
}

func storedOf(m backup.Manifest) Stored {
	return Stored{Archive: m.Archive, Bytes: m.Bytes, DumpBytes: m.DumpBytes, SHA256: m.SHA256, Tables: len(m.Tables), Rows: m.Rows(),
		ServerVersion: m.ServerVersion, Seconds: m.EndedAt.Sub(m.StartedAt).Seconds(), Warnings: len(m.Warnings), Recipients: m.Recipients}
}

// alive runs work that says nothing of how far it is, with heartbeats. It ends work when the activity is cancelled or the
// worker stops.
func alive(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	for {
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return causeOf(ctx, err)
			}
			return err
		case <-stopping:
			cancel(errStopping)
			stopping = nil
		case <-tick.C:
			activity.RecordHeartbeat(ctx)
		}
	}
}
