package backup

import (
	"fmt"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/progress"
)

// SafetyType is the type of the error that ends an in-place restore whose safety backup failed.
const SafetyType = "SafetyBackupFailed"

var (
	findOptions = workflow.ActivityOptions{
		StartToCloseTimeout: 5 * time.Minute, // a storage far away, with years of backups
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 20 * time.Second, MaximumAttempts: 8},
	}
	putOptions = workflow.ActivityOptions{
		// A rename waits 10 s for a lock and 5 s for sessions to end; a worker that dies in it is not waited for longer.
		StartToCloseTimeout: 30 * time.Second,
		WaitForCancellation: true,
		RetryPolicy: &temporal.RetryPolicy{ // about 4 minutes of sessions in the way or a server that is away
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second, MaximumAttempts: 12,
		},
	}
)

// RestoreInput says what to restore, where to, and for whom.
type RestoreInput struct {
	activities.RestoreRequest
	StartedBy string `json:"startedBy"`
}

// RestoreOutcome is what a restore has come to so far.
type RestoreOutcome struct {
	// Backup is nil before it was found.
	Backup *activities.Found `json:"backup,omitempty"`
	// SafetyBackup is the id of the backup that was made of the database that was replaced.
	SafetyBackup string `json:"safetyBackup,omitempty"`
	// Unreadable is why there is none: what reading that database failed with.
	Unreadable     string  `json:"unreadable,omitempty"`
	Tables         int     `json:"tables,omitempty"`
	Rows           int64   `json:"rows,omitempty"`
	RestoreSeconds float64 `json:"restoreSeconds,omitempty"`
	CompareSeconds float64 `json:"compareSeconds,omitempty"`
	// Put is where the restored data is; nil while nobody can use it.
	Put *activities.Put `json:"put,omitempty"`
	// Aftermath is what the database that was replaced knew and the restored one does not; nil when that could not be asked.
	Aftermath *backup.Aftermath `json:"aftermath,omitempty"`
	// ToDo is what is left to the operator, a sentence each.
	ToDo []string `json:"toDo,omitempty"`
	// Left is a database that could not be dropped after a failure.
	Left string `json:"left,omitempty"`
}

// Restore brings a backup back: into a new database, in place of the one that it is of, or one table of it beside the one
// that serves. All work is done in a database of its own; what serves is touched last, in one transaction.
func Restore(ctx workflow.Context, in RestoreInput) (RestoreOutcome, error) {
	var out RestoreOutcome
	p, err := progress.Start(ctx, progress.Operation{
		Kind: operation.Restore, Subject: in.Target(), StartedBy: in.StartedBy, Input: in,
		Summary: "Waiting to restore backup " + in.Backup,
	})
	if err != nil {
		return out, p.EndFailed(err, nil)
	}
	r := &restore{Progress: p, work: activities.RestoreWork{RestoreID: p.ID(), Request: in.RestoreRequest}, out: &out}
	if err := r.run(ctx); err != nil {
		return out, p.EndFailed(err, out)
	}
	return out, p.End(operation.Succeeded, out.sentence(in.RestoreRequest), out)
}

// restore is one restore under way.
type restore struct {
	*progress.Progress
	work activities.RestoreWork
	out  *RestoreOutcome
}

func (r *restore) run(ctx workflow.Context) error {
	// 1. Find the backup by what lies in storage.
	r.Step("Find backup " + r.work.Request.Backup)
	if err := r.do(ctx, findOptions, acts.FindBackup, r.work.Request, &r.work.Found); err != nil {
		return err
	}
	found := r.work.Found
	r.out.Backup = &found
	r.Done(describe(found))
	r.Say(operation.Running, "Found backup "+found.ID, r.out) // from here on, retention keeps it

	// 2. Read it through with the key, and look at the server: what cannot be restored is refused here.
	r.Step("Read the backup through, and look where it is to go")
	if err := r.do(ctx, restoreOptions, acts.CheckRestore, r.work, nil); err != nil {
		return err
	}

	// 3. Before a database is replaced, back it up as it is now.
	if r.work.Request.InPlaceOf != "" {
		if err := r.safety(ctx); err != nil {
			return err
		}
	}

	// 4. Restore into a database that nobody uses, prove it, and only then give it a name that somebody does.
	err := r.prove(ctx)
	if err == nil {
		err = r.put(ctx)
	}
	if err == nil && r.work.Request.Table == "" {
		return nil
	}
	// 5. What has failed, or has served as the source of a table, goes away.
	return r.drop(ctx, err)
}

