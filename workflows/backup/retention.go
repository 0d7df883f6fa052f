package backup

import (
	"fmt"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/progress"
)

// What a Retention does.
const (
	// Prune deletes what the rule does not keep, and proves an old backup again.
	Prune = "prune"
	// DryRun only says what Prune would do.
	DryRun = "dry-run"
	// Rebuild only makes the records of backups say what the storage says.
	Rebuild = "rebuild"
)

var (
	scanOptions = workflow.ActivityOptions{
		StartToCloseTimeout: time.Hour, // a thousand backups in a far bucket
		HeartbeatTimeout:    15 * time.Second,
		WaitForCancellation: true,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 2 * time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 10},
	}
	// deleteOptions are those of one backup. ops_db or the storage may be away for a while; a storage that refuses is believed
	// after deleteAttempts.
	deleteOptions = workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 10},
	}
)

// deleteAttempts is how often a storage that refuses to delete is asked before that is put on record.
const deleteAttempts = 3

// RetentionInput says whose backups are looked after.
type RetentionInput struct {
	Database string `json:"database"`
	// Do is Prune, DryRun or Rebuild.
	Do        string `json:"do"`
	StartedBy string `json:"startedBy"`
}

// RetentionOutcome is what a retention has come to so far.
type RetentionOutcome struct {
	Do string `json:"do"`
	// Catalogue is what the records were found to lack; nil in a dry run.
	Catalogue *activities.Rebuilt `json:"catalogue,omitempty"`
	// Storages have a verdict on every backup; the records and those of every storage by themselves.
	Storages []activities.StoragePlan `json:"storages,omitempty"`
	// Deletions are the backups that were to be deleted, and what became of each.
	Deletions []activities.Deletion `json:"deletions,omitempty"`
	// Reverified is the backup that was proven again; empty: none was due.
	Reverified string `json:"reverified,omitempty"`
}

// Retention deletes the backups of a database that the rule does not keep, one after the other, and then proves the one
// again whose proof is the oldest. It ends failed when something that should be gone is left, or when the old backup is
// no longer good; everything else has been done by then.
func Retention(ctx workflow.Context, in RetentionInput) (RetentionOutcome, error) {
	out := RetentionOutcome{Do: in.Do}
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.Retention, Subject: in.Database, StartedBy: in.StartedBy, Input: in,
		Summary: "Waiting to look after the backups of " + in.Database,
	})
	if err != nil {
		return out, p.EndFailed(err, nil)
	}

	// 1. What the records say is what the storage has.
	if in.Do != DryRun {
		p.Step("Compare the records with the storage")
		var rebuilt activities.Rebuilt
		err := scan(ctx, "compare the records with the storage", acts.RebuildCatalogue, activities.CatalogueInput{Database: in.Database}, &rebuilt)
		if err != nil {
			return out, p.EndFailed(err, out)
		}
		out.Catalogue = &rebuilt
		p.Done(fmt.Sprintf("%d backups, %d records added, %d corrected", rebuilt.Backups, rebuilt.Added, rebuilt.Corrected))
		if in.Do == Rebuild {
			return out, p.End(operation.Succeeded, fmt.Sprintf("%d backups are stored; %d records were added, %d corrected.",
				rebuilt.Backups, rebuilt.Added, rebuilt.Corrected), out)
		}
	}

	// 2. Decide about every backup, with a reason.
	p.Step("Decide what is kept")
	var plan activities.Plan
	err = scan(ctx, "decide what is kept", acts.PlanRetention, activities.PlanInput{Database: in.Database, Now: workflow.Now(ctx)}, &plan)
	if err != nil {
		return out, p.EndFailed(err, out)
	}
	out.Storages = plan.Storages
	p.Done(decided(plan))
	if in.Do == DryRun {
		return out, p.End(operation.Succeeded, "Would do: "+decided(plan)+".", out)
	}
	p.Say(operation.Running, "Decided: "+decided(plan), out)

	// 3. Delete, one backup at a time. What cannot be deleted keeps none of the others.
	faults := faultsOf(plan)
	for _, storage := range plan.Storages {
		for _, v := range storage.Verdicts {
			if v.Keep {
				continue
			}
			p.Step(fmt.Sprintf("Delete backup %s of %s (%s)", v.BackupID, v.StartedAt.UTC().Format(time.DateOnly), storage.Storage))
			options := deleteOptions
			options.Summary = "delete " + v.Base + " from " + storage.Storage
			done := activities.Deletion{Storage: storage.Storage, BackupID: v.BackupID, Base: v.Base}
			err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.DeleteBackup, activities.DeleteInput{
				Storage: storage.Storage, Database: v.Database, BackupID: v.BackupID, Base: v.Base, Reason: v.Reason, Attempts: deleteAttempts}).Get(ctx, &done)
			if temporal.IsCanceledError(err) {
				return out, p.EndFailed(err, out)
			}
			if err != nil {
				done.Why = progress.Reason(err)
			}
			out.Deletions = append(out.Deletions, done)
			if done.Why != "" {
				faults = append(faults, fmt.Sprintf("backup %s is left in %s: %s", v.BackupID, storage.Storage, done.Why))
				p.Fail(done.Why)
			} else {
				p.Done(fmt.Sprintf("%d objects, %s", done.Objects, v.Reason))
			}
		}
	}

	// 4. Prove the backup again whose proof is the oldest.
	if plan.Due != nil {
		p.Step("Prove backup " + plan.Due.BackupID + " again")
		out.Reverified = plan.Due.BackupID
		err := reverify(ctx, in.Database, p.ID(), *plan.Due)
		switch {
		case temporal.IsCanceledError(err):
			return out, p.EndFailed(err, out)
		case temporal.IsWorkflowExecutionAlreadyStartedError(err):
			p.Done("somebody proves it already")
		case err != nil:
			faults = append(faults, "backup "+plan.Due.BackupID+" could not be proven again: "+progress.Reason(err))
			p.Fail(progress.Reason(err))
		}
	} else {
		p.Skip("Prove an old backup again", "none is due")
	}
	if len(faults) > 0 {
		return out, p.EndFailed(temporal.NewNonRetryableApplicationError(strings.Join(faults, "; "), "RetentionIncomplete", nil), out)
	}
	return out, p.End(operation.Succeeded, progress.Sentence(decided(plan)), out)
}

