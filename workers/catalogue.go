package workers

import (
	"context"
	"log/slog"
	"time"

	backupacts "github.com/school-sms/sms/activities/backup"
)

// rebuildAgain is the pause before the records are compared again while ops_db or the storage is away.
const rebuildAgain = 10 * time.Second

// rebuildCatalogue compares the records of all backups with the storage once: an ops_db that was lost, or came back from
// a backup, knows them again.
func rebuildCatalogue(ctx context.Context, acts *backupacts.Activities, log *slog.Logger) {
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
