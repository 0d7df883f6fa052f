package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
)

// TestWalk does what the README says, on one platform, and rolls out releases under load.
func TestWalk(t *testing.T) {
	t.Parallel()
	p := up(t, newDataDir(t))
	p.run(t, "status and doctor", walkStatus)
	p.run(t, "students", walkStudents)
	p.run(t, "settings", walkSettings)
	p.run(t, "every service answers its own paths", walkActuators)
	p.run(t, "command line refuses wrong usage", walkUsage)
	p.run(t, "smoke tests", walkSmoke)
	p.run(t, "backup", walkBackup)
	p.run(t, "schedules", walkSchedules)
	p.run(t, "rollouts under load", walkRollouts)
	p.run(t, "histories", walkHistories)
	p.run(t, "no secret is in sight", func(_ *testing.T, p *platform) { p.noSecretIn() })
}

// run makes a subtest the one that the platform's helpers fail.
func (p *platform) run(t *testing.T, name string, f func(*testing.T, *platform)) {
	t.Run(name, func(t *testing.T) {
		whole := p.t
		p.t = t
		defer func() { p.t = whole }()
		f(t, p)
	})
}

func walkStatus(t *testing.T, p *platform) {
	if out := p.mustSMS("status"); !strings.Contains(out, "production/student-service-2") || !strings.Contains(out, "staging/api-gateway-1") {
		t.Errorf("sms status:\n%s", out)
	}
	if out := p.mustSMS("doctor"); strings.Contains(out, "FAULT") || !strings.Contains(out, "SMS_GATEWAY_PORT") {
		t.Errorf("sms doctor:\n%s", out)
	}
	if out := p.mustSMS("version"); !strings.HasPrefix(out, "sms ") {
		t.Errorf("sms version: %s", out)
	}
	for name, path := range map[string]string{"gateway": "/docs", "temporal UI": "/"} {
		if a, err := send(http.DefaultClient, http.MethodGet, p.status.URLs[name]+path, nil); err != nil || a.Status != http.StatusOK {
			t.Errorf("%s%s answers %d, %v", name, path, a.Status, err)
		}
	}
}

type problem struct {
	Type   string
	Status int
	Errors []struct{ Field, Code, Detail string }
}

