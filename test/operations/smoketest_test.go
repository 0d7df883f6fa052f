package operations

import (
	"encoding/json"
	"net/http"
	"path/filepath"
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

// ownSuite makes a student of its own, besides that of the built-in suite.
const ownSuite = `
name: school
variables: {mobile: "00${random.digits(8)}"}
checks:
  - name: a student can be created again
    service: student-service
    request: {method: POST, path: /api/v1/students, headers: {X-SMS-Synthetic: "true"}, body: {mobile: "${mobile}"}}
    expect: {status: 201}
    capture: {id: $.studentId}
    cleanup:
      - request: {path: "/api/v1/students/${id}"}
        capture: {tag: {header: ETag}}
      - request: {method: DELETE, path: "/api/v1/students/${id}", headers: {If-Match: "${tag}"}}
  - name: the student can be read
    request: {path: "/api/v1/students/${id}"}
    expect: {status: 200}
`

func TestSuitesOfAnInstallationsOwn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 1)
	suite := filepath.Join(t.TempDir(), "school.yaml")
	write(t, suite, ownSuite)
	p.killWorker()
	p.env = append(p.env, "SMOKE_SUITES=production="+suite)
	reached := make(chan struct{})
	p.gateway.set(func() { p.gateway.silent["GET /api/v1/students/STU-2026-900000002"] = reached })
	p.startWorker()

	// The worker dies while a student is there that only its second suite knows of. The next attempt removes it.
	begun := p.begin(smokeTests, map[string]string{"environment": "production"})
	<-reached
	p.killWorker()
	if p.gateway.left() != 1 {
		t.Errorf("%d students when the worker died", p.gateway.left())
	}
	p.startWorker()
	good := p.until(smokeTests+"/"+begun.ID, ended)
	report := reportOf(t, good)
	if good.State != operation.Succeeded || len(report.Checks) != 16 || report.Checks[15].Suite != "school" || report.Checks[0].Suite != "platform" {
		t.Errorf("%s: %s %s", good.State, good.Summary, good.Outcome)
	}
	if p.gateway.left() != 0 {
		t.Errorf("%d students left", p.gateway.left())
	}

	// The file is read at each run.
	write(t, suite, ownSuite+"colour: blue\n")
	faulty := p.until(smokeTests+"/"+p.begin(smokeTests, map[string]string{"environment": "production"}).ID, ended)
	if faulty.State != operation.Failed {
		t.Errorf("with a faulty suite: %s", faulty.State)
	}
	contains(t, faulty.Summary, suite, "colour: there is no such key")
	url := p.until(smokeTests+"/"+p.beginAs(identity.Admin, smokeTests, map[string]string{"url": p.gateway.URL}).ID, ended)
	if url.State != operation.Succeeded || len(reportOf(t, url).Checks) != 13 {
		t.Errorf("of a URL, which has no suites: %s %s", url.Summary, url.Outcome)
	}
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
		"not a url":   {identity.Admin, map[string]string{"url": "ftp://x"}, 422, "address to test"},
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
