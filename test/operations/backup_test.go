package operations

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/workflows/backup"
)

const backups = "/api/v1/ops/backups"

// hold keeps a table locked, so that a dump waits for it, until release.
func hold(t *testing.T, database string) (release func()) {
	t.Helper()
	cluster, password := pgtest.Cluster(t)
	conn, err := cluster.Connect(context.Background(), password, database)
	must(t, err)
	tx, err := conn.BeginTx(context.Background(), pgx.TxOptions{})
	must(t, err)
	_, err = tx.Exec(context.Background(), "lock table student in access exclusive mode")
	must(t, err)
	return func() { _ = conn.Close(context.Background()) }
}

// dumping waits until pg_dump of a database waits for the lock, and returns its process.
func dumping(t *testing.T, database string) (pid int) {
	t.Helper()
	const waiting = `select count(*) from pg_stat_activity where datname = $1 and application_name = 'pg_dump' and wait_event_type = 'Lock'`
	eventually(t, func() bool { return backuptest.Number(t, waiting, database) > 0 }, func() string { return "no dump that waits" })
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, dir := range dirs {
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if strings.Contains(string(command), "pg_dump") && strings.Contains(string(command), "/"+database) {
			pid, _ = strconv.Atoi(filepath.Base(dir))
		}
	}
	return pid
}

// start starts a backup, not in the second in which the one before began: that one has the workflow's id.
func (p *platform) start() (o ops.Operation) {
	p.t.Helper()
	var said string
	eventually(p.t, func() bool {
		code, body := p.call(identity.Operator, http.MethodPost, backups, map[string]string{"database": p.source.Database}, &o)
		said = body
		return code == http.StatusAccepted
	}, func() string { return "no backup begins: " + said })
	return o
}

// verified demands that a backup ended well, with one archive and no scratch database left.
func (p *platform) verified(o ops.Operation) ops.Operation {
	p.t.Helper()
	o = p.until(backups+"/"+o.ID, ended)
	if o.State != backup.StateVerified || len(p.archives()) != 1 || p.scratches() != 0 {
		p.t.Errorf("%s: %s, archives %v, %d scratch databases", o.State, o.Summary, p.archives(), p.scratches())
	}
	return o
}

func TestABackupIsVerifiedAndVerifiedAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 500)
	made := p.verified(p.start())
	p.keepHistory(made, "backup/testdata/backup-verified.json")
	if len(made.Steps) != 4 || made.StartedBy != "meera" {
		t.Errorf("%+v", made)
	}
	var page ops.Page
	if code, body := p.call(identity.Viewer, http.MethodGet, backups+"?size=5", nil, &page); code != 200 || page.TotalElements != 1 || page.Content[0].ID != made.ID {
		t.Errorf("list: %d %s", code, body)
	}

	var outcome backup.Outcome
	must(t, json.Unmarshal(made.Outcome, &outcome))
	dead := "drill_" + p.source.Database + "_" + outcome.Drill.DrillID // as a worker leaves it that dies before it drops it
	backuptest.Exec(t, "postgres", "create database "+dead+" owner "+engine.RestoreRole)
	again := p.until(backups+"/"+p.begin(backups+"/"+made.ID[:5]+"/verify", nil).ID, ended)
	if again.State != operation.Succeeded || again.Kind != string(operation.RestoreDrill) {
		t.Errorf("verified again: %s: %s", again.State, again.Summary)
	}
	if n := p.scratches(); n != 0 {
		t.Errorf("%d scratch databases left", n)
	}
	p.keepHistory(again, "backup/testdata/drill-succeeded.json")

	archive := p.archives()[0]
	content, err := os.ReadFile(archive)
	must(t, err)
	content[len(content)/2] ^= 4
	must(t, os.WriteFile(archive, content, 0o600))
	damaged := p.until(backups+"/"+p.begin(backups+"/"+made.ID+"/verify", nil).ID, ended)
	contains(t, damaged.Summary, "SHA-256")
	p.keepHistory(damaged, "backup/testdata/drill-failed.json")
	if now := p.until(backups+"/"+made.ID, ended); now.State != operation.Failed {
		t.Errorf("a damaged backup is shown as %s: %s", now.State, now.Summary)
	}
}

