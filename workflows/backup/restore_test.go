package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	operations "github.com/school-sms/sms/activities/operation"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/backup"
)

// restoreScript says how the activities of a restore end; nil means well.
type restoreScript struct {
	find, check, safety, unreadable, restore, compare, reconcile, put, copied, drop error
	// settled is what is found where the database should be dropped.
	settled *activities.Put
	after   engine.Aftermath
	// duringRestore runs within the restore.
	duringRestore func(context.Context) error
}

var (
	taken = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	put   = activities.Put{Name: "student_db", Before: "student_db_before_x", DropCommand: "psql -c 'drop database student_db_before_x'", WindowSeconds: 0.12}
)

// restoreLedger keeps what was done and recorded.
type restoreLedger struct {
	mu   sync.Mutex
	last operation.Record
	did  []string
}

func (l *restoreLedger) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.did = append(l.did, what)
}

func restoreEnvironment(t *testing.T, s restoreScript) (*testsuite.TestWorkflowEnvironment, *restoreLedger) {
	t.Helper()
	env := temporaltest.Workflow()
	env.SetWorkerOptions(worker.Options{WorkflowPanicPolicy: worker.FailWorkflow})
	env.SetTestTimeout(time.Minute)
	env.RegisterWorkflow(backup.Restore)
	env.RegisterWorkflow(backup.Backup)
	env.RegisterActivity(&activities.Activities{})
	env.RegisterActivity(&operations.Activities{})
	l := &restoreLedger{}
	record := func(_ context.Context, r operation.Record) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if r.Revision > l.last.Revision {
			l.last = r
		}
		return nil
	}
	env.OnActivity("BeginOperation", mock.Anything, mock.Anything).Return(record)
	env.OnActivity("RecordOperation", mock.Anything, mock.Anything).Return(record)
	env.OnWorkflow(backup.Backup, mock.Anything, mock.Anything).Return(func(workflow.Context, backup.Input) (backup.Outcome, error) {
		l.note("safety")
		return backup.Outcome{}, s.safety
	})
	env.OnActivity("FindBackup", mock.Anything, mock.Anything).Return(activities.Found{ID: "bbbbbbbbbb", Database: "student_db", TakenAt: taken, Bytes: 95_000_000, Tables: 11, Rows: 5000}, s.find)
	env.OnActivity("CheckRestore", mock.Anything, mock.Anything).Return(s.check)
	env.OnActivity("ProveUnreadable", mock.Anything, mock.Anything).Return("connection refused", s.unreadable)
	env.OnActivity("RestoreBeside", mock.Anything, mock.Anything).Return(func(ctx context.Context, _ activities.RestoreWork) (uint32, error) {
		l.note("restore")
		if s.duringRestore != nil {
			return 0, s.duringRestore(ctx)
		}
		return 4711, s.restore
	})
	env.OnActivity("CompareBeside", mock.Anything, mock.Anything).Return(activities.Compared{Tables: 11, Rows: 5000}, s.compare)
	env.OnActivity("Reconcile", mock.Anything, mock.Anything).Return(s.after, s.reconcile)
	env.OnActivity("PutRestored", mock.Anything, mock.Anything).Return(func(_ context.Context, w activities.RestoreWork) (activities.Put, error) {
		l.note("put")
		if w.OID != 4711 {
			t.Errorf("put %d", w.OID)
		}
		return put, s.put
	})
	env.OnActivity("CopyTable", mock.Anything, mock.Anything).Return(activities.Put{Name: "public.student_restored_x", DropCommand: "psql …"}, s.copied)
	env.OnActivity("DropBeside", mock.Anything, mock.Anything).Return(func(context.Context, activities.RestoreWork) (*activities.Put, error) {
		l.note("drop")
		return s.settled, s.drop
	})
	return env, l
}

