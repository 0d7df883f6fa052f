package operations

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
)

const smokeTests = "/api/v1/ops/smoke-tests"

func reportOf(t *testing.T, o ops.Operation) smoketest.Report {
	t.Helper()
	var report smoketest.Report
	must(t, json.Unmarshal(o.Outcome, &report))
	return report
}

func TestSmokeTests(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	test := func(in map[string]string) ops.Operation {
		t.Helper()
		var o ops.Operation
		eventually(t, func() bool { // one a second has the same name
			code, _ := p.call(identity.Admin, http.MethodPost, smokeTests, in, &o)
			return code == http.StatusAccepted
		}, func() string { return "not started" })
		return p.until(smokeTests+"/"+o.ID, ended)
	}
	production := map[string]string{"environment": "production"}

	good := test(production)
	if good.State != operation.Succeeded || len(reportOf(t, good).Checks) != 14 {
		t.Errorf("%s: %s %s", good.State, good.Summary, good.Outcome)
	}
	p.keepHistory(good, "smoketest/testdata/passed.json")

	released := test(map[string]string{"environment": "production", "service": "student-service", "release": "sha256:one"})
	if released.State != operation.Succeeded {
		t.Errorf("of the release that answers: %s", released.Summary)
	}
	other := test(map[string]string{"url": p.gateway.URL, "service": "student-service", "release": "sha256:two"})
	if other.State != operation.Failed {
		t.Errorf("of a release that does not answer: %s: %s", other.State, other.Summary)
	}
	contains(t, other.Summary, "sha256:two", "sha256:one")

	p.gateway.set(func() { p.gateway.counted = true })
	counted := test(production)
	contains(t, counted.Summary, "statistic")
	if counted.State != operation.Failed || p.gateway.left() != 0 {
		t.Errorf("%s, %d students left", counted.State, p.gateway.left())
	}
	p.keepHistory(counted, "smoketest/testdata/failed.json")

	p.gateway.set(func() {
		p.gateway.counted = false
		p.gateway.broken["GET /api/v1/configurations/settings/category/GENERAL"] = 500
	})
	broken := test(production)
	contains(t, broken.Summary, "1 of 14 checks failed. the settings can be read: expected status 200, found status 500 (Internal error)")

	away := test(map[string]string{"url": "http://127.0.0.1:1"})
	if away.State != operation.Failed {
		t.Errorf("of nobody: %s", away.State)
	}
	contains(t, away.Summary, "the gateway is up", "no connection")
}

func TestSmokeTestsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	for name, test := range map[string]struct {
		role identity.Role
		in   map[string]string
		code int
		says string
	}{
		"neither":     {identity.Operator, map[string]string{}, 422, "either"},
		"both":        {identity.Operator, map[string]string{"environment": "production", "url": "http://x"}, 422, "either"},
		"unknown":     {identity.Operator, map[string]string{"environment": "moon"}, 422, "known are production"},
		"half":        {identity.Operator, map[string]string{"environment": "production", "release": "sha256:x"}, 422, "go together"},
		"not a url":   {identity.Admin, map[string]string{"url": "ftp://x"}, 422, "address of a gateway"},
		"url":         {identity.Operator, map[string]string{"url": "http://x"}, 403, "only an admin"},
		"as a viewer": {identity.Viewer, map[string]string{"environment": "production"}, 403, "may not"},
	} {
		if code, body := p.call(test.role, http.MethodPost, smokeTests, test.in, nil); code != test.code {
			t.Errorf("%s: %d %s, want %d", name, code, body, test.code)
		} else {
			contains(t, body, test.says)
		}
	}
	if code, _ := p.call(identity.Viewer, http.MethodGet, smokeTests+"/zzz", nil, nil); code != http.StatusNotFound {
		t.Errorf("no such test: %d", code)
	}
}
