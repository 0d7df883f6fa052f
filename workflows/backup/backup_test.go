package backup_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/backup"
	operations "github.com/school-sms/sms/activities/operation"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/backup"
	"github.com/school-sms/sms/workflows/progress"
)

var stored = activities.Stored{Archive: "student_db/x.dump.zst.age", Bytes: 95_000_000, SHA256: strings.Repeat("ab", 32), Tables: 11, Rows: 5000}

// script says how the activities of a test end; nil means well.
type script struct {
	begin, ready, dump, copy, check, prove, record, drop error
	// second says that there is a second storage.
	second bool
	// during runs within the dump, or within the restore.
	duringDump, duringProof func(context.Context) error
}

func (s script) run(ctx context.Context, during func(context.Context) error, err error) error {
	if during != nil {
		return during(ctx)
	}
	return err
}

// ledger keeps what was recorded.
type ledger struct {
	mu      sync.Mutex
	records []operation.Record
	amended []operations.Amendment
	// proofs and disproofs are how many were stored.
	proofs, disproofs int
	dropped           int
	// retentions are those that a backup has set off.
	retentions int
}

// last is the final word on the operations of a kind.
func (l *ledger) last(kind operation.Kind) operation.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last operation.Record
	for _, r := range l.records {
		if r.Kind == kind && r.Revision > last.Revision {
			last = r
		}
	}
	return last
}

func newEnvironment(t *testing.T, s script) (*testsuite.TestWorkflowEnvironment, *ledger) {
	t.Helper()
	env := temporaltest.Workflow()
	env.SetWorkerOptions(worker.Options{WorkflowPanicPolicy: worker.FailWorkflow})
	env.SetTestTimeout(time.Minute)
	env.RegisterWorkflow(backup.Backup)
	env.RegisterWorkflow(backup.RestoreDrill)
	env.RegisterWorkflow(backup.Retention)
	env.RegisterActivity(&activities.Activities{})
	env.RegisterActivity(&operations.Activities{})
	l := &ledger{}
	env.OnWorkflow("Retention", mock.Anything, mock.Anything).Return(func(_ workflow.Context, in backup.RetentionInput) (backup.RetentionOutcome, error) {
		if in.Do == backup.Prune && in.Database == "student_db" {
			l.retentions++
		}
		return backup.RetentionOutcome{}, nil
	}).Maybe()
	keep := func(_ context.Context, r operation.Record) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.records = append(l.records, r)
		return nil
	}
	env.OnActivity("BeginOperation", mock.Anything, mock.Anything).Return(func(ctx context.Context, r operation.Record) error {
		if s.begin != nil && r.Kind == operation.Backup {
			return s.begin
		}
		return keep(ctx, r)
	})
	env.OnActivity("RecordOperation", mock.Anything, mock.Anything).Return(keep)
	env.OnActivity("AmendOperation", mock.Anything, mock.Anything).Return(func(_ context.Context, a operations.Amendment) error {
		l.amended = append(l.amended, a)
		return nil
	})
	env.OnActivity("DumpDatabase", mock.Anything, mock.Anything).Return(func(ctx context.Context, _ activities.DumpInput) (activities.Stored, error) {
		return stored, s.run(ctx, s.duringDump, s.dump)
	})
	env.OnActivity("CheckArchive", mock.Anything, mock.Anything).Return(s.check)
	env.OnActivity("CheckReady", mock.Anything, mock.Anything).Return(s.ready)
	env.OnActivity("ProveArchive", mock.Anything, mock.Anything).Return(func(ctx context.Context, _ activities.DrillInput) (activities.Proven, error) {
		return activities.Proven{Tables: 11, Rows: 5000, RestoreSeconds: 7.2, CompareSeconds: 1.1}, s.run(ctx, s.duringProof, s.prove)
	})
	env.OnActivity("RecordProof", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.ProofInput) error {
		if s.record == nil && in.BackupID != "" && in.DrillID != "" && in.Rows == 5000 {
			l.proofs++
		}
		return s.record
	})
	env.OnActivity("RecordDisproof", mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.ProofInput) error {
		if in.BackupID != "" && in.DrillID != "" && in.Reason != "" {
			l.disproofs++
		}
		return nil
	})
	env.OnActivity("CopyBackup", mock.Anything, mock.Anything).Return(func(context.Context, activities.CopyInput) (activities.CopyResult, error) {
		return activities.CopyResult{Configured: s.second, Copied: engine.Copied{Backups: 1, Bytes: stored.Bytes}}, s.copy
	})
	env.OnActivity("DropScratch", mock.Anything, mock.Anything).Return(func(context.Context, activities.DrillInput) error {
		l.dropped++
		return s.drop
	})
	return env, l
}

