package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/workflows/backup"
)

const restores = "/api/v1/ops/restores"

type restoreBody = map[string]any

// restore starts a restore as an admin.
func (p *platform) restore(body restoreBody) ops.Operation {
	p.t.Helper()
	p.t.Cleanup(func() { p.dropRestored() })
	var o ops.Operation
	if code, said := p.call(identity.Admin, http.MethodPost, restores, body, &o); code != http.StatusAccepted {
		p.t.Fatalf("POST %s: %d %s", restores, code, said)
	}
	return o
}

func (p *platform) inPlace(id string) restoreBody {
	return restoreBody{"backup": id, "inPlace": true, "confirm": p.source.Database}
}

// restored demands that a restore ended well, and that nothing is left of its work.
func (p *platform) restored(o ops.Operation) (ops.Operation, backup.RestoreOutcome) {
	p.t.Helper()
	o = p.until(restores+"/"+o.ID, ended)
	out := restoreOutcome(p.t, o)
	if o.State != operation.Succeeded || out.Put == nil || out.Left != "" || p.besides() != 0 {
		p.t.Fatalf("%s: %s %s, %d databases left", o.State, o.Summary, o.Outcome, p.besides())
	}
	return o, out
}

func restoreOutcome(t *testing.T, o ops.Operation) (out backup.RestoreOutcome) {
	t.Helper()
	if len(o.Outcome) > 0 {
		must(t, json.Unmarshal(o.Outcome, &out))
	}
	return out
}

// besides are the databases that restores work in.
func (p *platform) besides() int {
	p.t.Helper()
	return backuptest.Number(p.t, `select count(*) from pg_database where starts_with(datname, $1)`, engine.BesideName(p.source.Database, ""))
}

// dropRestored drops every database that restores have made of the platform's.
func (p *platform) dropRestored() {
	conn := backuptest.Connect(p.t, "postgres")
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), `select datname from pg_database where starts_with(datname, $1)`, p.source.Database+"_")
	must(p.t, err)
	var names []string
	for rows.Next() {
		var name string
		must(p.t, rows.Scan(&name))
		names = append(names, name)
	}
	for _, name := range names {
		backuptest.Exec(p.t, "postgres", "drop database if exists "+name+" with (force)")
	}
}

// number reads a number from a database as the superuser.
func number(t *testing.T, database, query string) (n int) {
	t.Helper()
	conn := backuptest.Connect(t, database)
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %s: %v", database, query, err)
	}
	return n
}

const countStudents = "select count(*) from public.student"

