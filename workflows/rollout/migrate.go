package rollout

import (
	"errors"
	"fmt"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	operations "github.com/school-sms/sms/activities/operation"
	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/backup"
)

const (
	// readMigrationsWithin bounds one attempt to ask a release, which the target bounds more tightly.
	readMigrationsWithin = time.Minute
	// longestMigration bounds one attempt of a migration, or of a wait for somebody else's backup, which their heartbeats guard.
	longestMigration = 12 * time.Hour
	// backupTries is how often a backup gives way to one that was begun at the same moment.
	backupTries = 3
)

// expand makes the database fit for the new release, after a verified backup, by steps with which the stable one goes on. A rollback runs
// none, and is refused when the release cannot live with the schema.
func (r *run) expand(ctx workflow.Context) error {
	if !has(ctx, "migrations") {
		return nil
	}
	const step = "Read the migrations of the release"
	plan, err := r.migrations(ctx, r.outcome.To)
	if err != nil {
		return err
	}
	if plan.Version > plan.Known || plan.Untold != "" {
		running, err := r.migrations(ctx, r.stable.Release)
		if err != nil {
			return err
		}
		if plan.Untold != "" {
			r.Skip(step, plan.Untold)
			plan.Database, plan.Version = running.Database, running.Version // and it knows no contract step
		}
		if bars := plan.Bars(running.Contracts); bars != "" {
			return errors.New(bars)
		}
	}
	if r.Rollback || len(plan.Pending) == 0 {
		return nil
	}
	r.Step(step)
	if faults := plan.Faults(); len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	steps := plan.Next(migration.Expand)
	detail := fmt.Sprintf("%s is at version %d. Expand-only: %s", plan.Database, plan.Version, orNone(steps))
	if wait := plan.Of(migration.Contract); len(wait) > 0 {
		r.contracts = true
		detail += fmt.Sprintf(". Contract steps wait for the end of %s: %s", short(r.stable.Release), migration.Names(wait))
	}
	r.Done(detail)
	if len(steps) == 0 {
		return nil
	}
	return r.migrate(ctx, plan, migration.Expand, steps)
}

// contract runs the contract steps once the release runs alone, and returns a sentence about them. The release is good without
// them: what fails here fails no rollout, and is done by another one of the same release.
func (r *run) contract(ctx workflow.Context) string {
	if r.Rollback || !has(ctx, "migrations") || r.touched && !r.contracts {
		return ""
	}
	plan, err := r.migrations(ctx, r.outcome.To)
	if err != nil {
		return fmt.Sprintf(" Whether contract steps are to be run cannot be said: %s.", why(err))
	}
	steps := plan.Next(migration.Contract)
	if len(steps) == 0 {
		return ""
	}
	if err = r.alone(ctx); err == nil {
		err = r.migrate(ctx, plan, migration.Contract, steps)
	}
	if err != nil {
		r.Fail(why(err))
		return fmt.Sprintf(" Contract steps are still to be run, by another rollout of this release: %s: %s.", migration.Names(steps), why(err))
	}
	return fmt.Sprintf(" Contract steps have run: %s.", migration.Names(steps))
}

// alone fails while an instance of another release is there.
func (r *run) alone(ctx workflow.Context) error {
	var observed target.Observed
	if err := call(ctx, acts.ObserveTarget, r.service, &observed); err != nil {
		return err
	}
	for _, i := range observed.Instances {
		if i.Release != r.outcome.To {
			return fmt.Errorf("%s still runs %s", i.Name, short(i.Release))
		}
	}
	return nil
}

// migrate runs the steps of a kind after a verified backup of the database.
func (r *run) migrate(ctx workflow.Context, plan activities.Migrations, kind migration.Kind, steps []migration.Migration) error {
	if err := r.backUp(ctx, plan); err != nil {
		return err
	}
	last := steps[len(steps)-1]
	r.touched = true // some of the steps may have run when one fails
	r.Step(fmt.Sprintf("Migrate %s to version %d", plan.Database, last.Number))
	in := target.Migration{Environment: r.Environment, Service: r.Service, Release: r.outcome.To, Kind: kind, Fence: r.next(ctx)}
	if err := workflow.ExecuteActivity(lasting(ctx, longestMigration), acts.ApplyMigrations, in).Get(ctx, nil); err != nil {
		return err
	}
	r.Done(migration.Names(steps))
	return nil
}

// backUp takes a verified backup of the database, after any that runs. In production there is no migration without one.
func (r *run) backUp(ctx workflow.Context, plan activities.Migrations) error {
	step := fmt.Sprintf("Back up %s and verify the backup", plan.Database)
	if !plan.Backup {
		missing := "BACKUP_DATABASES of the worker does not name " + plan.Database
		if r.Environment == rollout.Production {
			return fmt.Errorf("no backup can be taken before the migration: %s", missing)
		}
		r.Skip(step, missing)
		return nil
	}
	r.Step(step)
	for try := 1; ; try++ {
		if err := await(ctx, acts.AwaitBackup, plan.Database, longestMigration); err != nil {
			return err
		}
		child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: backup.WorkflowID(plan.Database, workflow.Now(ctx)), WaitForCancellation: true,
			ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
			StaticSummary:     fmt.Sprintf("Backup of %s before the migrations of rollout %s", plan.Database, r.ID()),
		}), backup.Backup, backup.Input{Database: plan.Database, StartedBy: "rollout " + r.ID()})
		var begun workflow.Execution
		err := child.GetChildWorkflowExecution().Get(ctx, &begun)
		if err == nil {
			err = child.Get(ctx, nil)
		}
		switch {
		case err == nil:
			id := operation.ID(begun.ID, begun.RunID)
			r.outcome.Backups = append(r.outcome.Backups, id)
			r.Done("backup " + id)
			return nil
		case !held(err) || try == backupTries:
			return err
		}
	}
}

// held reports whether another backup of the database was faster.
func held(err error) bool {
	application, ok := errors.AsType[*temporal.ApplicationError](err)
	return runsAlready(err) || ok && application.Type() == operations.HeldType
}

// migrations asks a release for its migrations.
func (r *run) migrations(ctx workflow.Context, release string) (activities.Migrations, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: readMigrationsWithin, RetryPolicy: &callRetry})
	var plan activities.Migrations
	err := workflow.ExecuteActivity(ctx, acts.ReadMigrations, activities.CurrentInput{Service: r.service, Release: release}).Get(ctx, &plan)
	return plan, err
}

func orNone(steps []migration.Migration) string {
	if len(steps) == 0 {
		return "none"
	}
	return migration.Names(steps)
}