func final(kind, message string) error {
	return temporal.NewNonRetryableApplicationError(message, kind, nil)
}

func TestABackupEndsVerifiedOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script
		state, summary string
		dropped        bool
	}{
		"all well": {script{}, backup.StateVerified, "95.0 MB, 11 tables, 5000 rows", true},
		"copied":   {script{second: true}, backup.StateVerified, "95.0 MB, 11 tables, 5000 rows, restored and compared in 7.2 s. Copied to the second storage.", true},
		"not copied": {script{copy: errors.New("the storage does not answer")}, backup.StateVerified,
			"95.0 MB, 11 tables, 5000 rows, restored and compared in 7.2 s. The second storage lacks backups: The storage does not answer.", true},
		"held":              {script{begin: final(operations.HeldType, "refused: backup abc of student_db has been running")}, operation.Failed, "Refused: backup abc", false},
		"not ready":         {script{ready: final(activities.NoKeyType, "no key: BACKUP_RECIPIENTS_FILE names no public key")}, operation.Failed, "No key: BACKUP_RECIPIENTS_FILE", false},
		"dump fails":        {script{dump: final(activities.DiskFullType, "the disk for backups is full")}, operation.Failed, "The disk for backups is full.", false},
		"dump never works":  {script{dump: errors.New("pg_dump: signal: killed")}, operation.Failed, "Pg_dump: signal: killed.", false},
		"archive damaged":   {script{check: final(activities.DamagedType, "the backup is damaged")}, operation.Failed, "The backup is damaged.", false},
		"restore rejected":  {script{prove: final(activities.RejectedType, "cannot be restored")}, operation.Failed, "Cannot be restored.", true},
		"rows are missing":  {script{prove: final(activities.DifferentType, "table x has 1 rows, 2 expected")}, operation.Failed, "Table x has 1 rows, 2 expected.", true},
		"scratch stays":     {script{drop: errors.New("is being accessed by other users")}, backup.StateVerified, "95.0 MB", true},
		"unknown database":  {script{dump: final(activities.UnknownDatabaseType, "not configured")}, operation.Failed, "Not configured.", false},
		"restore cannot be": {script{prove: errors.New("the server is away")}, operation.Failed, "The server is away.", true},
		"proof not stored":  {script{record: errors.New("the storage is away")}, operation.Failed, "The storage is away.", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, l := newEnvironment(t, test.script)
			env.ExecuteWorkflow(backup.Backup, backup.Input{Database: "student_db", StartedBy: "meera"})
			if !env.IsWorkflowCompleted() {
				t.Fatal("the workflow has not ended")
			}
			if err := env.GetWorkflowError(); (err == nil) != (test.state == backup.StateVerified) {
				t.Errorf("ended with %v", err)
			}
			last := l.last(operation.Backup)
			if last.State != test.state || !strings.HasPrefix(last.Summary, test.summary) || !last.Ended() {
				t.Errorf("recorded %s: %s, want %s: %s", last.State, last.Summary, test.state, test.summary)
			}
			if (l.dropped > 0) != test.dropped {
				t.Errorf("scratch database dropped %d times, want %t", l.dropped, test.dropped)
			}
			if want := test.state == backup.StateVerified; (l.proofs == 1) != want {
				t.Errorf("%d proofs were stored, want one: %t", l.proofs, want)
			}
			if want := activities.DisprovesBackup(errors.Join(test.check, test.prove)); (l.disproofs == 1) != want {
				t.Errorf("%d disproofs were stored, want one: %t", l.disproofs, want)
			}
			if want := test.state == backup.StateVerified; (l.retentions == 1) != want {
				t.Errorf("%d retentions were started, want one: %t", l.retentions, want)
			}
			if len(l.amended) != 0 {
				t.Errorf("the drill of a running backup amended it: %v", l.amended)
			}
			if drill := l.last(operation.RestoreDrill); drill.ID != "" && !drill.Ended() {
				t.Errorf("the drill's record has not ended: %+v", drill)
			}
		})
	}
}