func TestRestores(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 300)
	database := p.source.Database
	made := p.verified(p.start())
	backuptest.Exec(t, database, "delete from archive.event; delete from student where id > 100")

	// Into a new database, owned and reached as the one that was backed up.
	monday := database + "_monday"
	o, out := p.restored(p.restore(restoreBody{"backup": made.ID[:6], "into": monday}))
	p.keepHistory(o, "backup/testdata/restore-into.json")
	if number(t, monday, countStudents) != 300 || out.Put.Name != monday || out.Rows == 0 || out.RestoreSeconds <= 0 || o.Subject != monday {
		t.Errorf("%s %s", o.Summary, o.Outcome)
	}
	const rights = `select (pg_get_userbyid(datdba) = 'school_service' and has_database_privilege('sms_backup', oid, 'connect')
  and not exists (select from aclexplode(datacl) where grantee = 0))::int from pg_database where datname = current_database()`
	if number(t, monday, rights) != 1 {
		t.Error("the new database has another owner, or strangers may connect")
	}
	taken := p.until(restores+"/"+p.restore(restoreBody{"backup": made.ID, "into": monday}).ID, ended)
	contains(t, taken.Summary, "There is a database of this name already: "+monday)
	p.keepHistory(taken, "backup/testdata/restore-taken.json")

	// One table, beside the one that serves.
	o, out = p.restored(p.restore(restoreBody{"backup": made.ID, "table": "public.student"}))
	p.keepHistory(o, "backup/testdata/restore-table.json")
	if number(t, database, countStudents) != 100 || number(t, database, "select count(*) from "+out.Put.Name) != 300 {
		t.Errorf("%s %s", o.Summary, o.Outcome)
	}
	p.typed(out.Put.DropCommand)
	if number(t, database, "select count(*) from pg_class where relname like 'student_restored_%'") != 0 {
		t.Error("the command that is told does not drop the table")
	}
	o = p.until(restores+"/"+p.restore(restoreBody{"backup": made.ID, "table": "public.teacher"}).ID, ended)
	contains(t, o.Summary, "The backup holds no such table: public.teacher", "public.student")

	// In place, after a safety backup; the one before is kept.
	o, out = p.restored(p.restore(p.inPlace(made.ID)))
	p.keepHistory(o, "backup/testdata/restore-in-place.json")
	if number(t, database, countStudents) != 300 || number(t, out.Put.Before, countStudents) != 100 || out.SafetyBackup == "" {
		t.Errorf("%s %s", o.Summary, o.Outcome)
	}
	if safety := p.until(backups+"/"+out.SafetyBackup, ended); safety.State != backup.StateVerified || safety.StartedBy != "restore "+o.ID {
		t.Errorf("the safety backup is %s, by %s", safety.State, safety.StartedBy)
	}
	contains(t, strings.Join(out.ToDo, "\n"), out.Put.Before, "drop database")
	p.typed(out.Put.DropCommand)
	if n := backuptest.Number(t, "select count(*) from pg_database where datname = $1", out.Put.Before); n != 0 {
		t.Error("the command that is told does not drop the database before")
	}
	var page ops.Page
	if code, said := p.call(identity.Viewer, http.MethodGet, restores, nil, &page); code != 200 || page.TotalElements != 5 {
		t.Errorf("list: %d %s", code, said)
	}
}

// typed runs a command that an operator was told, as that would.
func (p *platform) typed(command string) {
	p.t.Helper()
	if said, err := exec.CommandContext(p.t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
		p.t.Errorf("%s: %v: %s", command, err, said)
	}
}

func TestARestoreFromABareFolder(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 50)
	made := p.verified(p.start())
	folder := t.TempDir()
	must(t, os.CopyFS(folder, os.DirFS(p.dir)))
	must(t, os.RemoveAll(p.dir))
	ops := p.database.URL[strings.LastIndex(p.database.URL, "/")+1:]
	backuptest.Exec(t, ops, "truncate operation") // as a new ops_db is
	if code, said := p.call(identity.Admin, http.MethodPost, restores, p.inPlace(made.ID), nil); code != http.StatusNotFound {
		t.Errorf("of a backup that nobody knows: %d %s", code, said)
	}
	backuptest.Exec(t, p.source.Database, "delete from archive.event; delete from student")
	body := p.inPlace(made.ID)
	body["from"], body["keyFile"] = folder, p.keys.Identities
	if code, said := p.call(identity.Operator, http.MethodPost, restores, body, nil); code != http.StatusForbidden {
		t.Errorf("an operator names a folder: %d %s", code, said)
	}
	o, out := p.restored(p.restore(body))
	if number(t, p.source.Database, countStudents) != 50 || out.Backup.VerifiedAt == nil {
		t.Errorf("%s %s", o.Summary, o.Outcome)
	}
}

func TestARestoreThatCannotBeIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	made := p.verified(p.start())
	other, _, err := engine.NewKeyPair()
	must(t, err)
	wrongKey := filepath.Join(t.TempDir(), "other.key")
	write(t, wrongKey, other)
	var manifest engine.Manifest
	archive := p.archives()[0]
	manifestFile := filepath.Join(p.dir, engine.ManifestName(strings.TrimPrefix(archive, p.dir+"/")))
	original, err := os.ReadFile(manifestFile)
	must(t, err)
	must(t, json.Unmarshal(original, &manifest))
	sealed, err := os.ReadFile(archive)
	must(t, err)

	said := map[string]string{}
	for _, test := range []struct {
		name, says string
		body       restoreBody
		change     func(m *engine.Manifest)
	}{
		{"wrong key", "Wrong key", restoreBody{"keyFile": wrongKey}, nil},
		{"no key", "No key", restoreBody{"keyFile": "/nowhere/backup.key"}, nil},
		{"older server", "The server is too old", nil, func(m *engine.Manifest) { m.ServerVersion, m.DumpVersion = "99.1", "99.1" }},
		{"older client", "newer pg_dump", nil, func(m *engine.Manifest) { m.DumpVersion = "99.1" }},
		{"tampered", "not what was encrypted", nil, func(m *engine.Manifest) {
			changed := append([]byte(nil), sealed...)
			changed[len(changed)/2] ^= 1
			must(t, os.WriteFile(archive, changed, 0o600))
			m.SHA256 = sha256Of(changed) // by somebody who can write both, but has no key
		}},
	} {
		changed := manifest
		if test.change != nil {
			test.change(&changed)
			raw, err := changed.Encode()
			must(t, err)
			must(t, os.WriteFile(manifestFile, raw, 0o600))
		}
		into := restoreBody{"backup": made.ID, "into": p.source.Database + "_new"}
		body := p.inPlace(made.ID)
		maps.Copy(into, test.body)
		maps.Copy(body, test.body)
		fresh := p.until(restores+"/"+p.restore(into).ID, ended)
		if there := backuptest.Number(t, "select count(*) from pg_database where starts_with(datname, $1)", p.source.Database); fresh.State != operation.Failed || there != 1 {
			t.Errorf("%s, into a new database: %s: %s, %d databases", test.name, fresh.State, fresh.Summary, there)
		}
		contains(t, fresh.Summary, test.says)
		o := p.until(restores+"/"+p.restore(body).ID, ended)
		if archives := p.archives(); len(archives) != 1 {
			t.Errorf("%s: a safety backup was made: %v", test.name, archives)
		}
		must(t, os.WriteFile(manifestFile, original, 0o600))
		must(t, os.WriteFile(archive, sealed, 0o600))
		contains(t, o.Summary, test.says)
		if o.State != operation.Failed || len(o.Steps) > 2 || p.besides() != 0 || number(t, p.source.Database, countStudents) != 20 {
			t.Errorf("%s: %s: %s, steps %+v", test.name, o.State, o.Summary, o.Steps)
		}
		if before, twice := said[o.Summary]; twice {
			t.Errorf("%s and %s say the same: %s", before, test.name, o.Summary)
		}
		said[o.Summary] = test.name
	}
}

func TestRestoresThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	made := p.verified(p.start())
	for name, test := range map[string]struct {
		role identity.Role
		body restoreBody
		code int
		says []string
	}{
		"nowhere":           {identity.Operator, restoreBody{}, 422, []string{"exactly one of"}},
		"two places":        {identity.Operator, restoreBody{"into": "x", "table": "a.b"}, 422, []string{"exactly one of"}},
		"names":             {identity.Operator, restoreBody{"into": "Student-DB", "table": "student"}, 422, []string{"lower-case", "with its schema", "exactly one"}},
		"unconfirmed":       {identity.Operator, restoreBody{"inPlace": true}, 422, []string{"type the name"}},
		"another confirmed": {identity.Operator, restoreBody{"inPlace": true, "confirm": "student_db"}, 422, []string{p.source.Database}},
		"the platform's":    {identity.Operator, restoreBody{"inPlace": true, "confirm": "temporal"}, 422, []string{"restore-by-hand.md"}},
		"ops_db":            {identity.Operator, restoreBody{"inPlace": true, "confirm": "ops_db"}, 422, []string{"restore-by-hand.md"}},
		"no reason":         {identity.Operator, restoreBody{"inPlace": true, "confirm": p.source.Database, "noSafetyBackup": true}, 422, []string{"say why"}},
		"needless":          {identity.Operator, restoreBody{"into": "x", "noSafetyBackup": true, "confirm": "x"}, 422, []string{"only a restore in place is confirmed", "makes a safety backup"}},
		"relative":          {identity.Admin, restoreBody{"into": "x", "from": "backups", "keyFile": "key"}, 422, []string{`"from"`, `"keyFile"`}},
		"a key":             {identity.Operator, restoreBody{"into": "x", "keyFile": "/etc/shadow"}, 403, []string{"only an admin"}},
		"a viewer":          {identity.Viewer, restoreBody{"into": "x"}, 403, nil},
	} {
		test.body["backup"] = made.ID
		code, body := p.call(test.role, http.MethodPost, restores, test.body, nil)
		if code != test.code {
			t.Errorf("%s: %d %s, want %d", name, code, body, test.code)
		}
		contains(t, body, test.says...)
	}
	if code, body := p.call(identity.Operator, http.MethodPost, restores, restoreBody{"backup": "zzzz", "into": "x"}, nil); code != 404 {
		t.Errorf("no such backup: %d %s", code, body)
	}
}

