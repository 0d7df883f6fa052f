package workers

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.uber.org/fx"

	backupacts "github.com/school-sms/sms/activities/backup"
)

// rebuildAgain is the pause before the records are compared again while ops_db or the storage is away.
const rebuildAgain = 10 * time.Second

// keepCatalogue compares the records of all backups with the storage once, when the worker starts: an ops_db that was
// lost, or came back from a backup, knows them again. Work does not wait for it.
func keepCatalogue(lc fx.Lifecycle, acts *backupacts.Activities, log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			running.Go(func() { rebuild(ctx, acts, log) })
			return nil
		},
		OnStop: func(context.Context) error {
			cancel()
			running.Wait()
			return nil
		},
	})
}

func rebuild(ctx context.Context, acts *backupacts.Activities, log *slog.Logger) {
	for waiting := false; ctx.Err() == nil; pause(ctx, rebuildAgain) {
		rebuilt, err := acts.Rebuild(ctx, "")
		switch {
		case err == nil:
			if rebuilt.Added > 0 || rebuilt.Corrected > 0 {
				log.Info("made the records of backups say what the storage says", "backups", rebuilt.Backups, "added", rebuilt.Added, "corrected", rebuilt.Corrected)
			}
			return
		case !waiting && ctx.Err() == nil:
			log.Warn("the records of backups cannot be compared with the storage for now", "error", err.Error())
			waiting = true
		}
	}
}
