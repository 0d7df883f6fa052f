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
	// Storage is how storages are reached, for those that a restore names.
	Storage storage.Config
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
	// Recipients are the fingerprints of the keys that can read the backup; none: it is not encrypted.
	Recipients []string `json:"recipients,omitempty"`
}

// CheckReady checks what a backup and its drill need, before anything is touched: keys, programs that fit the server, space in
// the storage, the rights of the role that restores. The error names every fault.
func (a *Activities) CheckReady(ctx context.Context, database string) error {
	source, err := a.source(database)
	if err != nil {
		return err
	}
	return failed(a.Tools.ReadyToSave(ctx, a.Store, source))
}

// DumpDatabase writes archive and manifest of one snapshot of a database. A backup that an earlier attempt has finished
// is read back; what dead attempts left unfinished is removed.
func (a *Activities) DumpDatabase(ctx context.Context, in DumpInput) (Stored, error) {
	source, err := a.source(in.Database)
	if err != nil {
		return Stored{}, err
	}
	a.sweep(ctx, a.Store, in.Database)
	var m backup.Manifest
	err = a.attended(ctx, in.Database, 0, func(ctx context.Context, meter *backup.Meter) (err error) {
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

// CheckArchive reads the whole archive, compares it with its manifest and decrypts it, before the drill touches any database.
// It returns what failed makes of the engine's errors.
func (a *Activities) CheckArchive(ctx context.Context, in DrillInput) error {
	m, source, err := a.backup(ctx, in)
	if err != nil {
		return err
	}
	return failed(a.attended(ctx, in.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) error {
		if err := a.Tools.ReadyToRestore(ctx, m, source); err != nil {
			return err
		}
		return a.Tools.Check(ctx, a.Store, m, meter)
	}))
}

// Proven is what the scratch database was found to hold.
type Proven struct {
	Tables         int       `json:"tables"`
	Rows           int64     `json:"rows"`
	RestoreSeconds float64   `json:"restoreSeconds"`
	CompareSeconds float64   `json:"compareSeconds"`
	ServerVersion  string    `json:"serverVersion"`
	VerifiedAt     time.Time `json:"verifiedAt"`
}

// ProveArchive restores the archive into the drill's scratch database, which it makes anew, and compares with the manifest:
// every table's rows and hash, sequences, extensions, definitions, owners, grants. A difference is a DifferentType error, an
// archive that cannot be restored a RejectedType or DamagedType error. What dead drills of this database left is dropped.
func (a *Activities) ProveArchive(ctx context.Context, in DrillInput) (Proven, error) {
	m, source, err := a.backup(ctx, in)
	if err != nil {
		return Proven{}, err
	}
	a.sweepScratches(ctx, source, in.DrillID)
	var found backup.Proven
	err = a.attended(ctx, in.Database, 0, func(ctx context.Context, meter *backup.Meter) (err error) {
		found, err = a.Tools.Prove(ctx, a.Store, m, source, backup.ScratchName(in.Database, in.DrillID), meter)
		return err
	})
	if err != nil {
		return Proven{}, failed(err)
	}
	if len(found.Differences) > 0 {
		return Proven{}, different(found.Differences)
	}
	return Proven{Tables: found.Tables, Rows: found.Rows, RestoreSeconds: found.Restore.Seconds(), CompareSeconds: found.Compare.Seconds(),
		ServerVersion: found.ServerVersion, VerifiedAt: time.Now().UTC()}, nil
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

// backup reads the manifest of the backup of a drill.
func (a *Activities) backup(ctx context.Context, in DrillInput) (backup.Manifest, backup.Source, error) {
	source, err := a.source(in.Database)
	if err != nil {
		return backup.Manifest{}, source, err
	}
	m, err := backup.ReadManifest(ctx, a.Store, in.Archive)
	if err == nil && m.SHA256 != in.SHA256 {
		return m, source, manifestChanged()
	}
	return m, source, failed(err)
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
