package backup

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/storage"
)

// Proven is what a drill has found.
type Proven struct {
	// Differences say how the restored database is not what was backed up, a sentence each; none: the backup is proven.
	Differences []string
	Tables      int
	Rows        int64
	// Restore is how long it took to get all data back, Compare how much longer to compare it. The rows are compared as soon as
	// they are there, beside the indexes that are made of them.
	Restore, Compare time.Duration
	// ServerVersion is that of the server which it was restored into.
	ServerVersion string
}

// Prove restores a backup into a scratch database, which it makes anew, and compares what came back with the manifest. The
// scratch database is left to DropScratch. It returns what Fill returns.
func (t Tools) Prove(ctx context.Context, store storage.Store, m Manifest, source Source, scratch string, meter *Meter) (Proven, error) {
	var p Proven
	if err := t.ReadyToRestore(ctx, m, source); err != nil {
		return p, err
	}
	if err := DropScratch(ctx, source, scratch); err != nil {
		return p, err
	}
	began := time.Now()
	if err := CreateDatabase(ctx, m, source, scratch); err != nil {
		return p, err
	}
	var found Contents
	err := t.fill(ctx, store, m, source, scratch, meter, func(ctx context.Context) error {
		return examine(ctx, source, scratch, func(tx pgx.Tx) error { return found.readTables(ctx, tx, meter) })
	})
	if err != nil {
		return p, err
	}
	p.Restore = time.Since(began)
	err = examine(ctx, source, scratch, func(tx pgx.Tx) (err error) {
		if _, p.ServerVersion, err = serverVersion(ctx, tx.Conn()); err != nil {
			return err
		}
		if found.Sequences, err = readSequences(ctx, tx); err != nil {
			return err
		}
		return found.readDefinitions(ctx, tx)
	})
	if err != nil {
		return p, err
	}
	p.Compare = time.Since(began) - p.Restore
	p.Tables, p.Rows, p.Differences = len(found.Tables), Rows(found.Tables), Compare(m.Contents, found)
	return p, nil
}
