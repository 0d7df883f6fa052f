package backup

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/workflows/progress"
)

// copyOptions are those of a copy. It never keeps the lock until the next night's backup: what it has not copied, that one
// does.
var copyOptions = workflow.ActivityOptions{
	ScheduleToCloseTimeout: 12 * time.Hour,
	HeartbeatTimeout:       15 * time.Second,
	WaitForCancellation:    true,
	RetryPolicy: &temporal.RetryPolicy{ // about 9 minutes of a storage that is away, besides its own patience
		InitialInterval: 5 * time.Second, BackoffCoefficient: 2, MaximumInterval: 2 * time.Minute, MaximumAttempts: 9,
	},
}

// CopyOutcome is what the copy to the second storage has come to.
type CopyOutcome struct {
	engine.Copied
	// Fault is why the second storage lacks this backup, or others; empty: it lacks none.
	Fault string `json:"fault,omitempty"`
}

// sentence ends the summary of a backup.
func (c *CopyOutcome) sentence() string {
	switch {
	case c == nil:
		return ""
	case c.Fault != "":
		return " The second storage lacks backups: " + progress.Sentence(c.Fault)
	}
	return " Copied to the second storage."
}

// copyBackup brings the database's backups to the second storage; nil: there is none.
func copyBackup(ctx workflow.Context, p *progress.Progress, database string) *CopyOutcome {
	p.Step("Copy to the second storage")
	options := copyOptions
	options.Summary = "copy the backups of " + database + " to the second storage"
	var result activities.CopyResult
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.CopyBackup,
		activities.CopyInput{Database: database, Now: workflow.Now(ctx)}).Get(ctx, &result)
	switch {
	case err != nil:
		why := strings.ReplaceAll(progress.Reason(err), "\n", "; ") // a line a backup
		p.Fail(why + "; the next backup tries again")
		return &CopyOutcome{Fault: why}
	case !result.Configured:
		p.Done("there is none")
		return nil
	}
	p.Done(fmt.Sprintf("%d backups, %d objects, %s", result.Backups, result.Objects, engine.Size(result.Bytes)))
	return &CopyOutcome{Copied: result.Copied}
}