func (r *restore) safety(ctx workflow.Context) error {
	database := r.work.Request.InPlaceOf
	if r.work.Request.NoSafetyBackup {
		r.Step("See that " + database + " cannot be backed up")
		if err := r.do(ctx, dumpOptions, acts.ProveUnreadable, r.work, &r.out.Unreadable); err != nil {
			return err
		}
		r.Done(r.out.Unreadable)
		return nil
	}
	r.Step("Back up " + database + " as it is now")
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: SafetyWorkflowID(database, r.ID()), WaitForCancellation: true,
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		StaticSummary:     "Safety backup of " + database + " before restore " + r.ID(),
	})
	future := workflow.ExecuteChildWorkflow(child, Backup, Input{Database: database, StartedBy: "restore " + r.ID()})
	var started workflow.Execution
	err := future.GetChildWorkflowExecution().Get(ctx, &started)
	if err == nil {
		err = future.Get(ctx, nil) // an error unless it ends verified
	}
	if err == nil {
		r.out.SafetyBackup = operation.ID(started.ID, started.RunID)
		r.Done("backup " + r.out.SafetyBackup + " is verified")
		return nil
	}
	if temporal.IsCanceledError(err) {
		return err
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("the safety backup of %s failed, so nothing was changed: %s; where the "+
		"database is damaged, restore with --no-safety-backup and a --reason", database, progress.Reason(err)), SafetyType, err)
}

// prove restores into the database beside, and compares.
func (r *restore) prove(ctx workflow.Context) error {
	beside := backup.BesideName(r.work.Found.Database, r.ID())
	what := "the backup"
	if r.work.Request.Table != "" {
		what = r.work.Request.Table
	}
	r.Step("Restore " + what + " into " + beside)
	began := workflow.Now(ctx)
	if err := r.do(ctx, restoreOptions, acts.RestoreBeside, r.work, &r.work.OID); err != nil {
		return err
	}
	r.out.RestoreSeconds = workflow.Now(ctx).Sub(began).Seconds()

	r.Step("Compare what came back with what was backed up")
	began = workflow.Now(ctx)
	var compared activities.Compared
	if err := r.do(ctx, restoreOptions, acts.CompareBeside, r.work, &compared); err != nil {
		return err
	}
	r.out.CompareSeconds = workflow.Now(ctx).Sub(began).Seconds()
	r.out.Tables, r.out.Rows = compared.Tables, compared.Rows
	r.Done(fmt.Sprintf("%d tables, %d rows", compared.Tables, compared.Rows))
	return nil
}

// put gives the proven database its final name, or copies the table.
func (r *restore) put(ctx workflow.Context) error {
	request := r.work.Request
	var put activities.Put
	switch {
	case request.Table != "":
		r.Step("Copy the table beside the one in " + r.work.Found.Database)
		if err := r.do(ctx, restoreOptions, acts.CopyTable, r.work, &put); err != nil {
			return err
		}
	case request.InPlaceOf != "":
		if r.out.Unreadable == "" {
			r.Step("See what " + request.InPlaceOf + " knows and the backup does not")
			var after backup.Aftermath
			if err := r.do(ctx, restoreOptions, acts.Reconcile, r.work, &after); err != nil {
				return err
			}
			r.out.Aftermath = &after
		}
		r.Step("Put the restored database in the place of " + request.InPlaceOf)
		if err := r.do(ctx, putOptions, acts.PutRestored, r.work, &put); err != nil {
			return err
		}
		r.Done(fmt.Sprintf("nobody could connect for %.2f s", put.WindowSeconds))
	default:
		r.Step("Call the restored database " + request.Into)
		if err := r.do(ctx, putOptions, acts.PutRestored, r.work, &put); err != nil {
			return err
		}
	}
	r.is(put)
	return nil
}

// is notes where the restored data is, and what is left to do.
func (r *restore) is(put activities.Put) {
	r.out.Put = &put
	r.out.ToDo = toDo(r.work, r.out)
}