func walkStudents(t *testing.T, p *platform) {
	created := p.call(http.MethodPost, "/api/v1/students", student("9876543210"))
	if created.Status != http.StatusCreated || created.Header.Get("ETag") == "" || created.Header.Get("X-Request-ID") == "" {
		t.Fatalf("create: %d %v\n%s", created.Status, created.Header, created.Body)
	}
	var made struct{ StudentID, Status string }
	created.into(t, &made)
	if found := p.call(http.MethodGet, "/api/v1/students/"+made.StudentID, nil); found.Status != http.StatusOK {
		t.Errorf("read: %d %s", found.Status, found.Body)
	}
	var page struct {
		TotalElements int
		Content       []struct{ StudentID string }
	}
	p.call(http.MethodGet, "/api/v1/students?mobile=9876543210", nil).into(t, &page)
	if page.TotalElements != 1 || page.Content[0].StudentID != made.StudentID {
		t.Errorf("search: %+v", page)
	}
	path := "/api/v1/students/" + made.StudentID
	if a := p.call(http.MethodPatch, path, map[string]any{"firstName": "Aasha"}); a.Status != http.StatusPreconditionRequired {
		t.Errorf("a change without If-Match: %d %s", a.Status, a.Body)
	}
	changed := p.call(http.MethodPatch, path, map[string]any{"firstName": "Aasha"}, "If-Match", created.Header.Get("ETag"), "Content-Type", "application/merge-patch+json")
	if changed.Status != http.StatusOK {
		t.Errorf("a change: %d %s", changed.Status, changed.Body)
	}
	if a := p.call(http.MethodDelete, path, nil, "If-Match", created.Header.Get("ETag")); a.Status != http.StatusPreconditionFailed {
		t.Errorf("a stale delete: %d %s", a.Status, a.Body)
	}
	if a := p.call(http.MethodDelete, path, nil, "If-Match", changed.Header.Get("ETag")); a.Status >= 300 {
		t.Errorf("a delete: %d %s", a.Status, a.Body)
	}
	p.call(http.MethodGet, path, nil).into(t, &made)
	if made.Status != "INACTIVE" {
		t.Errorf("after the delete: %+v", made)
	}

	anonymous, err := send(http.DefaultClient, http.MethodGet, p.status.URLs["gateway"]+path, nil)
	if err != nil || anonymous.Status != http.StatusUnauthorized {
		t.Errorf("without a token: %d, %v", anonymous.Status, err)
	}
	broken := p.call(http.MethodPost, "/api/v1/students", map[string]any{"firstName": "A", "dateOfBirth": "yesterday", "mobile": "12", "nickname": "x"})
	var faults problem
	broken.into(t, &faults)
	var fields []string
	for _, e := range faults.Errors {
		fields = append(fields, e.Field)
	}
	if broken.Status != http.StatusUnprocessableEntity || broken.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a broken body: %d %s", broken.Status, broken.Header.Get("Content-Type"))
	}
	for _, want := range []string{"firstName", "lastName", "dateOfBirth", "mobile", "address", "nickname"} {
		if !slices.ContainsFunc(fields, func(f string) bool { return f == want || strings.HasPrefix(f, want+".") }) {
			t.Errorf("the answer does not name %s: %v", want, fields)
		}
	}
	clerk := strings.TrimSpace(p.mustSMS("token", "create", "--user", "meera", "--role", "viewer"))
	if a, err := send(http.DefaultClient, http.MethodPost, p.status.URLs["gateway"]+"/api/v1/students", student("9876543211"),
		"Authorization", "Bearer "+clerk); err != nil || a.Status != http.StatusForbidden {
		t.Errorf("a viewer who writes: %d %s %v", a.Status, a.Body, err)
	}
}

func walkSettings(t *testing.T, p *platform) {
	if a := p.call(http.MethodGet, "/api/v1/configurations/settings", nil); a.Status != http.StatusOK || !strings.Contains(string(a.Body), "SCHOOL_TIMEZONE") {
		t.Errorf("settings: %d %s", a.Status, a.Body)
	}
	setting := map[string]any{"category": "GENERAL", "key": "SCHOOL_MOTTO", "value": "Satyameva jayate", "description": "On the letterhead"}
	if a := p.call(http.MethodPost, "/api/v1/configurations/settings", setting); a.Status != http.StatusCreated {
		t.Errorf("a new setting: %d %s", a.Status, a.Body)
	}
	var faults problem
	a := p.call(http.MethodPost, "/api/v1/configurations/settings", setting)
	a.into(t, &faults)
	if a.Status != http.StatusConflict || !strings.HasSuffix(faults.Type, "/duplicate-setting") {
		t.Errorf("the same again: %d %s", a.Status, a.Body)
	}
	walkAgeLimits(t, p)
}

// walkAgeLimits raises the least age: the student service refuses within 5 s, and takes again when it is back.
func walkAgeLimits(t *testing.T, p *platform) {
	young := student("9876543212")
	young["dateOfBirth"] = time.Now().AddDate(-4, 0, -30).Format(time.DateOnly)
	for _, c := range []struct {
		least   string
		refused bool
	}{{"6", true}, {"3", false}} {
		var academic []struct {
			SettingID, Version int64
			Key                string
		}
		p.call(http.MethodGet, "/api/v1/configurations/settings/category/ACADEMIC", nil).into(t, &academic)
		for _, s := range academic {
			if s.Key != "MIN_STUDENT_AGE" {
				continue
			}
			path := fmt.Sprintf("/api/v1/configurations/settings/%d", s.SettingID)
			if a := p.call(http.MethodPut, path, map[string]string{"value": c.least}, "If-Match", fmt.Sprintf(`"%d"`, s.Version)); a.Status != http.StatusOK {
				t.Fatalf("set the least age: %d %s", a.Status, a.Body)
			}
		}
		eventually(t, 5*time.Second, "a child of 4 where the least age is "+c.least, func() (bool, string) {
			a := p.call(http.MethodPost, "/api/v1/students", young)
			return (a.Status == http.StatusUnprocessableEntity) == c.refused, fmt.Sprintf("%d %s", a.Status, a.Body)
		})
	}
}