func TestOneBackupOfADatabaseAtATime(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 10)
	release := hold(t, p.source.Database)
	defer release()
	first := p.start()
	code, body := p.call(identity.Admin, http.MethodPost, backups, map[string]string{"database": p.source.Database}, nil)
	if code != http.StatusConflict {
		t.Errorf("a second backup: %d, want a conflict", code)
	}
	contains(t, body, first.ID, "meera")
	if code, body := p.call(identity.Operator, http.MethodPost, backups+"/"+first.ID+"/verify", nil, nil); code != http.StatusConflict {
		t.Errorf("verify while it runs: %d %s", code, body)
	}
	dumping(t, p.source.Database)
	live := p.until(backups+"/"+first.ID, func(o ops.Operation) bool { return o.Activity != nil && len(o.Steps) == 2 })
	if live.Activity.Name != "DumpDatabase" || live.State != operation.Running {
		t.Errorf("while it runs: %+v %+v", live, live.Activity)
	}
	release()
	p.verified(first)
	if code, body := p.call(identity.Operator, http.MethodPost, backups, map[string]string{"database": "moon"}, nil); code != 422 || !strings.Contains(body, p.source.Database) {
		t.Errorf("unknown database: %d %s", code, body)
	}
}

// TestOneOfManySimultaneousStartsRuns starts backups of one database at the same moment: one runs, the others are told which.
func TestOneOfManySimultaneousStartsRuns(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 10)
	release := hold(t, p.source.Database)
	defer release()
	const starts = 10
	var mu sync.Mutex
	var accepted []ops.Operation
	var refused []string
	var ready, all sync.WaitGroup
	ready.Add(starts)
	for range starts {
		all.Go(func() {
			ready.Done()
			ready.Wait()
			var o ops.Operation
			code, body := p.call(identity.Operator, http.MethodPost, backups, map[string]string{"database": p.source.Database}, &o)
			mu.Lock()
			defer mu.Unlock()
			switch code {
			case http.StatusAccepted:
				accepted = append(accepted, o)
			case http.StatusConflict, http.StatusServiceUnavailable: // a machine may be too busy for ten at once
				refused = append(refused, body)
			default:
				t.Errorf("%d %s", code, body)
			}
		})
	}
	all.Wait()
	if len(accepted) != 1 || len(refused) != starts-1 {
		t.Fatalf("%d accepted, %d refused: %v", len(accepted), len(refused), refused)
	}
	dumping(t, p.source.Database)
	release()
	p.verified(accepted[0])
	var page ops.Page
	if code, body := p.call(identity.Viewer, http.MethodGet, backups, nil, &page); code != http.StatusOK || page.TotalElements != 1 {
		t.Errorf("list: %d %s", code, body)
	}
}

func TestABackupSurvivesTheDeathOfItsDump(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 200)
	release := hold(t, p.source.Database)
	defer release()
	o := p.start()
	must(t, syscall.Kill(dumping(t, p.source.Database), syscall.SIGKILL))
	retried := p.until(backups+"/"+o.ID, func(o ops.Operation) bool { return o.Activity != nil && o.Activity.Attempt > 1 })
	contains(t, retried.Activity.LastFailure, "killed")
	release()
	p.keepHistory(p.verified(o), "backup/testdata/backup-retried.json")
}

