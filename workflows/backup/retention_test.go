package backup_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	operations "github.com/school-sms/sms/activities/operation"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/backup"
)

func verdict(id string, keep bool) engine.Verdict {
	return engine.Verdict{BackupID: id, Database: "student_db", Base: "student_db/20261123T020000Z-" + id, Keep: keep, Reason: "a reason"}
}

func TestRetentionDoesAllItCanAndSaysWhatItCouldNot(t *testing.T) {
	t.Parallel()
	two := []activities.StoragePlan{
		{Storage: activities.FirstStorage, Verdicts: []engine.Verdict{verdict("aaa", false), verdict("bbb", false), verdict("ccc", true)}},
		{Storage: activities.CopyStorage, Verdicts: []engine.Verdict{verdict("aaa", false), verdict("ccc", true)}},
	}
	due := &activities.Due{BackupID: "ccc", Archive: "x", SHA256: "y"}
	for name, test := range map[string]struct {
		do      string
		plan    activities.Plan
		planned error
		// left is what the deletion of bbb says, broken its error.
		left           string
		broken         error
		drill          error
		state, summary string
		deleted        []string
		drilled        bool
	}{
		"all well":          {do: backup.Prune, plan: activities.Plan{Storages: two, Due: due}, state: operation.Succeeded, summary: "Storage: 1 kept, 2 deleted; copy: 1 kept, 1 deleted.", deleted: []string{"storage aaa", "storage bbb", "copy aaa"}, drilled: true},
		"nothing to do":     {do: backup.Prune, plan: activities.Plan{Storages: two[:0]}, state: operation.Succeeded},
		"one stays":         {do: backup.Prune, plan: activities.Plan{Storages: two, Due: due}, left: "permission denied", state: operation.Failed, summary: "Backup bbb is left in storage: permission denied.", deleted: []string{"storage aaa", "storage bbb", "copy aaa"}, drilled: true},
		"one cannot be":     {do: backup.Prune, plan: activities.Plan{Storages: two}, broken: final("Setup", "not configured"), state: operation.Failed, summary: "Backup bbb is left in storage: not configured.", deleted: []string{"storage aaa", "storage bbb", "copy aaa"}},
		"an old one is bad": {do: backup.Prune, plan: activities.Plan{Storages: two[1:], Due: due}, drill: final(activities.DamagedType, "the backup is damaged"), state: operation.Failed, summary: "Backup ccc could not be proven again: the backup is damaged.", deleted: []string{"copy aaa"}, drilled: true},
		"no copy to see":    {do: backup.Prune, plan: activities.Plan{Storages: []activities.StoragePlan{two[0], {Storage: activities.CopyStorage, Fault: "it is away"}}}, state: operation.Failed, summary: "The copy cannot be looked at: it is away.", deleted: []string{"storage aaa", "storage bbb"}},
		"dry run":           {do: backup.DryRun, plan: activities.Plan{Storages: two, Due: due}, state: operation.Succeeded, summary: "Would do: storage: 1 kept, 2 deleted"},
		"rebuild":           {do: backup.Rebuild, state: operation.Succeeded, summary: "3 backups are stored; 1 records were added, 0 corrected."},
		"storage away":      {do: backup.Prune, planned: errors.New("the storage does not answer"), state: operation.Failed, summary: "The storage does not answer."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := temporaltest.Workflow()
			env.SetWorkerOptions(worker.Options{WorkflowPanicPolicy: worker.FailWorkflow})
			env.SetTestTimeout(time.Minute)
			env.RegisterWorkflow(backup.Retention)
			env.RegisterWorkflow(backup.RestoreDrill)
			env.RegisterActivity(&activities.Activities{})
			env.RegisterActivity(&operations.Activities{})
			var last operation.Record
			keep := func(_ context.Context, r operation.Record) error {
				if r.Revision > last.Revision {
					last = r
				}
				return nil
			}
			env.OnActivity("BeginOperation", mock.Anything, mock.Anything).Return(keep)
			env.OnActivity("RecordOperation", mock.Anything, mock.Anything).Return(keep)
			env.OnActivity("RebuildCatalogue", mock.Anything, mock.Anything).Return(activities.Rebuilt{Backups: 3, Added: 1}, nil)
			env.OnActivity("PlanRetention", mock.Anything, mock.Anything).Return(test.plan, test.planned)
			var deleted []string
			env.OnActivity("DeleteBackup", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.DeleteInput) (activities.Deletion, error) {
				deleted = append(deleted, in.Storage+" "+in.BackupID)
				out := activities.Deletion{Storage: in.Storage, BackupID: in.BackupID, Base: in.Base, Objects: 3}
				if in.BackupID == "bbb" {
					out.Why = test.left
					return out, test.broken
				}
				return out, nil
			})
			drilled := false
			env.OnWorkflow("RestoreDrill", mock.Anything, mock.Anything).Return(func(_ workflow.Context, in backup.DrillInput) (backup.DrillOutcome, error) {
				drilled = in.BackupID == "ccc" && !in.Part && in.Archive == "x" && in.SHA256 == "y"
				return backup.DrillOutcome{}, test.drill
			}).Maybe()
			env.ExecuteWorkflow(backup.Retention, backup.RetentionInput{Database: "student_db", Do: test.do, StartedBy: "meera"})
			if !env.IsWorkflowCompleted() {
				t.Fatal("the workflow has not ended")
			}
			if err := env.GetWorkflowError(); (err == nil) != (test.state == operation.Succeeded) {
				t.Errorf("ended with %v", err)
			}
			if last.State != test.state || !strings.HasPrefix(last.Summary, test.summary) || !last.Ended() || last.Kind != operation.Retention {
				t.Errorf("recorded %s %s: %s, want %s: %s", last.Kind, last.State, last.Summary, test.state, test.summary)
			}
			if !slices.Equal(deleted, test.deleted) || drilled != test.drilled {
				t.Errorf("deleted %q, drilled %t, want %q, %t", deleted, drilled, test.deleted, test.drilled)
			}
		})
	}
}
