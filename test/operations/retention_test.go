package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/workflows/backup"
)

// again starts the worker with other settings.
func (p *platform) again(env ...string) {
	p.t.Helper()
	p.killWorker()
	p.env = append(p.env, env...)
	p.startWorker()
}

// aged makes of one real backup several that were made and proven on the nights before, and takes itself away. The
// returned ids are those of the oldest first.
func (p *platform) aged(n int) []string {
	p.t.Helper()
	o := p.verified(p.start())
	p.retained(o)
	root, err := os.OpenRoot(filepath.Join(p.dir, p.source.Database))
	must(p.t, err)
	defer root.Close()
	store, err := storage.NewDirectory(p.dir)
	must(p.t, err)
	files, err := filepath.Glob(filepath.Join(p.dir, p.source.Database, "*-"+o.ID+".*"))
	must(p.t, err)
	objects := map[string][]byte{} // what follows the base → content
	var base string
	for _, file := range files {
		var suffix string
		base, suffix, _ = strings.Cut(filepath.Base(file), ".")
		objects[suffix], err = os.ReadFile(file)
		must(p.t, err)
		must(p.t, root.Remove(filepath.Base(file)))
	}
	ids := make([]string, n)
	for i := range ids {
		at := time.Now().UTC().Truncate(time.Second).Add(-time.Duration(n-i) * 24 * time.Hour)
		ids[i] = fmt.Sprintf("aged%06d", i)
		old := at.Format("20060102T150405Z") + "-" + ids[i]
		var archive string
		for suffix, content := range objects {
			switch {
			case strings.HasPrefix(suffix, "proof"):
				continue
			case suffix == "manifest.json":
				var manifest engine.Manifest
				must(p.t, json.Unmarshal([]byte(strings.ReplaceAll(string(content), base, old)), &manifest))
				manifest.ID, manifest.StartedAt, manifest.EndedAt = ids[i], at, at.Add(time.Minute)
				content, err = manifest.Encode()
				must(p.t, err)
			case strings.HasPrefix(suffix, "dump"):
				archive = p.source.Database + "/" + old + "." + suffix
			}
			write(p.t, filepath.Join(root.Name(), old+"."+suffix), string(content))
		}
		must(p.t, engine.WriteProof(context.Background(), store, engine.Proof{BackupID: ids[i], Database: p.source.Database, Archive: archive,
			DrillID: "d" + ids[i], VerifiedAt: at.Add(2 * time.Minute)}))
	}
	return ids
}

// retained waits for the retention that a backup has set off, and returns it.
func (p *platform) retained(o ops.Operation) ops.Operation {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(p.t, p.client.GetWorkflow(ctx, o.WorkflowID, o.RunID).Get(ctx, nil)) // by then it is started
	id := backup.RetentionWorkflowID(p.source.Database)
	_ = p.client.GetWorkflow(ctx, id, "").Get(ctx, nil) // how it ended is on its record
	described, err := p.client.DescribeWorkflowExecution(ctx, id, "")
	must(p.t, err)
	run := described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	return p.until(backups+"/"+operation.ID(id, run), ended)
}

func (p *platform) retention(path string) ops.Operation {
	p.t.Helper()
	var started ops.Started
	if code, body := p.call(identity.Operator, http.MethodPost, path, map[string]string{}, &started); code != http.StatusAccepted || len(started.Content) != 1 {
		p.t.Fatalf("POST %s: %d %s", path, code, body)
	}
	return p.until(backups+"/"+started.Content[0].ID, ended)
}

func outcomeOf(t *testing.T, o ops.Operation) backup.RetentionOutcome {
	t.Helper()
	var out backup.RetentionOutcome
	must(t, json.Unmarshal(o.Outcome, &out))
	return out
}

// states are those of all backups on record, by id.
func (p *platform) states() map[string]string {
	p.t.Helper()
	var page ops.Page
	if code, body := p.call(identity.Viewer, http.MethodGet, backups+"?size=100", nil, &page); code != http.StatusOK {
		p.t.Fatalf("list: %d %s", code, body)
	}
	states := map[string]string{}
	for _, o := range page.Content {
		states[o.ID] = o.State
	}
	return states
}

