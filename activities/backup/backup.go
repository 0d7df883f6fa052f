// Package backup is the side effects of backups and of the drills that prove them.
package backup

import (
	"context"
	"log/slog"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/storage"
)

// Liveness tells whether a workflow still runs.
type Liveness interface {
	Running(ctx context.Context, workflowID, runID string) (bool, error)
}

// Activities back up and restore. Each may be repeated: it starts from what is there.
type Activities struct {
	Sources backup.Sources
	Tools   backup.Tools
	Store   storage.Store
	// Copy is the second storage; nil: there is none.
	Copy storage.Store
	// Policy says what retention keeps.
	Policy     backup.Policy
	Operations *operation.Store
	Liveness   Liveness
	// Slots bounds how many dumps and restores run at once; nil: no bound.
	Slots chan struct{}
	// Running shows what runs; nil: nothing is shown.
	Running *Running
	Log     *slog.Logger
}

// DumpInput names the backup to make.
type DumpInput struct {
	ID        string    `json:"id"`
	Database  string    `json:"database"`
	StartedAt time.Time `json:"startedAt"`
}

// Stored is a backup in storage.
type Stored struct {
	Archive       string  `json:"archive"`
	Bytes         int64   `json:"bytes"`
	DumpBytes     int64   `json:"dumpBytes"`
	SHA256        string  `json:"sha256"`
	Tables        int     `json:"tables"`
	Rows          int64   `json:"rows"`
	ServerVersion string  `json:"serverVersion"`
	Seconds       float64 `json:"seconds"`
	Warnings      int     `json:"warnings,omitempty"`
}

// DumpDatabase writes archive and manifest of one snapshot of a database. A backup that an earlier attempt has finished
// is read back; what dead attempts left unfinished is removed.
func (a *Activities) DumpDatabase(ctx context.Context, in DumpInput) (Stored, error) {
	source, err := a.source(in.Database)
	if err != nil {
		return Stored{}, err
	}
	if swept, err := a.Store.Sweep(ctx, nil); err != nil || swept > 0 {
		a.Log.Info("swept unfinished backups", "count", swept, "error", err)
	}
	var m backup.Manifest
	err = a.attended(ctx, in.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) (err error) {
		m, err = a.Tools.Save(ctx, a.Store, backup.Request{ID: in.ID, Source: source, Started: in.StartedAt}, meter)
		return err
	})
	if err != nil {
		return Stored{}, failed(err)
	}
	return storedOf(m), nil
}

// DrillInput names a backup and the drill that is to prove it.
type DrillInput struct {
	DrillID  string `json:"drillId"`
	Database string `json:"database"`
	Archive  string `json:"archive"`
	// SHA256 is what the archive had when it was stored.
	SHA256 string `json:"sha256"`
}

// CheckArchive reads the whole archive and compares it with its manifest. A difference is a DamagedType error.
func (a *Activities) CheckArchive(ctx context.Context, in DrillInput) error {
	m, err := a.manifest(ctx, in)
	if err != nil {
		return err
	}
	return failed(a.attended(ctx, in.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) error {
		return backup.Check(ctx, a.Store, m, meter)
	}))
}

// RestoreScratch restores the archive into the drill's scratch database, which it makes anew. What dead drills of this
// database left is dropped. An archive that cannot be restored is a RejectedType or DamagedType error.
func (a *Activities) RestoreScratch(ctx context.Context, in DrillInput) error {
	source, err := a.source(in.Database)
	if err != nil {
		return err
	}
	m, err := a.manifest(ctx, in)
	if err != nil {
		return err
	}
	a.sweepScratches(ctx, source, in.DrillID)
	return failed(a.attended(ctx, in.Database, 0, func(ctx context.Context, meter *backup.Meter) error {
		return a.Tools.Restore(ctx, a.Store, m, source, backup.ScratchName(in.Database, in.DrillID), meter)
	}))
}

// Compared is what the scratch database was found to hold.
type Compared struct {
	Tables int   `json:"tables"`
	Rows   int64 `json:"rows"`
}

// CompareScratch counts every table of the scratch database and compares with the manifest. A difference is a
// DifferentType error.
func (a *Activities) CompareScratch(ctx context.Context, in DrillInput) (Compared, error) {
	source, err := a.source(in.Database)
	if err != nil {
		return Compared{}, err
	}
	m, err := a.manifest(ctx, in)
	if err != nil {
		return Compared{}, err
	}
	var found []backup.Table
	err = a.attended(ctx, in.Database, 0, func(ctx context.Context, meter *backup.Meter) (err error) {
		found, err = backup.Count(ctx, source, backup.ScratchName(in.Database, in.DrillID), meter)
		return err
	})
	if err != nil {
		return Compared{}, failed(err)
	}
	if differences := backup.Compare(m.Tables, found); len(differences) > 0 {
		return Compared{}, different(differences)
	}
	return Compared{Tables: len(found), Rows: backup.Rows(found)}, nil
}

// DropScratch drops the drill's scratch database.
func (a *Activities) DropScratch(ctx context.Context, in DrillInput) error {
	source, err := a.source(in.Database)
	if err != nil {
		return err
	}
	return failed(backup.DropScratch(ctx, source, backup.ScratchName(in.Database, in.DrillID)))
}

func (a *Activities) source(database string) (backup.Source, error) {
	source, ok := a.Sources.Find(database)
	if !ok {
		return source, unknownDatabase(database, a.Sources.Names())
	}
	return source, nil
}

func (a *Activities) manifest(ctx context.Context, in DrillInput) (backup.Manifest, error) {
	m, err := backup.ReadManifest(ctx, a.Store, in.Archive)
	if err == nil && m.SHA256 != in.SHA256 {
		return m, manifestChanged()
	}
	return m, failed(err)
}

// sweepScratches drops what drills left whose workflow is gone. A name that no drill on record explains is left alone.
func (a *Activities) sweepScratches(ctx context.Context, source backup.Source, own string) {
	ids, err := backup.Scratches(ctx, source)
	for _, id := range ids {
		if id == own {
			continue
		}
		drill, readErr := a.Operations.Get(ctx, id, operation.RestoreDrill)
		if readErr != nil || drill.ID != id {
			continue
		}
		if !drill.Ended() {
			if running, err := a.Liveness.Running(ctx, drill.WorkflowID, drill.RunID); err != nil || running {
				continue
			}
		}
		if dropErr := backup.DropScratch(ctx, source, backup.ScratchName(source.Database, id)); dropErr != nil {
			err = dropErr
		}
	}
	if err != nil {
		a.Log.Warn("scratch databases of dead drills may be left", "database", source.Database, "error", err.Error())
	}
}