func walkActuators(t *testing.T, p *platform) {
	for _, ps := range p.status.Processes {
		if ps.Name == "postgres" || ps.Name == "temporal-server" {
			continue
		}
		for _, path := range []string{"/actuator/health", "/actuator/health/liveness", "/actuator/health/readiness", "/actuator/info",
			"/actuator/prometheus", "/openapi.json", "/openapi.yaml", "/docs"} {
			a, err := send(http.DefaultClient, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", ps.Port, path), nil)
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("%s%s: %d %v", ps.Name, path, a.Status, err)
			}
		}
	}
	if a := p.call(http.MethodGet, "/openapi.json", nil); !strings.Contains(string(a.Body), `"3.1`) || !strings.Contains(string(a.Body), "/api/v1/students/{studentId}") ||
		!strings.Contains(string(a.Body), "/api/v1/ops/backups") {
		t.Errorf("the gateway's document lacks what its services offer: %.300s", a.Body)
	}
}

func walkUsage(t *testing.T, p *platform) {
	for _, args := range [][]string{{"token", "create"}, {"nonsense"}, {"backup", "run"}, {"rollout", "start", "student-service"}, {"rollout", "start"}, {"status", "--nonsense"}, {"restart", "nonsense"}} {
		if out, code := p.sms(args...); code != 2 {
			t.Errorf("sms %v: exit %d, want 2\n%s", args, code, out)
		}
	}
	if out, code := p.sms("backup", "run", "no_such_db"); code != 1 || !strings.Contains(out, "student_db") {
		t.Errorf("an unknown database: exit %d, and the answer should name the known ones:\n%s", code, out)
	}
}

func walkSmoke(t *testing.T, p *platform) {
	for _, environment := range []string{"production", "staging"} {
		if out := p.mustSMS("smoke", "run", "--env", environment, "--wait"); !strings.Contains(out, "passed") {
			t.Errorf("smoke test of %s:\n%s", environment, out)
		}
	}
	if out := p.mustSMS("smoke", "list"); !strings.Contains(out, "production") {
		t.Errorf("smoke list:\n%s", out)
	}
}

