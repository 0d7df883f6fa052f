package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
)

func TestBackupListFitsATerminalAndSaysWhyEachIsKept(t *testing.T) {
	t.Parallel()
	row := func(id, database, state, outcome string, kept *ops.Kept) ops.Operation {
		return ops.Operation{ID: id, Kind: "backup", Subject: database, State: state, Outcome: json.RawMessage(outcome), Kept: kept,
			StartedAt: time.Now().Add(-27*time.Hour - time.Minute), Summary: "The disk for backups is full: write backups/configuration_db_staging: no space left on device."}
	}
	page := ops.Page{Paging: ops.Paging{Last: true}, Content: []ops.Operation{
		row("4g8k2m0x7c", "configuration_db_staging", "verified", `{"stored":{"bytes":95000000,"dumpBytes":399000000,"recipients":["9f3ac01d77aa8b21","x"]}}`, &ops.Kept{Keep: true, Reason: "daily: of the last 30 days"}),
		row("4g8k2m0x7d", "student_db", "failed", `{}`, nil),
		row("4g8k2m0x7e", "student_db", "stored", `{"stored":{"bytes":1,"dumpBytes":1}}`, &ops.Kept{Reason: "unproven"}),
	}}
	list := []func(http.ResponseWriter){status(200, page)}
	words := []string{"1d 3h", "95.0 MB", "4.2", "9f3ac01d +1", "none", "daily: of the last 30 days", "goes: unproven", "The disk for backups is"}
	says := func(out string, words ...string) {
		t.Helper()
		for _, part := range words {
			if !strings.Contains(out, part) {
				t.Errorf("no %q in\n%s", part, out)
			}
		}
	}

	const columns = 110
	term, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	if err := runTo(t, tty, io.Discard, list, "backup", "list"); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	drawn, _ := io.ReadAll(term) // a terminal that is closed at its other end ends with an error
	for line := range strings.Lines(string(drawn)) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > columns {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	says(string(drawn), append(words, "…")...)

	out, _, err := run(t, list, "backup", "list")
	if err != nil {
		t.Fatal(err)
	}
	says(out, append(words, page.Content[0].Summary)...) // nothing is cut for a program that reads it
}

func TestBackupStatusFailsWhileADatabaseIsOverdue(t *testing.T) {
	t.Parallel()
	good := ops.Recovery{Database: "ops_db", State: ops.InTime, Point: &ops.RecoveryPoint{BackupID: "4g8k2m0x7c", AgeSeconds: 3720, Bytes: 95e6},
		Time: &ops.RecoveryTime{Seconds: 9.52}, LastRun: &ops.BackupRun{State: "verified", StartedAt: time.Now().Add(-62 * time.Minute)}}
	bad := ops.Recovery{Database: "student_db", State: ops.Overdue, Summary: "no verified backup is on record"}
	answer := func(all ...ops.Recovery) []func(http.ResponseWriter) {
		return []func(http.ResponseWriter){status(200, map[string]any{"content": all})}
	}
	out, _, err := run(t, answer(good), "backup", "status")
	if err != nil {
		t.Error(err)
	}
	for _, words := range []string{"1h 2m ago", "9.5s", "95.0 MB", "4g8k2m0x7c", "1h 2m ago: verified"} {
		if !strings.Contains(out, words) {
			t.Errorf("no %q in\n%s", words, out)
		}
	}
	out, _, err = run(t, answer(good, bad), "backup", "status")
	if err == nil || !strings.Contains(err.Error(), "student_db: no verified backup is on record") || !strings.Contains(out, "none") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestBackupCancelWaitsForTheEnd(t *testing.T) {
	t.Parallel()
	next := []func(http.ResponseWriter){status(202, backupIn("running", "Dump student_db", false)), status(200, backupIn(operation.Cancelled, "Cancelled.", true))}
	out, _, err := run(t, next, "backup", "cancel", "abc", "--wait")
	if err != nil || !strings.Contains(out, "cancelled.") {
		t.Errorf("%v %s", err, out)
	}
	next[1] = status(200, backupIn("verified", "All well.", true))
	if _, _, err := run(t, next, "backup", "cancel", "abc", "--wait"); err == nil {
		t.Error("a backup that ended verified was not cancelled")
	}
}
