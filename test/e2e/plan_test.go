package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/school-sms/sms/internal/postgres"
)

// TestPlan takes releases of two services through staging and, once that is approved, through production, under load.
func TestPlan(t *testing.T) {
	t.Parallel()
	dataDir := newDataDir(t)
	told, webhooks := newOffice(t, dataDir)
	p := up(t, dataDir, "OPS_WEBHOOKS_FILE="+webhooks)
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000003")).into(t, &made)
	student, configuration := releaseOf(t, "student-service", "planned"), releaseOf(t, "configuration-service", "planned")
	stable := p.releases("student-service")

	if out, code := p.sms("rollout", "start", "student-service="+student, "--env", "production", "--wait"); code != 1 || !strings.Contains(out, "has not ended a rollout in staging well") {
		t.Errorf("a release that staging has not seen: exit %d\n%s", code, out)
	}

	plan := filepath.Join(t.TempDir(), "release.yaml")
	content := "notify: [office]\nenvironments: [staging, production]\nsoak: 1s\nweights: [100]\nservices:\n  - {service: student-service, release: " + student + "}\n  - {service: configuration-service, release: " + configuration + "}\n"
	if err := os.WriteFile(plan, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := p.sms("rollout", "start", "--plan", plan, "--dry-run"); code != 0 || strings.Count(out, "student-service") != 2 || !strings.Contains(out, "waits for an approval") ||
		!strings.Contains(out, "proof: the rollout in staging, before this one") {
		t.Errorf("the preview: exit %d\n%s", code, out)
	}
	if now := p.releases("student-service"); !slices.Equal(now, stable) {
		t.Errorf("production runs %v after a preview", now)
	}
	l := startLoad(p, "/api/v1/students/"+made.StudentID)
	id := p.begin("rollout", "start", "--plan", plan)
	eventually(t, operationWithin, "the gate", func() (bool, string) {
		out := p.mustSMS("rollout", "show", id)
		return strings.Contains(out, "for an approval of plan"), out
	})
	eventually(t, operationWithin, "the office is told that it waits", told("rollout.waiting "+id))
	if now := p.releases("student-service"); !slices.Equal(now, stable) {
		t.Errorf("production runs %v before the approval", now)
	}
	// What lies at the path by now is not what was approved.
	if err := os.WriteFile(student, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, code := p.sms("rollout", "approve", id, "--reason", "seen", "--plan", "0000000000000000"); code != 1 || !strings.Contains(out, "is not this plan") {
		t.Errorf("the approval of another plan: exit %d\n%s", code, out)
	}
	if out := p.mustSMS("rollout", "approve", id, "--reason", "seen in staging", "--wait"); !strings.Contains(out, "succeeded") || !strings.Contains(out, "approved by admin: seen in staging") {
		t.Errorf("the plan:\n%s", out)
	}
	if now := p.releases("student-service"); len(now) != 1 || slices.Equal(now, stable) {
		t.Errorf("production runs %v after it", now)
	}
	l.endWithin(t, 0)
	eventually(t, operationWithin, "the office is told that it is done", told("rollout.succeeded "+id))
	if out, code := p.sms("webhook", "list"); code != 0 || !strings.Contains(out, "office") || strings.Contains(out, "very-secret") {
		t.Errorf("the webhooks: exit %d\n%s", code, out)
	}
	if out, code := p.sms("webhook", "test", "office"); code != 0 {
		t.Errorf("the test of a webhook: exit %d\n%s", code, out)
	}

	for want, args := range map[string][]string{
		"moon":                    {"--env", "moon,production"},
		"is not between 0":        {"--env", "staging,production", "--soak", "-1s"},
		"neither the absolute":    {"--env", "staging,production", "student-service=sha256:12"},
		"wieghts: is not a field": {"--plan", badPlan(t)},
		"is not a time such as":   {"--approve-within", "tomorrow"},
		"\"ofice\" is no webhook": {"--notify", "ofice"},
	} {
		if out, code := p.sms(append([]string{"rollout", "start", "configuration-service=" + configuration}, args...)...); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: exit %d, want %q\n%s", args, code, want, out)
		}
	}
	walkRequestIDs(t, p, configuration)
	walkSupersede(t, p)
	p.recordRollouts("")
	p.recordLongest("Preview")
}

// newOffice is a webhook, and the file that names it; told says whether it has had a message of a type and an id.
func newOffice(t *testing.T, dataDir string) (told func(what string) func() (bool, string), file string) {
	t.Helper()
	var mu sync.Mutex
	var got []string
	office := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct {
			Type string
			Data struct{ ID string }
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, m.Type+" "+m.Data.ID)
	}))
	t.Cleanup(office.Close)
	file = filepath.Join(dataDir, "webhooks.yaml")
	err := os.WriteFile(file, []byte("- {name: office, url: "+office.URL+"/very-secret}\n"), 0o600)
	if os.Geteuid() == 0 {
		account, missing := postgres.LookupAccount("sms") // whom the services run under
		err = errors.Join(err, missing, os.Chown(file, account.UID, account.GID))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(what string) func() (bool, string) {
		return func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(got, what), fmt.Sprint(got)
		}
	}, file
}