func TestASafetyBackupIsLeftOutOnlyWhereThereCanBeNone(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 30)
	made := p.verified(p.start())
	body := p.inPlace(made.ID)
	body["noSafetyBackup"], body["reason"] = true, "in a hurry"
	o := p.until(restores+"/"+p.restore(body).ID, ended)
	contains(t, o.Summary, "can be backed up first")
	if o.State != operation.Failed || p.besides() != 0 {
		t.Errorf("%s: %s", o.State, o.Summary)
	}
	body["reason"] = "nobody can connect"
	backuptest.Exec(t, "postgres", "alter database "+p.source.Database+" allow_connections false")
	o, out := p.restored(p.restore(body))
	p.keepHistory(o, "backup/testdata/restore-unreadable.json")
	if out.Unreadable == "" || out.SafetyBackup != "" || out.Put.Before == "" || number(t, p.source.Database, countStudents) != 30 {
		t.Errorf("unreachable: %s %s", o.Summary, o.Outcome)
	}
	backuptest.Exec(t, "postgres", "drop database "+p.source.Database+" with (force)")
	o, out = p.restored(p.restore(body))
	if out.Put.Before != "" || number(t, p.source.Database, countStudents) != 30 {
		t.Errorf("missing: %s %s", o.Summary, o.Outcome)
	}
}

// bar keeps all but superusers from connecting to the database that a restore works in, once it is there: the restore's
// session that is in it goes on, and its comparison cannot begin.
func (p *platform) bar(o ops.Operation) (beside string, lift func()) {
	p.t.Helper()
	beside, release := p.holdRestore(o, "pg_trigger", "select count(*) = 2 from pg_inherits") // foreign keys, which come last, are written there
	backuptest.Exec(p.t, "postgres", "alter database "+beside+" connection limit 0")
	release()
	p.until(restores+"/"+o.ID, func(o ops.Operation) bool {
		return o.Activity != nil && o.Activity.Name == "CompareBeside" && strings.Contains(o.Activity.LastFailure, "too many connections")
	})
	return beside, func() { backuptest.Exec(p.t, "postgres", "alter database "+beside+" connection limit -1") }
}

func TestAFailedOrCancelledRestoreLeavesTheOriginalServing(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 2000)
	made := p.verified(p.start())
	serving := func(o ops.Operation, state string) {
		t.Helper()
		o = p.until(restores+"/"+o.ID, ended)
		last := o.Steps[len(o.Steps)-1]
		if o.State != state || p.besides() != 0 || number(t, p.source.Database, countStudents) != 2000 || last.Detail != "it is gone" {
			t.Errorf("%s: %s, %d left, steps %+v", o.State, o.Summary, p.besides(), o.Steps)
		}
	}
	o := p.restore(p.inPlace(made.ID))
	beside, lift := p.bar(o)
	backuptest.Exec(t, beside, "delete from archive.event where student_id = 7")
	lift()
	serving(o, operation.Failed)
	contains(t, p.until(restores+"/"+o.ID, ended).Summary, "The restored database differs: table archive.event_20")
	p.keepHistory(p.until(restores+"/"+o.ID, ended), "backup/testdata/restore-different.json")

	o = p.restore(restoreBody{"backup": made.ID, "into": p.source.Database + "_new"})
	p.bar(o) // and it is dropped so
	must(t, p.client.CancelWorkflow(context.Background(), o.WorkflowID, o.RunID))
	serving(o, operation.Cancelled)
	p.keepHistory(p.until(restores+"/"+o.ID, ended), "backup/testdata/restore-cancelled.json")
}