func TestARestoreEndsInOneOfTwoTruthfulStates(t *testing.T) {
	t.Parallel()
	inPlace := activities.RestoreRequest{Backup: "bbbbbbbbbb", InPlaceOf: "student_db"}
	unsafe := activities.RestoreRequest{Backup: "bbbbbbbbbb", InPlaceOf: "student_db", NoSafetyBackup: true, Reason: "disk broken"}
	table := activities.RestoreRequest{Backup: "bbbbbbbbbb", Table: "public.student"}
	for name, test := range map[string]struct {
		restoreScript
		request        activities.RestoreRequest
		state, summary string
		did            string
		toDo           string
	}{
		"into": {restoreScript{}, activities.RestoreRequest{Backup: "bbbbbbbbbb", Into: "monday"}, operation.Succeeded, "11 tables, 5000 rows, as they were backed up", "restore put", "erase them again"},
		"in place": {restoreScript{after: engine.Aftermath{Students: 3, Erased: []string{"STU-2026-00001", "STU-2026-00002"}, SchemaServing: 6, SchemaRestored: 5}}, inPlace,
			operation.Succeeded, "student_db is student_db as of 2026-11-23T02:00:00Z", "safety restore put",
			"3 students who had been erased are back: STU-2026-00001, STU-2026-00002 and 1 more|migration 5, the services expect 6|drop database student_db_before_x"},
		"a table":            {restoreScript{}, table, operation.Succeeded, "public.student_restored_x", "restore drop", "drop it"},
		"no such backup":     {restoreScript{find: final(activities.NotFoundType, "there is no backup")}, inPlace, operation.Failed, "There is no backup.", "", ""},
		"wrong key":          {restoreScript{check: final(activities.WrongKeyType, "wrong key")}, inPlace, operation.Failed, "Wrong key.", "", ""},
		"safety fails":       {restoreScript{safety: final(activities.DiskFullType, "disk full")}, inPlace, operation.Failed, "The safety backup of student_db failed, so nothing was changed: disk full", "safety", ""},
		"unreadable":         {restoreScript{}, unsafe, operation.Succeeded, "student_db", "restore put", "erase them again"},
		"readable":           {restoreScript{unreadable: final(activities.SetupType, "student_db can be read")}, unsafe, operation.Failed, "Student_db can be read.", "", ""},
		"restore fails":      {restoreScript{restore: final(activities.RejectedType, "cannot be restored")}, inPlace, operation.Failed, "Cannot be restored.", "safety restore drop", ""},
		"it differs":         {restoreScript{compare: final(activities.DifferentType, "a row is missing")}, inPlace, operation.Failed, "A row is missing.", "safety restore drop", ""},
		"nothing to compare": {restoreScript{reconcile: final(activities.SetupType, "permission denied")}, inPlace, operation.Failed, "Permission denied.", "safety restore drop", ""},
		"name taken":         {restoreScript{put: final(activities.TakenType, "there is a database")}, inPlace, operation.Failed, "There is a database.", "safety restore put drop", ""},
		"swapped unheard":    {restoreScript{put: final(activities.SetupType, "connection lost"), settled: &put}, inPlace, operation.Succeeded, "student_db is student_db", "safety restore put drop", "student_db_before_x"},
		"not dropped":        {restoreScript{compare: final(activities.DifferentType, "a row is missing"), drop: final(activities.SetupType, "in use")}, inPlace, operation.Failed, "A row is missing.", "safety restore drop", "could not drop: in use"},
		"table not copied":   {restoreScript{copied: errors.New("disk full")}, table, operation.Failed, "Disk full.", "restore drop", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, l := restoreEnvironment(t, test.restoreScript)
			env.ExecuteWorkflow(backup.Restore, backup.RestoreInput{RestoreRequest: test.request, StartedBy: "meera"})
			if !env.IsWorkflowCompleted() || (env.GetWorkflowError() == nil) != (test.state == operation.Succeeded) {
				t.Fatalf("completed %v, error %v", env.IsWorkflowCompleted(), env.GetWorkflowError())
			}
			if l.last.State != test.state || !strings.Contains(l.last.Summary, test.summary) || l.last.EndedAt == nil {
				t.Errorf("ended %s: %s, want %s: %s", l.last.State, l.last.Summary, test.state, test.summary)
			}
			if did := strings.Join(l.did, " "); did != test.did {
				t.Errorf("did %q, want %q", did, test.did)
			}
			var result operation.Result
			var out backup.RestoreOutcome
			if err := errors.Join(json.Unmarshal(l.last.Result, &result)); err != nil {
				t.Fatal(err)
			}
			if len(result.Outcome) > 0 {
				if err := json.Unmarshal(result.Outcome, &out); err != nil {
					t.Fatal(err)
				}
			}
			said := strings.Join(out.ToDo, "\n")
			for part := range strings.SplitSeq(test.toDo, "|") {
				if !strings.Contains(said, part) {
					t.Errorf("to do %q does not say %q", said, part)
				}
			}
			if (out.Put != nil) != (test.state == operation.Succeeded) || (out.Left != "") != (test.drop != nil) {
				t.Errorf("outcome %+v", out)
			}
		})
	}
}

func TestACancelledRestoreDropsWhatItHasMade(t *testing.T) {
	t.Parallel()
	var env *testsuite.TestWorkflowEnvironment
	env, l := restoreEnvironment(t, restoreScript{duringRestore: func(ctx context.Context) error {
		env.CancelWorkflow()
		<-ctx.Done()
		return ctx.Err()
	}})
	env.ExecuteWorkflow(backup.Restore, backup.RestoreInput{RestoreRequest: activities.RestoreRequest{Backup: "bbbbbbbbbb", Into: "monday"}})
	if l.last.State != operation.Cancelled || strings.Join(l.did, " ") != "restore drop" {
		t.Errorf("%s: %s, did %v", l.last.State, l.last.Summary, l.did)
	}
}
