// Package backup is the workflows that back databases up and prove that the backups can be restored.
package backup

import (
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/progress"
)

// States of a backup besides running, failed and cancelled.
const (
	// StateStored says that the archive lies under its final name, not yet proven.
	StateStored = engine.StateStored
	// StateVerified says that the archive was restored and held what the database held.
	StateVerified = engine.StateVerified
)

var (
	dumpOptions = workflow.ActivityOptions{
		StartToCloseTimeout: 12 * time.Hour, // a big database
		HeartbeatTimeout:    15 * time.Second,
		WaitForCancellation: true,
		RetryPolicy: &temporal.RetryPolicy{ // about 20 minutes of a server that is away
			InitialInterval: 2 * time.Second, BackoffCoefficient: 2, MaximumInterval: 2 * time.Minute, MaximumAttempts: 15,
		},
	}
	readyOptions = workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		RetryPolicy:         dumpOptions.RetryPolicy,
	}
	restoreOptions = dumpOptions // as long, as patient
	// recordOptions are those of a small object: written at once, or when the storage is back.
	recordOptions = workflow.ActivityOptions{
		StartToCloseTimeout: 5 * time.Minute, // it reads the other proofs of the database
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 2 * time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 15},
	}
	dropOptions = workflow.ActivityOptions{
		StartToCloseTimeout:    time.Minute,
		ScheduleToCloseTimeout: 15 * time.Minute, // then the next drill sweeps it
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second},
	}
)

var acts *activities.Activities

// Input says what to back up, and for whom.
type Input struct {
	Database  string `json:"database"`
	StartedBy string `json:"startedBy"`
}

// Outcome is what a backup has come to so far.
type Outcome struct {
	// Stored is nil before the archive has its final name.
	Stored *activities.Stored `json:"stored,omitempty"`
	// Drill is nil before the archive has proven itself.
	Drill *DrillOutcome `json:"drill,omitempty"`
	// Copy is nil before a copy was tried, and where there is no second storage.
	Copy *CopyOutcome `json:"copy,omitempty"`
}

// Backup dumps a database into storage and proves the backup by a restore. It ends verified, or with why not.
func Backup(ctx workflow.Context, in Input) (Outcome, error) {
	var out Outcome
	// 1. Take the lock: one backup of a database at a time.
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.Backup, Subject: in.Database, StartedBy: in.StartedBy, Input: in,
		Summary: "Waiting to back up " + in.Database,
	})
	if err != nil {
		return out, p.EndFailed(err, nil)
	}

	// 2. Check what a backup and its drill need, before anything is touched.
	p.Step("Check keys, versions, rights and space")
	ready := readyOptions
	ready.Summary = "check keys, versions, rights and space"
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, ready), acts.CheckReady, in.Database).Get(ctx, nil); err != nil {
		return out, p.EndFailed(err, out)
	}

	// 3. Dump one snapshot into storage.
	p.Step("Dump " + in.Database)
	dump := dumpOptions
	dump.Summary = "dump " + in.Database
	var stored activities.Stored
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, dump), acts.DumpDatabase,
		activities.DumpInput{ID: p.ID(), Database: in.Database, StartedAt: p.Record().StartedAt}).Get(ctx, &stored)
	if err != nil {
		return out, p.EndFailed(err, out)
	}
	out.Stored = &stored
	p.Done(fmt.Sprintf("%s, %d tables, %d rows", engine.Size(stored.Bytes), stored.Tables, stored.Rows))
	p.Say(StateStored, "Stored, not yet proven", out)

	// 4. Prove it: restore it into a scratch database and compare.
	p.Step("Restore the backup into a scratch database and compare")
	var drill DrillOutcome
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:          DrillWorkflowID(in.Database, p.ID()),
		WaitForCancellation: true,
		ParentClosePolicy:   enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL, // so that it drops its scratch database
		StaticSummary:       "Drill of backup " + p.ID() + " of " + in.Database,
	})
	err = workflow.ExecuteChildWorkflow(child, RestoreDrill, DrillInput{
		BackupID: p.ID(), Database: in.Database, Archive: stored.Archive, SHA256: stored.SHA256, StartedBy: "backup " + p.ID(), Part: true,
	}).Get(ctx, &drill)
	if err != nil {
		return out, p.EndFailed(err, out)
	}
	out.Drill = &drill
	p.Say(StateVerified, "Restored and compared", out)

	// 5. Copy it to the second storage. It counts as a backup whatever comes of that.
	out.Copy = copyBackup(ctx, p, in.Database)

	// 6. Only now it is done, and lets older ones go.
	err = p.End(StateVerified, fmt.Sprintf("%s, %d tables, %d rows, restored and compared in %.1f s.%s",
		engine.Size(stored.Bytes), drill.Tables, drill.Rows, drill.RestoreSeconds, out.Copy.sentence()), out)
	lookAfter(ctx, in.Database, "backup "+p.ID())
	return out, err
}

// WorkflowID is the id of a backup that is started at a time. A schedule's backups are named by Temporal, which appends
// the time to ScheduledWorkflowID.
func WorkflowID(database string, at time.Time) string {
	return "backup/" + database + "/" + at.UTC().Format(time.RFC3339)
}

// ScheduledWorkflowID is what a schedule calls the backups of a database, before the time.
func ScheduledWorkflowID(database string) string { return "backup/" + database + "/nightly" }

// DrillWorkflowID is the id of the drill of a backup: one at a time.
func DrillWorkflowID(database, backupID string) string {
	return "restore-drill/" + database + "/" + backupID
}

// ScheduleID names the schedule that backs a database up at night.
func ScheduleID(database string) string { return "backup-" + database + "-nightly" }