func walkBackup(t *testing.T, p *platform) {
	if out := p.mustSMS("backup", "run", "student_db", "--wait"); !strings.Contains(out, "verified") {
		t.Errorf("backup:\n%s", out)
	}
	var listed struct {
		Content []struct{ ID, State, Subject string }
	}
	a := p.call(http.MethodGet, "/api/v1/ops/backups", nil)
	if err := json.Unmarshal(a.Body, &listed); err != nil || len(listed.Content) != 1 || listed.Content[0].State != "verified" {
		t.Errorf("the list of backups: %s", a.Body)
	}
	if out := p.mustSMS("backup", "prune", "student_db", "--dry-run"); !strings.Contains(out, "keep  daily: younger than 30 days") || !strings.Contains(out, "1 kept, 0 deleted") {
		t.Errorf("what retention would do:\n%s", out)
	}
	files, _ := filepath.Glob(filepath.Join(p.dataDir, "backups", "*", "*"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || strings.Contains(file, ".tmp") {
			t.Errorf("%s: mode %v", filepath.Base(file), info.Mode())
		}
	}
}

func walkSchedules(t *testing.T, p *platform) {
	out := p.mustSMS("schedule", "list")
	for _, want := range []string{"backup-student_db-nightly", "backup-temporal-nightly", "smoke-production-hourly", "Asia/Kolkata"} {
		if !strings.Contains(out, want) {
			t.Errorf("schedule list lacks %s:\n%s", want, out)
		}
	}
	if out := p.mustSMS("schedule", "next", "backup-student_db-nightly"); strings.Count(out, "02:00") < 3 {
		t.Errorf("next runs:\n%s", out)
	}
}

// releaseOf makes another release of a service: the same program, with bytes behind its end that nothing reads.
func releaseOf(t *testing.T, service, mark string) string {
	t.Helper()
	content, err := os.ReadFile(binary(t, service))
	if err != nil {
		t.Fatal(err)
	}
	return writeRelease(t, service, string(content)+"\n"+mark)
}

func writeRelease(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// releases returns the digests that run of a production service.
func (p *platform) releases(service string) []string {
	p.refresh()
	var digests []string
	for _, ps := range p.status.Processes {
		if strings.HasPrefix(ps.Name, "production/"+service+"-") {
			digests = append(digests, ps.Release)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(digests)))
}

func walkRollouts(t *testing.T, p *platform) {
	created := p.call(http.MethodPost, "/api/v1/students", student("9000000001"))
	var made struct{ StudentID string }
	created.into(t, &made)
	l := startLoad(p, "/api/v1/students/"+made.StudentID)
	defer l.end()

	for _, service := range []string{"student-service", "configuration-service", "api-gateway"} {
		before := p.releases(service)
		out := p.mustSMS("rollout", "start", service+"="+releaseOf(t, service, "good"), "--env", "production", "--unproven", "a test", "--soak", "1s", "--wait")
		after := p.releases(service)
		if !strings.Contains(out, "succeeded") || len(after) != 1 || slices.Equal(before, after) {
			t.Fatalf("a good release of %s: before %v, after %v\n%s", service, before, after, out)
		}
	}

	good := p.releases("student-service")
	breaksQueries := "#!/bin/sh\nexport DATABASE_URL=\"$DATABASE_URL?search_path=nowhere\"\nexec " +
		filepath.Join(p.dataDir, "releases", "student-service", strings.TrimPrefix(good[0], "sha256:"), "student-service") + "\n"
	for name, bad := range map[string]struct{ script, reason string }{
		"will not start":       {"#!/bin/sh\necho no such setting >&2\nexit 3\n", "ended with status 3: no such setting"},
		"never ready":          {"#!/bin/sh\nexec tail -f /dev/null\n", "not ready in time"},
		"fails the smoke test": {breaksQueries, "expected status 200, found status 500"},
	} {
		p.run(t, name, func(t *testing.T, p *platform) {
			out, code := p.sms("rollout", "start", "student-service="+writeRelease(t, "student-service", bad.script), "--env", "production", "--unproven", "a test",
				"--soak", "1s", "--ready-within", "5s", "--wait")
			if code != 1 || !strings.Contains(out, bad.reason) || !strings.Contains(out, "rolled-back") {
				t.Errorf("exit %d, want 1 with %q\n%s", code, bad.reason, out)
			}
			if now := p.releases("student-service"); !slices.Equal(now, good) {
				t.Errorf("%v runs, want %v", now, good)
			}
		})
	}
	p.run(t, "aborted at its first weight", func(t *testing.T, p *platform) { walkAbort(t, p, good) })
	if out := p.mustSMS("rollout", "list"); strings.Count(out, "succeeded") != 3 || strings.Count(out, "rolled-back") != 3 {
		t.Errorf("rollout list:\n%s", out)
	}
}

func walkAbort(t *testing.T, p *platform, good []string) {
	id := p.begin("rollout", "start", "student-service="+releaseOf(t, "student-service", "abort"), "--env", "production", "--unproven", "a test", "--soak", "10m")
	if out, code := p.sms("rollout", "start", "student-service="+releaseOf(t, "student-service", "second"), "--env", "production", "--unproven", "a test"); code != 1 || !strings.Contains(out, id) {
		t.Errorf("a second rollout of the same service: exit %d, and the answer should name %s:\n%s", code, id, out)
	}
	eventually(t, operationWithin, "10 % of the traffic", func() (bool, string) {
		out := p.mustSMS("rollout", "list")
		return strings.Contains(out, "running at 10 %"), out
	})
	if out := p.mustSMS("rollout", "abort", id, "--reason", "wrong build", "--wait"); !strings.Contains(out, "aborted by admin: wrong build") {
		t.Errorf("abort:\n%s", out)
	}
	if now := p.releases("student-service"); !slices.Equal(now, good) {
		t.Errorf("%v runs, want %v", now, good)
	}
	if out, code := p.sms("rollout", "abort", id, "--reason", "again"); code != 1 || !strings.Contains(out, "has ended") {
		t.Errorf("a second abort: exit %d\n%s", code, out)
	}
}

// record makes tests write the histories of their rollouts to where the replay test reads them. Each has a name of its own there, so that
// those of earlier shapes stay.
var record = flag.String("record", "", "write the histories of rollouts to workflows/rollout/testdata, with names that begin so")

// walkHistories looks for what has run in the web UI.
func walkHistories(t *testing.T, p *platform) {
	var listed struct {
		Content []struct{ State, WorkflowID, RunID string }
	}
	p.call(http.MethodGet, "/api/v1/ops/rollouts", nil).into(t, &listed)
	if len(listed.Content) == 0 {
		t.Fatal("no rollouts are listed")
	}
	// The web UI shows them all: this is what its pages are made of.
	shown, err := send(http.DefaultClient, http.MethodGet, p.status.URLs["temporal UI"]+"/api/v1/namespaces/sms/workflows", nil)
	if err != nil || shown.Status != http.StatusOK {
		t.Fatalf("the web UI's list of workflows: %d %v", shown.Status, err)
	}
	for _, want := range []string{`"Rollout"`, `"Backup"`, `"RestoreDrill"`, `"SmokeTest"`, `"rollout/production/student-service"`} {
		if !strings.Contains(string(shown.Body), want) {
			t.Errorf("the web UI does not show %s", want)
		}
	}
	p.recordRollouts("")
}

// recordRollouts keeps one history of each way that a rollout of a test has gone, with -record.
func (p *platform) recordRollouts(of string) {
	p.t.Helper()
	if *record == "" {
		return
	}
	var listed struct {
		Content []struct {
			State, WorkflowID, RunID string
			Input                    rollout.Request
		}
	}
	p.call(http.MethodGet, "/api/v1/ops/rollouts", nil).into(p.t, &listed)
	for _, r := range listed.Content {
		name := r.State
		if s := r.Input.Strategy; s != "" && s != rollout.Canary {
			name = s + "-" + name
		}
		switch {
		case strings.HasPrefix(r.WorkflowID, "rollout-plan/"):
			name = "plan-" + r.State
		case r.Input.Rollback:
			name = "rollback-" + r.State
		case r.Input.Converge:
			name = "converged"
		}
		p.writeHistory(p.temporal(), r.WorkflowID, r.RunID, of+name)
	}
}

// recordLongest keeps the longest history of a workflow of a type, with -record.
func (p *platform) recordLongest(workflow string) {
	p.t.Helper()
	if *record == "" {
		return
	}
	c := p.temporal()
	runs, err := c.ListWorkflow(context.Background(), &workflowservice.ListWorkflowExecutionsRequest{Query: "WorkflowType = '" + workflow + "'"})
	if err != nil {
		p.t.Fatal(err)
	}
	longest := slices.MaxFunc(runs.GetExecutions(), func(a, b *workflowpb.WorkflowExecutionInfo) int {
		return int(a.GetHistoryLength() - b.GetHistoryLength())
	}).GetExecution()
	p.writeHistory(c, longest.GetWorkflowId(), longest.GetRunId(), strings.ToLower(workflow))
}

func (p *platform) writeHistory(c client.Client, workflowID, runID, name string) {
	p.t.Helper()
	if err := temporaltest.WriteHistory(c, workflowID, runID, filepath.Join(histories, *record+"-"+name+".json")); err != nil {
		p.t.Error(err)
	}
}

// histories is where the replay test reads them.
var histories = filepath.Join("..", "..", "workflows", "rollout", "testdata")

// temporal is a client of the platform's Temporal, for the rest of the test.
func (p *platform) temporal() client.Client {
	p.t.Helper()
	c, err := client.Dial(client.Options{HostPort: fmt.Sprintf("127.0.0.1:%d", p.status.Ports["temporal-server"]), Namespace: "sms"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}
