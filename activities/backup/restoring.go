package backup

import (
	"context"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/storage"
)

// restoring is what a restore works with.
type restoring struct {
	source   backup.Source
	store    storage.Store
	manifest backup.Manifest
	tools    backup.Tools
}

func (a *Activities) restoring(ctx context.Context, in RestoreWork) (r restoring, err error) {
	if r.source, err = a.source(in.Found.Database); err != nil {
		return r, err
	}
	stores, err := a.stores(in.Request.From)
	if err != nil {
		return r, failed(err)
	}
	r.store = stores[0]
	if in.Found.InCopy && len(stores) > 1 {
		r.store = stores[1]
	}
	r.manifest, err = backup.ReadManifest(ctx, r.store, in.Found.Archive)
	if err == nil && r.manifest.SHA256 != in.Found.SHA256 {
		return r, manifestChanged()
	}
	r.tools = a.Tools
	if in.Request.KeyFile != "" {
		r.tools.Keys.Identities = in.Request.KeyFile
	}
	return r, failed(err)
}

// stores are where backups may lie: the one that was named, else the platform's own and its copy.
func (a *Activities) stores(from string) ([]storage.Store, error) {
	if from == "" {
		if a.Copy != nil {
			return []storage.Store{a.Store, a.Copy}, nil
		}
		return []storage.Store{a.Store}, nil
	}
	location, err := storage.ParseLocation(from)
	if err != nil {
		return nil, final("--from: "+err.Error(), SetupType, nil)
	}
	cfg := a.Storage
	cfg.Storage = location
	store, err := storage.Open(cfg)
	if err != nil {
		return nil, final("--from: "+err.Error(), SetupType, nil)
	}
	return []storage.Store{store}, nil
}

// sweepBesides drops what restores left whose workflow is gone.
func (a *Activities) sweepBesides(ctx context.Context, source backup.Source, own string) {
	admin, err := backup.Administer(ctx, source)
	if err != nil {
		return // the restore itself will say so
	}
	defer admin.Close()
	ids, err := admin.Besides(ctx)
	for _, id := range ids {
		if id == own || !a.dead(ctx, id, operation.Restore) {
			continue
		}
		if dropErr := admin.DropBeside(ctx, backup.BesideName(source.Database, id)); dropErr != nil {
			err = dropErr
		}
	}
	if err != nil {
		a.Log.Warn("databases of dead restores may be left", "database", source.Database, "error", err.Error())
	}
}

// dead reports whether an operation is on record and runs no more.
func (a *Activities) dead(ctx context.Context, id string, kind operation.Kind) bool {
	record, err := a.Operations.Get(ctx, id, kind)
	if err != nil || record.ID != id {
		return false
	}
	if record.Ended() {
		return true
	}
	running, err := a.Liveness.Running(ctx, record.WorkflowID, record.RunID)
	return err == nil && !running
}
