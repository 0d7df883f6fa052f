package operations

import (
	"net/http"
	"testing"
	"time"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

// The whole platform is down at the time of the nightly backup: Temporal and the worker are killed before it. Back again,
// they make that backup, once.
func TestANightThatWasMissedIsMadeUpForOnce(t *testing.T) {
	t.Parallel()
	temporal := temporaltest.New(t, "night")
	p := newPlatformOn(t, 10, temporal.Address, func(name string) { temporal.Namespace(t, name) })
	id := "backup-" + p.source.Database + "-nightly"
	// Cron knows minutes: the next one that leaves time to kill everything before it.
	due := time.Now().UTC().Add(5 * time.Second).Truncate(time.Minute).Add(time.Minute)
	var set ops.Schedule
	eventually(t, func() bool {
		code, _ := p.call(identity.Operator, http.MethodPut, schedules+"/"+id, map[string]any{"cron": due.Format("4 15 * * *"), "timezone": "UTC", "paused": false}, &set)
		return code == http.StatusOK
	}, func() string { return "no schedule" })
	if len(set.NextRuns) == 0 || !set.NextRuns[0].Equal(due) {
		t.Fatalf("next runs %v, want %s", set.NextRuns, due)
	}
	p.killWorker()
	temporal.Kill()
	if !time.Now().Before(due) {
		t.Fatal("the platform went down too late for this test")
	}
	<-time.After(time.Until(due.Add(time.Second))) // the night
	temporal.Restart(t)
	p.startWorker()

	var page ops.Page
	eventually(t, func() bool {
		p.call(identity.Viewer, http.MethodGet, backups, nil, &page)
		return len(page.Content) == 1 && ended(page.Content[0])
	}, func() string { return "no backup" })
	made := page.Content[0]
	if made.State != "verified" || made.WorkflowID != "backup/"+p.source.Database+"/nightly-"+due.Format(time.RFC3339) || made.StartedAt.Before(due) {
		t.Errorf("%s at %s: %s: %s", made.WorkflowID, made.StartedAt, made.State, made.Summary)
	}
	var after ops.Schedule
	if code, body := p.call(identity.Viewer, http.MethodGet, schedules+"/"+id, nil, &after); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	if after.Runs != 1 || after.Missed != 0 || !after.NextRuns[0].Equal(due.AddDate(0, 0, 1)) || after.Cron != set.Cron {
		t.Errorf("afterwards: %+v", after)
	}
}