// scan runs an activity that reads what is stored of every backup.
func scan(ctx workflow.Context, summary string, activity, in, result any) error {
	options := scanOptions
	options.Summary = summary
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, in).Get(ctx, result)
}

// reverify drills a backup as somebody who asks for it would: the drill corrects the backup's record.
func reverify(ctx workflow.Context, database, id string, due activities.Due) error {
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          DrillWorkflowID(database, due.BackupID),
		WaitForCancellation: true,
		ParentClosePolicy:   enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL, // so that it drops its scratch database
		StaticSummary:       "Drill of backup " + due.BackupID + " of " + database,
	})
	return workflow.ExecuteChildWorkflow(child, RestoreDrill, DrillInput{
		BackupID: due.BackupID, Database: database, Archive: due.Archive, SHA256: due.SHA256, StartedBy: "retention " + id,
	}).Get(ctx, nil)
}

// lookAfter starts the retention of a database, to run on its own. One that runs already does it all.
func lookAfter(ctx workflow.Context, database, by string) {
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        RetentionWorkflowID(database),
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_ABANDON,
		StaticSummary:     "Retention of " + database,
	})
	err := workflow.ExecuteChildWorkflow(child, Retention, RetentionInput{Database: database, Do: Prune, StartedBy: by}).
		GetChildWorkflowExecution().Get(ctx, nil)
	if err != nil && !temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		workflow.GetLogger(ctx).Warn("the next backup's retention does the work of this one", "database", database, "error", err)
	}
}

// decided counts verdicts.
func decided(plan activities.Plan) string {
	parts := make([]string, 0, len(plan.Storages))
	for _, s := range plan.Storages {
		kept := 0
		for _, v := range s.Verdicts {
			if v.Keep {
				kept++
			}
		}
		said := fmt.Sprintf("%d kept, %d deleted", kept, len(s.Verdicts)-kept)
		if s.Fault != "" {
			said = "cannot be looked at"
		}
		if len(plan.Storages) > 1 {
			said = s.Storage + ": " + said
		}
		parts = append(parts, said)
	}
	return strings.Join(parts, "; ")
}

func faultsOf(plan activities.Plan) []string {
	var faults []string
	for _, s := range plan.Storages {
		if s.Fault != "" {
			faults = append(faults, "the "+s.Storage+" cannot be looked at: "+s.Fault)
		}
	}
	return faults
}

// RetentionWorkflowID is the id of the retention of a database: one at a time.
func RetentionWorkflowID(database string) string { return "retention/" + database }

// DryRunWorkflowID is the id of a dry run, of which there may be several at a time.
func DryRunWorkflowID(database string, at time.Time) string {
	return "retention/" + database + "/dry-run/" + at.UTC().Format(time.RFC3339Nano)
}