func TestABackupSurvivesTheDeathOfItsWorker(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 200)
	release := hold(t, p.source.Database)
	defer release()
	o := p.start()
	pid := dumping(t, p.source.Database)
	p.killWorker()
	eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, func() string { return "pg_dump outlives its worker" })
	p.startWorker()
	release()
	p.verified(o)
	if left, _ := filepath.Glob(filepath.Join(p.dir, p.source.Database, ".*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestACancelledBackupLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 10)
	release := hold(t, p.source.Database)
	defer release()
	o := p.start()
	pid := dumping(t, p.source.Database)
	must(t, p.client.CancelWorkflow(context.Background(), o.WorkflowID, o.RunID))
	o = p.until(backups+"/"+o.ID, ended)
	if o.State != operation.Cancelled || syscall.Kill(pid, 0) == nil || len(p.archives()) != 0 {
		t.Errorf("%s: %s, archives %v", o.State, o.Summary, p.archives())
	}
	p.keepHistory(o, "backup/testdata/backup-cancelled.json")
}

func TestATerminatedBackupGivesItsLockUp(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 10)
	release := hold(t, p.source.Database)
	defer release()
	o := p.start()
	pid := dumping(t, p.source.Database)
	must(t, p.client.TerminateWorkflow(context.Background(), o.WorkflowID, o.RunID, "test"))
	o = p.until(backups+"/"+o.ID, ended)
	if o.State != operation.Failed {
		t.Errorf("%s: %s", o.State, o.Summary)
	}
	eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, func() string { return "pg_dump outlives its workflow" })
	release()
	eventually(t, func() bool {
		code, _ := p.call(identity.Operator, http.MethodPost, backups, map[string]string{"database": p.source.Database}, &o)
		return code == http.StatusAccepted
	}, func() string { return "no second start" })
	p.verified(o)
}

func TestABackupThatCannotBeSaysWhy(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	backuptest.Exec(t, "postgres", "revoke connect on database "+p.source.Database+" from public")
	o := p.until(backups+"/"+p.start().ID, ended)
	if o.State != operation.Failed || len(p.archives()) != 0 {
		t.Errorf("%s: %s", o.State, o.Summary)
	}
	contains(t, o.Summary, "permission denied for database")
	p.keepHistory(o, "backup/testdata/backup-failed.json")
}

func TestReadingWhileTemporalIsAway(t *testing.T) {
	t.Parallel()
	p := newPlatformWithoutTemporal(t)
	code, body := p.call(identity.Operator, http.MethodPost, backups, map[string]string{"database": "student_db"}, nil)
	if code != http.StatusServiceUnavailable {
		t.Errorf("a start: %d %s, want unavailable", code, body)
	}
	if code, body := p.call(identity.Viewer, http.MethodGet, backups, nil, nil); code != http.StatusOK {
		t.Errorf("the list: %d %s", code, body)
	}
	if code, body := p.call(identity.Viewer, http.MethodGet, "/api/v1/ops/schedules", nil, nil); code != http.StatusServiceUnavailable {
		t.Errorf("schedules: %d %s", code, body)
	}
}

func TestTemporalsOwnDatabasesAreProvenToo(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	p.verified(p.start()) // so that there is something in them
	// Here they belong to the superuser, under `sms up` to a role of their own.
	backuptest.Exec(t, "postgres", "grant postgres to "+engine.RestoreRole)
	store, err := storage.NewDirectory(t.TempDir())
	must(t, err)
	tools := engine.Tools{Keys: backuptest.Keys(t)}
	for _, database := range []string{"temporal", "temporal_visibility"} {
		source := engine.Source{Database: database, URL: strings.Replace(p.source.URL, "/"+p.source.Database, "/"+database, 1)}
		m, err := tools.Save(t.Context(), store, engine.Request{ID: "aaaaaaaaaa", Source: source, Started: time.Now()}, &engine.Meter{})
		must(t, err)
		scratch := engine.ScratchName(database, "d000000001")
		found, err := tools.Prove(t.Context(), store, m, source, scratch, &engine.Meter{})
		must(t, err)
		if len(found.Differences) > 0 || found.Rows == 0 {
			t.Errorf("%s: %d rows, differences %v", database, found.Rows, found.Differences)
		}
		must(t, engine.DropScratch(t.Context(), source, scratch))
	}
}
