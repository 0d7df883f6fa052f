package operations

import (
	"net/http"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/identity"
)

const schedules = "/api/v1/ops/schedules"

func TestSchedules(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	var list struct{ Content []ops.Schedule }
	eventually(t, func() bool {
		code, _ := p.call(identity.Viewer, http.MethodGet, schedules, nil, &list)
		return code == http.StatusOK && len(list.Content) == 2
	}, func() string { return "fewer than two schedules" })
	id := "backup-" + p.source.Database + "-nightly"
	nightly := list.Content[0]
	if nightly.ID != id || nightly.Cron != "0 2 * * *" || nightly.Timezone != "Asia/Kolkata" || list.Content[1].ID != "smoke-production-hourly" {
		t.Errorf("schedules %+v", list.Content)
	}
	zone, err := time.LoadLocation("Asia/Kolkata")
	must(t, err)
	var next struct{ NextRuns []time.Time }
	if code, body := p.call(identity.Viewer, http.MethodGet, schedules+"/"+id+"/next?count=3", nil, &next); code != 200 || len(next.NextRuns) != 3 {
		t.Fatalf("next runs: %d %s", code, body)
	}
	for _, at := range next.NextRuns {
		if local := at.In(zone); local.Hour() != 2 || local.Minute() != 0 || local.Second() != 0 {
			t.Errorf("runs at %s, want 02:00", local)
		}
	}

	put := func(cron, zone string, paused bool) (int, string, ops.Schedule) {
		var s ops.Schedule
		code, body := p.call(identity.Operator, http.MethodPut, schedules+"/"+id, map[string]any{"cron": cron, "timezone": zone, "paused": paused}, &s)
		return code, body, s
	}
	if code, body, _ := put("0 2 1 * 1", "Asia/Nowhere", false); code != 422 {
		t.Errorf("both days restricted: %d", code)
	} else {
		contains(t, body, "both restricted", `"timezone"`)
	}
	code, body, changed := put("30  1 * * 1-5", "Europe/London", true)
	if code != 200 || changed.Cron != "30 1 * * 1-5" || changed.Timezone != "Europe/London" || !changed.Paused || len(changed.NextRuns) != 0 {
		t.Errorf("changed: %d %s", code, body)
	}
	contains(t, changed.Note, "paused by meera")

	p.killWorker()
	p.startWorker() // which must not undo an operator's change
	eventually(t, func() bool {
		described, err := p.client.DescribeTaskQueue(t.Context(), "sms", 0)
		return err == nil && len(described.GetPollers()) > 0
	}, func() string { return "no worker" })
	if code, body, resumed := put("30 1 * * 1-5", "Europe/London", false); code != 200 || resumed.Cron != "30 1 * * 1-5" || len(resumed.NextRuns) == 0 {
		t.Errorf("resumed: %d %s", code, body)
	}
	handle := p.client.ScheduleClient().GetHandle(t.Context(), id)
	must(t, handle.Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	var page ops.Page
	eventually(t, func() bool {
		p.call(identity.Viewer, http.MethodGet, backups, nil, &page)
		return len(page.Content) == 1 && ended(page.Content[0])
	}, func() string { return "no scheduled backup" })
	made := page.Content[0]
	contains(t, made.WorkflowID, "backup/"+p.source.Database+"/nightly-")
	if made.State != "verified" || made.StartedBy != "schedule "+id {
		t.Errorf("%s: %s by %s", made.State, made.Summary, made.StartedBy)
	}
	if code, _ := p.call(identity.Viewer, http.MethodGet, schedules+"/nothing", nil, nil); code != http.StatusNotFound {
		t.Errorf("no such schedule: %d", code)
	}
}
