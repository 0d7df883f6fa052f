package rollout

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/target"
)

// MigrationFailedType: a migration failed, or was refused. The message says why.
const MigrationFailedType = "MigrationFailed"

// Backups tell what is known of the backups of databases.
type Backups interface {
	// Holder is the backup of a database that runs; nil: none does.
	Holder(ctx context.Context, database string) (*operation.Record, error)
}

// Liveness tells whether a workflow still runs.
type Liveness interface {
	Running(ctx context.Context, workflowID, runID string) (bool, error)
}

// Migrations are a release's, and whether a backup of their database can be taken.
type Migrations struct {
	migration.Plan
	Backup bool
}

// ReadMigrations asks a release for its migrations.
func (a *Activities) ReadMigrations(ctx context.Context, in CurrentInput) (Migrations, error) {
	plan, err := a.Target.Migrations(ctx, in.Environment, in.Service.Service, in.Release)
	return Migrations{Plan: plan, Backup: slices.Contains(a.BackedUp, plan.Database)}, unmended(err)
}

// AwaitBackup waits until no backup of a database runs.
func (a *Activities) AwaitBackup(ctx context.Context, database string) error {
	return repeat(ctx, 0, func() (now Progress, err error) {
		holder, err := a.Backups.Holder(ctx, database)
		if holder == nil || err != nil {
			return now, err
		}
		running, err := a.Liveness.Running(ctx, holder.WorkflowID, holder.RunID)
		if running {
			now.WaitingFor = "backup " + holder.ID + " runs"
		}
		return now, err
	})
}

// migrateHeartbeat is how often a migration that runs is reported.
const migrateHeartbeat = 2 * time.Second

// ApplyMigrations lets a release run its migrations. When it is cancelled, what has not been committed is undone.
func (a *Activities) ApplyMigrations(ctx context.Context, m target.Migration) (migration.Plan, error) {
	type result struct {
		plan migration.Plan
		err  error
	}
	done := make(chan result, 1)
	go func() {
		plan, err := a.Target.Migrate(ctx, m)
		done <- result{plan, err}
	}()
	tick := time.NewTicker(migrateHeartbeat)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if ctx.Err() != nil {
				return r.plan, ctx.Err()
			}
			return r.plan, unmended(fenced(r.err))
		case <-tick.C:
			activity.RecordHeartbeat(ctx)
		}
	}
}

// unmended are the errors of migrations that a retry does not mend.
func unmended(err error) error {
	switch {
	case errors.Is(err, target.ErrNotFound):
		return unusable(err)
	case errors.Is(err, target.ErrMigration):
		return temporal.NewNonRetryableApplicationError(err.Error(), MigrationFailedType, nil)
	}
	return err
}
