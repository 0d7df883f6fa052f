package operations

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.temporal.io/api/sdk/v1"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// details are what the Temporal UI shows of a workflow.
func (p *platform) details(o ops.Operation) string {
	value, err := p.client.QueryWorkflow(p.t.Context(), o.WorkflowID, o.RunID, "__temporal_workflow_metadata")
	if err != nil {
		return err.Error()
	}
	var metadata sdk.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		return err.Error()
	}
	return metadata.GetCurrentDetails()
}

func TestARunningBackupShowsHowFarItIsAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 100)
	port, err := pgtest.FreePort()
	must(t, err)
	p.killWorker()
	p.env = append(p.env, fmt.Sprintf("SERVER_ADDRESS=127.0.0.1:%d", port))
	p.startWorker()
	release := hold(t, p.source.Database)
	defer release()
	o := p.start()
	dumping(t, p.source.Database)

	const far = "tables counted"
	worker := fmt.Sprintf("http://127.0.0.1:%d", port)
	running := fmt.Sprintf(`sms_backup_running_tables_expected{database="%s",step="DumpDatabase"}`, p.source.Database)
	live := p.until(backups+"/"+o.ID, func(o ops.Operation) bool {
		return o.Activity != nil && strings.Contains(string(o.Activity.Progress), `"allTables"`)
	})
	if live.Activity.Name != "DumpDatabase" {
		t.Errorf("runs %+v", live.Activity)
	}
	eventually(t, func() bool { return metric(t, worker, running) >= "1" }, func() string { return "no metric of the running dump" })
	eventually(t, func() bool { return strings.Contains(p.details(o), far) }, func() string { return p.details(o) })
	contains(t, p.details(o), "**running**", "▶ Dump "+p.source.Database)

	if code, body := p.call(identity.Viewer, http.MethodPost, backups+"/"+o.ID+"/cancel", nil, nil); code != http.StatusForbidden {
		t.Errorf("cancelled by a viewer: %d %s", code, body)
	}
	if code, body := p.call(identity.Operator, http.MethodPost, backups+"/"+o.ID[:6]+"/cancel", nil, nil); code != http.StatusAccepted {
		t.Fatalf("cancel: %d %s", code, body)
	}
	if o = p.until(backups+"/"+o.ID, ended); o.State != operation.Cancelled {
		t.Errorf("%s: %s", o.State, o.Summary)
	}
	if code, body := p.call(identity.Operator, http.MethodPost, backups+"/"+o.ID+"/cancel", nil, nil); code != http.StatusConflict || !strings.Contains(body, "has ended already") {
		t.Errorf("cancelled again: %d %s", code, body)
	}
	if strings.Contains(p.details(o), far) {
		t.Errorf("the end still says how far it is: %s", p.details(o))
	}
	eventually(t, func() bool { return metric(t, worker, running) == "" }, func() string { return "a dump that has ended is shown as running" })
}

func TestWhatCouldBeHadBackAndWhyBackupsAreKept(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 100)
	var found struct{ Content []ops.Recovery }
	recovery := func() ops.Recovery {
		if code, body := p.call(identity.Viewer, http.MethodGet, backups+"/recovery", nil, &found); code != http.StatusOK || len(found.Content) != 1 {
			t.Fatalf("recovery: %d %s", code, body)
		}
		return found.Content[0]
	}
	if r := recovery(); r.State != ops.Awaited || r.Point != nil || r.Time != nil || r.LastRun != nil {
		t.Errorf("before any backup: %+v", r)
	}
	made := p.verified(p.start())
	var r ops.Recovery
	eventually(t, func() bool { r = recovery(); return r.Point != nil }, func() string { return "the backup is not on record" }) // its workflow said so first
	if r.State != ops.InTime || r.Point == nil || r.Point.BackupID != made.ID || r.Point.AgeSeconds <= 0 || r.Point.AgeSeconds > patience.Seconds() ||
		r.Point.Bytes == 0 || r.Point.DumpBytes <= r.Point.Bytes || r.Time == nil || r.Time.Seconds <= 0 || r.LastRun.ID != made.ID {
		t.Errorf("after a backup: %+v", r)
	}
	var page ops.Page
	eventually(t, func() bool {
		p.call(identity.Viewer, http.MethodGet, backups, nil, &page)
		return len(page.Content) == 1 && page.Content[0].Kept != nil
	}, func() string { return "nobody says why the backup is kept" })
	if kept := page.Content[0].Kept; !kept.Keep || kept.Reason == "" {
		t.Errorf("%+v", kept)
	}
}
