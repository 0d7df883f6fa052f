package backup

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	operations "github.com/school-sms/sms/activities/operation"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/progress"
)

// DrillInput names the backup to prove.
type DrillInput struct {
	BackupID  string `json:"backupId"`
	Database  string `json:"database"`
	Archive   string `json:"archive"`
	SHA256    string `json:"sha256"`
	StartedBy string `json:"startedBy"`
	// Part says that the drill is the last step of the backup itself, which records how it ended.
	Part bool `json:"part,omitempty"`
}

// DrillOutcome is what a drill that succeeded has found. RestoreSeconds is the measured time to get the data back.
type DrillOutcome struct {
	DrillID        string    `json:"drillId"`
	Tables         int       `json:"tables"`
	Rows           int64     `json:"rows"`
	RestoreSeconds float64   `json:"restoreSeconds"`
	CompareSeconds float64   `json:"compareSeconds"`
	VerifiedAt     time.Time `json:"verifiedAt"`
}

var operationActs *operations.Activities

// RestoreDrill proves a backup: its archive is unchanged, can be restored, and holds what its snapshot held. The error says
// why it is not proven. What it has found lies beside the backup from then on. Unless it is part of a Backup, it also
// corrects the backup's record.
func RestoreDrill(ctx workflow.Context, in DrillInput) (DrillOutcome, error) {
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.RestoreDrill, Subject: in.Database, StartedBy: in.StartedBy, Input: in,
		Summary: "Waiting to prove backup " + in.BackupID,
	})
	if err != nil {
		return DrillOutcome{}, p.EndFailed(err, nil)
	}
	out, err := drill(ctx, p, in)
	if activities.DisprovesBackup(err) {
		disprove(ctx, in, out, err)
	}
	if !in.Part {
		amend(ctx, in, out, err)
	}
	if err != nil {
		return DrillOutcome{}, p.EndFailed(err, nil)
	}
	return out, p.End(operation.Succeeded, proven(out), out)
}

func drill(ctx workflow.Context, p *progress.Progress, in DrillInput) (DrillOutcome, error) {
	out := DrillOutcome{DrillID: p.ID()}
	work := activities.DrillInput{DrillID: p.ID(), Database: in.Database, Archive: in.Archive, SHA256: in.SHA256}

	// 1. The archive is what was stored, byte by byte.
	p.Step("Check the archive's SHA-256")
	if err := run(ctx, "check the archive's SHA-256", acts.CheckArchive, work, nil); err != nil {
		return out, err
	}

	// 2. It can be restored, and what comes back is what the snapshot held. Whatever happens from here on, the scratch database
	// goes away.
	p.Step("Restore into a scratch database and compare")
	defer drop(ctx, work)
	var proven activities.Proven
	if err := run(ctx, "restore into a scratch database and compare", acts.ProveArchive, work, &proven); err != nil {
		return out, err
	}
	out.Tables, out.Rows, out.RestoreSeconds, out.CompareSeconds, out.VerifiedAt = proven.Tables, proven.Rows, proven.RestoreSeconds, proven.CompareSeconds, proven.VerifiedAt

	// 3. Only with the proof beside it, it counts.
	p.Step("Store the proof")
	record := recordOptions
	record.Summary = "store the proof"
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, record), acts.RecordProof, activities.ProofInput{
		DrillInput: work, BackupID: in.BackupID, At: out.VerifiedAt, RestoreSeconds: out.RestoreSeconds,
		CompareSeconds: out.CompareSeconds, Tables: out.Tables, Rows: out.Rows,
	}).Get(ctx, nil)
	if err != nil {
		return out, err
	}
	p.Done(fmt.Sprintf("%d tables, %d rows", out.Tables, out.Rows))
	return out, nil
}

// disprove puts beside the backup that it is bad, so that it counts nowhere any more.
func disprove(ctx workflow.Context, in DrillInput, out DrillOutcome, err error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	options := recordOptions
	options.Summary = "store that the backup is bad"
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.RecordDisproof, activities.ProofInput{
		DrillInput: activities.DrillInput{DrillID: out.DrillID, Database: in.Database, Archive: in.Archive, SHA256: in.SHA256},
		BackupID:   in.BackupID, At: workflow.Now(ctx), Reason: progress.Sentence(progress.Reason(err)),
	}).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Error("a bad backup cannot be marked as such", "backup", in.BackupID, "error", err)
	}
}

func run(ctx workflow.Context, summary string, activity, in, result any) error {
	options := restoreOptions
	options.Summary = summary
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, in).Get(ctx, result)
}

// drop removes the scratch database, also when the drill was cancelled. What it cannot drop, the next drill does.
func drop(ctx workflow.Context, in activities.DrillInput) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	options := dropOptions
	options.Summary = "drop the scratch database"
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.DropScratch, in).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Warn("the scratch database is left to the next drill", "drill", in.DrillID, "error", err)
	}
}

// amend puts what a later drill has found on the backup's record. A drill that could not be carried out says nothing
// about the backup.
func amend(ctx workflow.Context, in DrillInput, out DrillOutcome, err error) {
	amendment := operations.Amendment{ID: in.BackupID, State: StateVerified, Summary: "Proven again: " + proven(out)}
	if err != nil {
		if !activities.DisprovesBackup(err) {
			return
		}
		amendment.State = operation.Failed
		amendment.Summary = "No longer good: " + progress.Sentence(progress.Reason(err))
	}
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	options := dropOptions
	options.Summary = "correct the record of backup " + in.BackupID
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), operationActs.AmendOperation, amendment).Get(ctx, nil)
	if err != nil {
		workflow.GetLogger(ctx).Warn("the backup's record is not corrected", "backup", in.BackupID, "error", err)
	}
}

func proven(out DrillOutcome) string {
	return fmt.Sprintf("%d tables, %d rows, restored in %.1f s.", out.Tables, out.Rows, out.RestoreSeconds)
}
