package backup

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
)

// CopyInput names the database whose backups are to be copied.
type CopyInput struct {
	Database string    `json:"database"`
	Now      time.Time `json:"now"`
}

// CopyResult is what was copied to the second storage.
type CopyResult struct {
	// Configured tells that there is a second storage.
	Configured bool `json:"configured"`
	backup.Copied
}

// CopyBackup brings to the second storage what it lacks of the database's verified backups: the newest, and what earlier
// runs could not copy.
func (a *Activities) CopyBackup(ctx context.Context, in CopyInput) (CopyResult, error) {
	if a.Copy == nil {
		return CopyResult{}, nil
	}
	if _, err := a.source(in.Database); err != nil {
		return CopyResult{}, err
	}
	a.sweep(ctx, a.Copy, in.Database)
	result := CopyResult{Configured: true}
	err := a.attended(ctx, in.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) (err error) {
		result.Copied, err = a.Tools.Copy(ctx, a.Store, a.Copy, in.Database, a.Policy, in.Now, meter)
		return err
	})
	if errors.Is(err, storage.ErrUnreachable) {
		return result, err // also if another backup cannot be copied at all: this one may, later
	}
	return result, failed(err)
}

// sweep removes what dead writers left. Whoever has the database's lock is the only one to write its backups: an
// unfinished one is of an attempt that is over.
func (a *Activities) sweep(ctx context.Context, store storage.Store, database string) {
	swept, err := store.Sweep(ctx, func(name string) bool { return strings.HasPrefix(name, database+"/") })
	if err != nil || swept > 0 {
		a.Log.Info("swept unfinished objects", "database", database, "count", swept, "error", err)
	}
}
