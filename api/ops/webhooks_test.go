package ops

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/notice"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
	flow "github.com/school-sms/sms/workflows/rollout"
)

// deliverer is one with a file of webhooks, on an ops_db of its own.
func deliverer(t *testing.T, content string) *notice.Deliverer {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.New(t, migrations.Ops()), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	file := filepath.Join(t.TempDir(), "webhooks.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := notice.NewDeliverer(pool, notice.Config{File: notice.File(file), Timeout: 10 * time.Second, Interval: time.Second, GiveUp: time.Hour}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestWebhooks lists and tests them without telling where they are, and refuses a plan that names one that is not there.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	address := refuses.URL + "/very-secret"
	s := servertest.New(t, "ops-service", server.Config{})
	d := deliverer(t, "- {name: office, url: "+address+", events: {kinds: [rollout], states: [waiting]}}")
	(&Service{notices: d, cfg: Config{TargetSocket: "/nowhere"}, now: time.Now}).Mount(s.Server)

	var all struct{ Content []Webhook }
	list := s.Do(t, identity.Viewer, http.MethodGet, webhooks, nil)
	if err := json.Unmarshal(list.Body, &all); err != nil || len(all.Content) != 1 || all.Content[0].Name != "office" || all.Content[0].Kinds[0] != "rollout" {
		t.Errorf("the list: %d %s", list.Status, list.Body)
	}
	test := s.Do(t, identity.Operator, http.MethodPost, webhooks+"/office/test", nil)
	if test.Status != http.StatusOK || !strings.Contains(string(test.Body), `"taken":false`) || !strings.Contains(string(test.Body), "it answered 404") {
		t.Errorf("the test: %d %s", test.Status, test.Body)
	}
	unknown := s.Do(t, identity.Operator, http.MethodPost, webhooks+"/other/test", nil)
	if unknown.Status != http.StatusNotFound || !strings.Contains(string(unknown.Body), "office") {
		t.Errorf("the test of an unknown one: %d %s", unknown.Status, unknown.Body)
	}
	if viewer := s.Do(t, identity.Viewer, http.MethodPost, webhooks+"/office/test", nil); viewer.Status != http.StatusForbidden {
		t.Errorf("a viewer's test: %d", viewer.Status)
	}
	plan := map[string]any{"environment": "staging", "service": "student-service", "release": "/x", "notify": []string{"office", "ofice"}}
	refused := s.Do(t, identity.Operator, http.MethodPost, rollouts.path, plan)
	if refused.Status != http.StatusUnprocessableEntity || !strings.Contains(string(refused.Body), "notify[1]") || strings.Contains(string(refused.Body), "notify[0]") {
		t.Errorf("a plan that notifies nobody: %d %s", refused.Status, refused.Body)
	}
	plan = map[string]any{"environment": "staging", "service": "student-service", "release": "/x", "rules": []rule{{Metric: "promql", Name: "x", Query: "${release}", Max: 1}}}
	unasked := s.Do(t, identity.Operator, http.MethodPost, rollouts.path, plan)
	if unasked.Status != http.StatusUnprocessableEntity || !strings.Contains(string(unasked.Body), "PROMETHEUS_URL is not set") {
		t.Errorf("a plan with a query that nobody answers: %d %s", unasked.Status, unasked.Body)
	}
	for _, a := range []servertest.Answer{list, test, unknown, refused} {
		if strings.Contains(string(a.Body), "very-secret") {
			t.Errorf("an address is told: %s", a.Body)
		}
	}
	if strings.Contains(s.Log.String(), "very-secret") {
		t.Errorf("an address is logged: %s", s.Log)
	}
	if c := checkWebhooks(d)(t.Context()); c.Status != server.Up || c.Details["office"] == nil {
		t.Errorf("health: %+v", c)
	}
}

// TestEveryStateCanBeNamed in a filter.
func TestEveryStateCanBeNamed(t *testing.T) {
	t.Parallel()
	all := []string{operation.Running, operation.Waiting, operation.Succeeded, operation.Failed, operation.Cancelled, flow.RolledBack, flow.Aborted, flow.Superseded,
		backup.StateStored, backup.StateVerified, backup.StateFailed, backup.StateMissing, backup.StateDeleted}
	deliverer(t, "- {name: a, url: http://x, events: {states: ["+strings.Join(all, ", ")+"]}}")
}