// walkRequestIDs sends requests more than once: each is done once.
func walkRequestIDs(t *testing.T, p *platform, release string) {
	const path = "/api/v1/ops/rollouts"
	plan := map[string]any{"environments": []string{"staging", "production"}, "service": "configuration-service", "release": release, "gate": false}
	one := map[string]any{"environment": "staging", "service": "configuration-service", "release": release}
	for key, asked := range map[string]map[string]any{"of-a-plan": plan, "of-a-rollout": one} {
		ids := make([]string, 5)
		var all sync.WaitGroup
		for n := range ids {
			all.Go(func() {
				var begun struct{ ID string }
				if a := p.call(http.MethodPost, path, asked, "Idempotency-Key", key); a.Status != http.StatusAccepted || json.Unmarshal(a.Body, &begun) != nil {
					t.Errorf("%s: %d %s", key, a.Status, a.Body)
				}
				ids[n] = begun.ID
			})
		}
		all.Wait()
		if ids = slices.Compact(ids); len(ids) != 1 || ids[0] == "" {
			t.Errorf("%s: five requests have begun %v", key, ids)
		}
		p.sms("rollout", "watch", ids[0])
		other := maps.Clone(asked)
		other["soak"] = "2s"
		if a := p.call(http.MethodPost, path, other, "Idempotency-Key", key); a.Status != http.StatusUnprocessableEntity || !strings.Contains(string(a.Body), ids[0]) {
			t.Errorf("%s of another request: %d %s", key, a.Status, a.Body)
		}
	}
}

// walkSupersede begins a rollout while another of the same service soaks, and one in a freeze.
func walkSupersede(t *testing.T, p *platform) {
	first, second := releaseOf(t, "configuration-service", "first"), releaseOf(t, "configuration-service", "second")
	held := p.begin("rollout", "start", "configuration-service="+first, "--env", "staging", "--soak", "10m")
	eventually(t, operationWithin, "its soak", func() (bool, string) {
		out := p.mustSMS("rollout", "show", held)
		return strings.Contains(out, "Give it 10 %"), out
	})
	next := []string{"rollout", "start", "configuration-service=" + second, "--env", "staging", "--soak", "1s", "--strategy", "rolling", "--wait"}
	if out, code := p.sms(next...); code != 1 || !strings.Contains(out, held) || !strings.Contains(out, "supersede it") {
		t.Errorf("beside another one: exit %d\n%s", code, out)
	}
	p.mustSMS(append(next, "--supersede")...)
	if out := p.mustSMS("rollout", "show", held); !strings.Contains(out, "superseded by plan") {
		t.Errorf("the superseded one:\n%s", out)
	}

	freezes := filepath.Join(t.TempDir(), "frozen.yaml")
	if err := os.WriteFile(freezes, []byte("freezes: [{from: '0 0 1 1 *', until: '59 23 31 12 *', zone: Asia/Kolkata, reason: exams}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	frozen := []string{"rollout", "start", "configuration-service=" + first, "--env", "staging", "--strategy", "blue-green", "--soak", "1s", "--plan", freezes, "--wait"}
	if out, code := p.sms(frozen...); code != 1 || !strings.Contains(out, "Nothing was changed: nothing new until") || !strings.Contains(out, "exams") {
		t.Errorf("in a freeze: exit %d\n%s", code, out)
	}
	if out, code := p.sms(append(frozen, "--dry-run")...); code != 1 || !strings.Contains(out, "STOPS: nothing new until") {
		t.Errorf("the preview in a freeze: exit %d\n%s", code, out)
	}
	p.mustSMS(append(frozen, "--thaw", "pupils cannot log in")...)
}

func badPlan(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(path, []byte("wieghts: [10, 100]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
