package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	activities "github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

func retentionIn(t *testing.T, state string, out backup.RetentionOutcome) ops.Operation {
	t.Helper()
	raw, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	o := backupIn(state, "1 kept, 2 deleted.", true)
	o.Kind, o.Outcome = string(operation.Retention), raw
	return o
}

func TestPruneShowsEveryReason(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	verdicts := []engine.Verdict{
		{BackupID: "aaa", Database: "student_db", Base: "a", StartedAt: at, State: "verified", Bytes: 5e6, Reason: "older than 30 days"},
		{BackupID: "bbb", Database: "student_db", Base: "b", StartedAt: at, State: "verified", Bytes: 5e6, Reason: "older than 31 days"},
		{BackupID: "ccc", Database: "student_db", Base: "c", StartedAt: at, State: "verified", Bytes: 5e6, Keep: true, Reason: "daily: younger than 30 days"},
	}
	planned := backup.RetentionOutcome{Do: backup.DryRun, Storages: []activities.StoragePlan{{Storage: "storage", Verdicts: verdicts}}}
	started := ops.Started{Content: []ops.Operation{backupIn("running", "", false)}}
	answers := func(o ops.Operation) []func(http.ResponseWriter) {
		return []func(http.ResponseWriter){status(http.StatusAccepted, started), status(http.StatusOK, o)}
	}
	out, _, err := run(t, answers(retentionIn(t, operation.Succeeded, planned)), "backup", "prune", "--dry-run")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"DATABASE    STORAGE  BACKUP  STARTED               STATE     SIZE            WHY",
		"student_db  storage  aaa     2026-11-23T02:00:00Z  verified  5.0 MB  delete  older than 30 days",
		"student_db  storage  bbb     2026-11-23T02:00:00Z  verified  5.0 MB  delete  older than 31 days",
		"student_db  storage  ccc     2026-11-23T02:00:00Z  verified  5.0 MB  keep    daily: younger than 30 days",
	}
	for i, line := range strings.Split(out, "\n") {
		if i < len(want) && line != want[i] {
			t.Errorf("line %d: %q, want %q", i, line, want[i])
		}
	}

	done := planned
	done.Do, done.Deletions = backup.Prune, []activities.Deletion{{Storage: "storage", BackupID: "aaa", Base: "a", Objects: 4},
		{Storage: "storage", BackupID: "bbb", Base: "b", Left: []string{"b.dump.zst"}, Why: "permission denied"}}
	out, _, err = run(t, answers(retentionIn(t, operation.Failed, done)), "backup", "prune", "student_db", "--wait", "-o", "json")
	var answer ops.Started
	if err == nil || json.Unmarshal([]byte(out), &answer) != nil || len(answer.Content) != 1 || answer.Content[0].State != operation.Failed {
		t.Errorf("%v: %s", err, out)
	}
	out, _, err = run(t, answers(retentionIn(t, operation.Failed, done)), "backup", "prune", "student_db", "--wait")
	if err == nil || !strings.Contains(out, "5.0 MB  deleted  older than 30") || !strings.Contains(out, "5.0 MB  left     older than 31") {
		t.Errorf("%v:\n%s", err, out)
	}
	out, _, err = run(t, answers(backupIn("", "", true)), "backup", "rebuild")
	if err != nil || !strings.Contains(out, "is started") {
		t.Errorf("%v: %s", err, out)
	}
}
