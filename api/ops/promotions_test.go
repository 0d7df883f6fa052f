package ops

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
)

// ended records a rollout that took ten seconds.
func (d *desk) ended(id, environment, service, state string, end time.Time) {
	d.t.Helper()
	r := operation.Record{ID: id, Kind: operation.Rollout, WorkflowID: id, RunID: id, Environment: environment, Subject: service, State: state,
		Summary: state, StartedBy: "meera", StartedAt: end.Add(-10 * time.Second), Revision: 1}
	if state != operation.Running {
		r.EndedAt = &end
	}
	if err := d.store.Record(d.t.Context(), r); err != nil {
		d.t.Fatal(err)
	}
}

// ids are those of a list.
func (d *desk) ids(query string) []string {
	d.t.Helper()
	res := d.call(identity.Viewer, http.MethodGet, rollouts.path+query, "", "")
	var page Page
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil || res.StatusCode != http.StatusOK {
		d.t.Fatalf("%s, %v", res.Status, err)
	}
	var ids []string
	for _, o := range page.Content {
		ids = append(ids, o.ID)
	}
	if page.TotalElements != int64(len(ids)) {
		d.t.Errorf("%s: %d in all, %d listed", query, page.TotalElements, len(ids))
	}
	return ids
}

func TestWhoReleasedWhat(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	at := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	d.ended("a", "staging", "student-service", operation.Succeeded, at)
	d.ended("b", "production", "student-service", "rolled-back", at.Add(time.Minute))
	d.ended("c", "staging, production", "configuration-service, student-service", "aborted", at.Add(2*time.Minute))
	d.ended("d", "production", "api-gateway", operation.Succeeded, at.Add(3*time.Minute))
	d.ended("e", "production", "api-gateway", operation.Running, at.Add(4*time.Minute))
	for query, want := range map[string][]string{
		"":                         {"e", "d", "c", "b", "a"},
		"?service=student-service": {"c", "b", "a"},
		"?environment=production":  {"e", "d", "c", "b"},
		"?environment=production&service=student-service&state=rolled-back": {"b"},
		"?service=student": nil,
	} {
		if diff := cmp.Diff(want, d.ids(query)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}

	for _, p := range []rollout.Promotion{
		{Operation: "a", Environment: "staging", Service: "student-service", Release: "2", Replaced: "1", PromotedBy: "meera"},
		{Operation: "d", Environment: "production", Service: "api-gateway", Release: "2", Replaced: "1", PromotedBy: "meera"},
		{Operation: "f", Environment: "production", Service: "api-gateway", Release: "1", Replaced: "2", Rollback: true, PromotedBy: "arjun"},
	} {
		if err := d.store.Promote(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string][]string{
		"": {"f", "d", "a"}, "?current=true": {"f", "a"}, "?environment=production": {"f", "d"}, "?service=student-service&current=true": {"a"}, "?size=1&page=1": {"d"},
	} {
		res := d.call(identity.Viewer, http.MethodGet, base+"/promotions"+query, "", "")
		var page PromotionPage
		if err := json.NewDecoder(res.Body).Decode(&page); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", res.Status, err)
		}
		var got []string
		for _, p := range page.Content {
			got = append(got, p.Operation)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("promotions%s: %s", query, diff)
		}
	}

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(RolloutMetrics{d.store, slog.New(slog.DiscardHandler)})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if diff := cmp.Diff(map[string]float64{
		"sms_rollout_records_readable":                                       1,
		"sms_rollout_running staging student-service":                        0,
		"sms_rollout_running production student-service":                     0,
		"sms_rollout_running production api-gateway":                         1,
		"sms_rollout_last_failed staging student-service":                    0,
		"sms_rollout_last_failed production student-service":                 1,
		"sms_rollout_last_failed production api-gateway":                     0,
		"sms_rollout_duration_seconds staging student-service":               10,
		"sms_rollout_duration_seconds production student-service":            10,
		"sms_rollout_duration_seconds production api-gateway":                10,
		"sms_rollout_last_success_timestamp_seconds staging student-service": float64(at.Unix()),
		"sms_rollout_last_success_timestamp_seconds production api-gateway":  float64(at.Add(3 * time.Minute).Unix()),
		"sms_rollout_total staging student-service succeeded":                1,
		"sms_rollout_total production student-service rolled-back":           1,
		"sms_rollout_total production api-gateway succeeded":                 1,
	}, got); diff != "" {
		t.Error(diff)
	}
}