func TestACancelledBackupSaysSoAndCleansUp(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"DumpDatabase", "ProveArchive"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			var env *testsuite.TestWorkflowEnvironment
			cancelled := func(ctx context.Context) error {
				env.CancelWorkflow()
				<-ctx.Done()
				return ctx.Err()
			}
			scripts := map[string]script{"DumpDatabase": {duringDump: cancelled}, "ProveArchive": {duringProof: cancelled}}
			var l *ledger
			env, l = newEnvironment(t, scripts[at])
			env.ExecuteWorkflow(backup.Backup, backup.Input{Database: "student_db", StartedBy: "meera"})
			if err := env.GetWorkflowError(); !temporal.IsCanceledError(errors.Unwrap(err)) && !temporal.IsCanceledError(err) {
				t.Errorf("ended with %v, want cancelled", err)
			}
			if last := l.last(operation.Backup); last.State != operation.Cancelled || !last.Ended() {
				t.Errorf("recorded %s: %s", last.State, last.Summary)
			}
			if at == "ProveArchive" && l.dropped == 0 {
				t.Error("the scratch database was not dropped")
			}
		})
	}
}

func TestADrillOfItsOwnCorrectsTheBackup(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script
		want string
	}{
		"still good":    {script{}, backup.StateVerified},
		"damaged since": {script{check: final(activities.DamagedType, "the backup is damaged")}, operation.Failed},
		"could not try": {script{prove: errors.New("the server is away")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, l := newEnvironment(t, test.script)
			env.ExecuteWorkflow(backup.RestoreDrill, backup.DrillInput{BackupID: "abc", Database: "student_db", Archive: stored.Archive, SHA256: stored.SHA256, StartedBy: "meera"})
			got := ""
			for _, a := range l.amended {
				got += a.State
			}
			if got != test.want {
				t.Errorf("amended %q, want %q (%v)", got, test.want, l.amended)
			}
		})
	}
}

func TestTheStatusQuerySaysWhereItStands(t *testing.T) {
	t.Parallel()
	var env *testsuite.TestWorkflowEnvironment
	var during operation.Record
	env, _ = newEnvironment(t, script{duringDump: func(context.Context) error {
		value, err := env.QueryWorkflow(progress.StatusQuery)
		if err != nil {
			return err
		}
		return value.Get(&during)
	}})
	env.ExecuteWorkflow(backup.Backup, backup.Input{Database: "student_db", StartedBy: "meera"})
	if during.State != operation.Running || during.Summary != "Dump student_db" || !strings.Contains(string(during.Result), `"running"`) {
		t.Errorf("during the dump: %+v %s", during, during.Result)
	}
}

func ExampleWorkflowID() {
	fmt.Println(backup.WorkflowID("student_db", time.Date(2026, 11, 23, 7, 30, 0, 0, time.FixedZone("IST", 19800))))
	// Output: backup/student_db/2026-11-23T02:00:00Z
}