func TestARestoreInPlaceSurvivesTheDeathOfItsWorker(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"while it begins", "in the safety backup", "in the restore", "in the comparison", "between the renames"} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, 2000)
			database := p.source.Database
			made := p.verified(p.start())
			backuptest.Exec(t, database, "delete from archive.event; delete from student where id > 100")
			stopWatching := p.watchName()
			release := func() {}
			if moment == "in the safety backup" {
				release = hold(t, database)
			}
			defer release()
			o := p.restore(p.inPlace(made.ID))
			switch moment {
			case "in the safety backup":
				dumping(t, database)
			case "in the restore":
				_, release = p.holdRestore(o, "pg_class", "select true")
			case "in the comparison":
				_, release = p.bar(o)
			case "between the renames":
				release = p.holdSwap(o)
			}
			p.killWorker()
			release()
			p.startWorker()
			o, out := p.restored(o)
			stopWatching()
			if number(t, database, countStudents) != 2000 || number(t, out.Put.Before, countStudents) != 100 {
				t.Errorf("%s %s", o.Summary, o.Outcome)
			}
			p.keepHistory(o, fmt.Sprintf("backup/testdata/restore-killed-%s.json", strings.ReplaceAll(moment, " ", "-")))
		})
	}
}

// holdRestore keeps pg_restore from writing to a table of the catalogue, from the moment at which a query answers true until release.
func (p *platform) holdRestore(o ops.Operation, catalogue, query string) (beside string, release func()) {
	p.t.Helper()
	beside = engine.BesideName(p.source.Database, o.ID)
	eventually(p.t, func() bool {
		return backuptest.Number(p.t, "select count(*) from pg_database where datname = $1", beside) > 0
	}, func() string { return "no " + beside })
	conn := backuptest.Connect(p.t, beside)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for now := false; !now; <-tick.C {
		must(p.t, conn.QueryRow(context.Background(), query).Scan(&now))
	}
	_, err := conn.Exec(context.Background(), "begin; lock table pg_catalog."+catalogue+" in share mode")
	must(p.t, err)
	eventually(p.t, func() bool {
		return backuptest.Number(p.t, "select count(*) from pg_stat_activity where datname = $1 and application_name = 'pg_restore' and wait_event_type = 'Lock'", beside) > 0
	}, func() string { return "no pg_restore that waits" })
	return beside, func() { _ = conn.Close(context.Background()) }
}

// holdSwap keeps a superuser's session in the restored database, so that the second rename waits, and returns when the first
// has gone through.
func (p *platform) holdSwap(o ops.Operation) (release func()) {
	p.t.Helper()
	beside, lift := p.bar(o)
	conn := backuptest.Connect(p.t, beside)
	lift()
	const between = `
select count(*) from pg_locks l join pg_database d on d.oid = l.objid
 where l.classid = 'pg_database'::regclass and d.datname = $1 and l.mode = 'AccessExclusiveLock' and l.granted`
	eventually(p.t, func() bool { return backuptest.Number(p.t, between, beside) > 0 }, func() string { return "no swap" })
	return func() { _ = conn.Close(context.Background()) }
}

// watchName looks for the database's name again and again until it is told to stop: it must be there each time.
func (p *platform) watchName() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	cluster, password := pgtest.Cluster(p.t)
	go func() {
		missing := 0
		defer func() { done <- missing }()
		conn, err := cluster.Connect(ctx, password, "postgres")
		if err != nil {
			missing++
			return
		}
		defer conn.Close(context.Background())
		for ctx.Err() == nil {
			var n int
			if conn.QueryRow(ctx, "select count(*) from pg_database where datname = $1", p.source.Database).Scan(&n) == nil && n != 1 {
				missing++
			}
		}
	}()
	return func() {
		cancel()
		if missing := <-done; missing > 0 {
			p.t.Errorf("the name was missing %d times", missing)
		}
	}
}