func TestRetentionDeletesWhatTheRuleDoesNotKeep(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	p.again("BACKUP_KEEP_DAYS=3", "BACKUP_KEEP_MONTHS=0", "BACKUP_KEEP_VERIFIED=2", "BACKUP_REVERIFY_EVERY=20h")
	ids := p.aged(6)

	dry := p.retention(backups + "/prune?dryRun=true")
	verdicts := outcomeOf(t, dry).Storages[0].Verdicts
	if dry.State != operation.Succeeded || len(verdicts) != 7 || len(p.archives()) != 6 {
		t.Fatalf("dry run: %s: %s, verdicts %+v, archives %v", dry.State, dry.Summary, verdicts, p.archives())
	}
	for i, v := range verdicts {
		want := engine.Verdict{Keep: i >= 3, Reason: "daily: younger than 3 days", State: engine.StateVerified}
		switch {
		case i < 3:
			want.Reason = "older than 3 days, and not of the newest 0 months"
		case i == 6:
			want.Reason, want.State = "record only: its objects are missing", engine.StateMissing
		}
		if v.Keep != want.Keep || v.Reason != want.Reason || v.State != want.State {
			t.Errorf("verdict on %s, %s: %t %s, want %t %s", v.BackupID, v.State, v.Keep, v.Reason, want.Keep, want.Reason)
		}
	}
	p.keepHistory(dry, "backup/testdata/retention-dry-run.json")

	made := p.until(backups+"/"+p.start().ID, ended)
	done := p.retained(made)
	out := outcomeOf(t, done)
	if made.State != backup.StateVerified || done.State != operation.Succeeded || len(out.Deletions) != 3 || len(p.archives()) != 4 {
		t.Fatalf("%s; %s: %s, deletions %+v, archives %v", made.State, done.State, done.Summary, out.Deletions, p.archives())
	}
	if out.Reverified != ids[3] {
		t.Errorf("%q was proven again, want the one that is left with the oldest proof, %s", out.Reverified, ids[3])
	}
	p.keepHistory(done, "backup/testdata/retention-pruned.json")
	states := p.states()
	for i, id := range ids {
		want := backup.StateVerified
		if i < 3 {
			want = engine.StateDeleted
		}
		if states[id] != want {
			t.Errorf("%s is %s, want %s (%v)", id, states[id], want, states)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, p.source.Database, "*-"+ids[0]+".*")); len(left) != 0 {
		t.Errorf("left of a deleted backup: %v", left)
	}
	if code, body := p.call(identity.Operator, http.MethodPost, backups+"/"+ids[0]+"/verify", nil, nil); code != http.StatusConflict {
		t.Errorf("verify of a deleted backup: %d %s", code, body)
	}
	if twice := p.retention(backups + "/prune"); twice.State != operation.Succeeded || len(outcomeOf(t, twice).Deletions) != 0 || len(p.archives()) != 4 {
		t.Errorf("run again: %s: %s, archives %v", twice.State, twice.Summary, p.archives())
	}
}

func TestAnOldBackupThatWentBadIsFoundByRetention(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	ids := p.aged(3)
	for _, archive := range p.archives() {
		if strings.Contains(archive, ids[0]) {
			content, err := os.ReadFile(archive)
			must(t, err)
			content[len(content)/2] ^= 1
			must(t, os.WriteFile(archive, content, 0o600))
		}
	}
	bad := p.retention(backups + "/prune")
	if bad.State != operation.Failed || p.states()[ids[0]] != operation.Failed {
		t.Errorf("%s: %s, states %v", bad.State, bad.Summary, p.states())
	}
	contains(t, bad.Summary, ids[0], "could not be proven again", "SHA-256")
	p.keepHistory(bad, "backup/testdata/retention-failed.json")
	next := p.retention(backups + "/prune?dryRun=true")
	for _, v := range outcomeOf(t, next).Storages[0].Verdicts {
		if v.BackupID == ids[0] && (v.State != operation.Failed || !v.Keep || !strings.Contains(v.Reason, "SHA-256")) {
			t.Errorf("the verdict on it: %+v", v)
		}
	}
}

func TestTheListIsRebuiltFromStorage(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	ids := p.aged(3)
	gone := p.states() // of the one backup whose objects are gone
	pool, err := postgres.Open(context.Background(), p.database, "test")
	must(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(context.Background(), "truncate operation")
	must(t, err)

	p.again() // a start of the worker is enough
	eventually(t, func() bool { return len(p.states()) == len(ids) }, func() string { return fmt.Sprint(p.states()) })
	for _, id := range ids {
		if p.states()[id] != backup.StateVerified {
			t.Errorf("states %v, want all verified; before: %v", p.states(), gone)
		}
	}
	rebuilt := p.retention(backups + "/rebuild")
	if c := outcomeOf(t, rebuilt).Catalogue; c == nil || c.Backups != 3 || c.Added != 0 || c.Corrected != 0 {
		t.Errorf("rebuilt again: %s %+v", rebuilt.Summary, c)
	}
	p.keepHistory(rebuilt, "backup/testdata/retention-rebuild.json")
	// What was rebuilt can be drilled, and says so when it is gone.
	proven := p.until(backups+"/"+p.begin(backups+"/"+ids[1]+"/verify", nil).ID, ended)
	if proven.State != operation.Succeeded {
		t.Errorf("verify %s: %s", proven.State, proven.Summary)
	}
	for _, archive := range p.archives() {
		if strings.Contains(archive, ids[2]) {
			must(t, os.Remove(archive))
		}
	}
	if c := outcomeOf(t, p.retention(backups+"/rebuild")).Catalogue; c.Corrected != 1 || p.states()[ids[2]] != operation.Failed {
		t.Errorf("an archive is gone: %+v, states %v", c, p.states())
	}
}