// drop removes the database that the restore worked in, also when the restore was cancelled. Where it turns out that the
// restored database has its final name, the restore has succeeded after all.
func (r *restore) drop(ctx workflow.Context, cause error) error {
	beside := backup.BesideName(r.work.Found.Database, r.ID())
	if cause != nil {
		r.Fail(progress.Reason(cause))
	}
	r.Step("Drop " + beside)
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var done *activities.Put
	switch err := r.do(ctx, dropOptions, acts.DropBeside, r.work, &done); {
	case err != nil:
		r.out.Left = beside
		r.out.ToDo = append(r.out.ToDo, "Drop the database "+beside+", which this restore could not drop: "+progress.Reason(err)+
			". The next restore of "+r.work.Found.Database+" tries again.")
		r.Fail(progress.Reason(err))
	case done != nil:
		r.Done("the restored database has its name already: " + done.Name)
		r.is(*done)
		return nil
	default:
		r.Done("it is gone")
	}
	return cause
}

// do runs an activity.
func (r *restore) do(ctx workflow.Context, options workflow.ActivityOptions, activity, in, result any) error {
	options.Summary = strings.ToLower(r.Record().Summary[:1]) + r.Record().Summary[1:]
	return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, in).Get(ctx, result)
}

func describe(f activities.Found) string {
	proven := "never proven by a drill"
	if f.VerifiedAt != nil {
		proven = "proven " + f.VerifiedAt.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s as of %s, %s, %s", f.Database, f.TakenAt.UTC().Format(time.RFC3339), backup.Size(f.Bytes), proven)
}

// toDo is what a restore that is done leaves to the operator.
func toDo(work activities.RestoreWork, out *RestoreOutcome) []string {
	var all []string
	put, database := out.Put, work.Found.Database
	if put.Before != "" {
		all = append(all, fmt.Sprintf("The database as it was is kept as %s. When nobody misses anything, drop it: %s", put.Before, put.DropCommand))
	}
	if work.Request.Table != "" {
		all = append(all, fmt.Sprintf("When you have taken from %s what you need, drop it, for it holds what may have been erased since, and every "+
			"backup of %s holds it too: %s", put.Name, database, put.DropCommand))
	}
	a := out.Aftermath
	if a == nil {
		if strings.HasPrefix(database, "student_db") {
			all = append(all, "Students that were erased after "+work.Found.TakenAt.UTC().Format(time.RFC3339)+" are in what was restored: erase "+
				"them again where it is used (sms student erase)")
		}
		return all
	}
	if a.Students > 0 {
		all = append(all, fmt.Sprintf("%d students who had been erased are back: %s. Erase them again (sms student erase ID); why they were "+
			"erased stands in the table student_erasure of %s", a.Students, someOf(a.Erased, a.Students), put.Before))
	}
	if a.SchemaServing != a.SchemaRestored {
		all = append(all, fmt.Sprintf("The restored tables are those of migration %d, the services expect %d: restart the platform (sms down, sms up), "+
			"which migrates them", a.SchemaRestored, a.SchemaServing))
	}
	return all
}

func someOf(ids []string, all int) string {
	list := strings.Join(ids, ", ")
	if more := all - len(ids); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// sentence is how the restore ended.
func (out RestoreOutcome) sentence(request activities.RestoreRequest) string {
	var s string
	switch put := out.Put; {
	case request.Table != "":
		s = fmt.Sprintf("%s as of %s is in %s as %s: %d rows, as they were backed up.", request.Table,
			out.Backup.TakenAt.UTC().Format(time.RFC3339), out.Backup.Database, put.Name, out.Rows)
	default:
		s = fmt.Sprintf("%s is %s as of %s: %d tables, %d rows, as they were backed up, restored in %.1f s.", put.Name, out.Backup.Database,
			out.Backup.TakenAt.UTC().Format(time.RFC3339), out.Tables, out.Rows, out.RestoreSeconds)
	}
	if n := len(out.ToDo); n > 0 {
		s += fmt.Sprintf(" Left to do by you: %d, see toDo.", n)
	}
	return s
}

// Target is what is restored into: a database, or the table that is restored beside another.
func (in RestoreInput) Target() string {
	switch {
	case in.InPlaceOf != "":
		return in.InPlaceOf
	case in.Into != "":
		return in.Into
	}
	return in.Table
}

// RestoreWorkflowID is the id of a restore: one at a time into a database, or of a table from a backup.
func RestoreWorkflowID(in RestoreInput) string {
	if in.Table != "" {
		return "restore/" + in.Backup + "/" + in.Table
	}
	return "restore/" + in.Target()
}

// SafetyWorkflowID is the id of the backup that an in-place restore makes first.
func SafetyWorkflowID(database, restoreID string) string {
	return "backup/" + database + "/before-restore-" + restoreID
}
