package gateway

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

func TestRoutesAndRoles(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	for app, text := range map[string]string{"student-service": "students", "configuration-service": "configurations", "ops-service": "ops"} {
		p.set(app, nil, newBackend(t, app, "r", say(text)).Instance)
		p.await(app, 1)
	}
	for _, c := range []struct {
		role         identity.Role
		method, path string
		status       int
		body         string
	}{
		{"", "GET", "/api/v1/students", 401, "unauthorized"},
		{identity.Viewer, "GET", "/api/v1/students", 200, "students"},
		{identity.Viewer, "GET", "/api/v1/students/STU-1?q=a", 200, "students"},
		{identity.Viewer, "POST", "/api/v1/students", 403, "forbidden"},
		{identity.Clerk, "POST", "/api/v1/students", 200, "students"},
		{identity.Operator, "GET", "/api/v1/students/STU-1", 200, "students"},
		{identity.Operator, "POST", "/api/v1/students", 200, "students"},
		{identity.Operator, "GET", "/api/v1/configurations/settings", 200, "configurations"},
		{identity.Operator, "PUT", "/api/v1/configurations/settings/1", 403, "forbidden"},
		{identity.Viewer, "POST", "/api/v1/ops/rollouts", 403, "forbidden"},
		{identity.Clerk, "GET", "/api/v1/configurations/settings", 200, "configurations"},
		{identity.Clerk, "PUT", "/api/v1/configurations/settings/1", 403, "forbidden"},
		{identity.Admin, "PUT", "/api/v1/configurations/settings/1", 200, "configurations"},
		{identity.Operator, "POST", "/api/v1/ops/rollouts", 200, "ops"},
		{identity.Clerk, "GET", "/api/v1/ops/rollouts", 403, "forbidden"},
		{identity.Admin, "GET", "/api/v1/registry/splits/x", 404, "not-found"},
		{identity.Admin, "GET", "/api/v1/studentsx", 404, "not-found"},
		{identity.Admin, "GET", "/api/v2/students", 404, "not-found"},
		{identity.Admin, "TRACE", "/api/v1/students", 405, "not-found"},
		{identity.Admin, "GET", "/api/v1/students//x", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/%2e%2e/ops", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/..%2fops", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/a;b=c", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/a%3bb", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/a%5cb", 400, "validation-error"},
		{identity.Admin, "GET", "/api/v1/students/%252e", 400, "validation-error"},
		{"", "GET", "//api/v1/students", 400, "validation-error"},
		{"", "GET", "/actuator/../api/v1/students", 400, "validation-error"},
	} {
		got := p.do(c.role, c.method, c.path, "")
		if got.status != c.status || !strings.Contains(got.body, c.body) {
			t.Errorf("%s %s %s: %d %s, want %d %s", c.role, c.method, c.path, got.status, got.body, c.status, c.body)
		}
	}
}

func TestStagingHasItsOwnInstancesAndNoOps(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "staging")
	p.set("student-service", nil, newBackend(t, "p", "r", say("production")).Instance)
	p.set("ops-service", nil, newBackend(t, "o", "r", say("ops")).Instance)
	p.set("student-service-staging", nil, newBackend(t, "s", "r", say("staging")).Instance)
	p.await("student-service", 1)
	if got := p.do(identity.Viewer, "GET", "/api/v1/students", ""); got.body != "staging" {
		t.Errorf("%+v", got)
	}
	if got := p.do(identity.Admin, "GET", "/api/v1/ops/rollouts", ""); got.status != 404 {
		t.Errorf("%+v", got)
	}
}

func TestForgedHeadersAreDropped(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.students(nil, newBackend(t, "one", "r", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-ID", r.Header.Get("X-Request-ID"))
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(r.Header)
	}))
	got := p.do(identity.Viewer, "GET", "/api/v1/students", "",
		"X-User-ID", "root", "x-user-role", "admin", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Prefix", "/evil",
		"X-Real-IP", "6.6.6.6", "Forwarded", "for=6.6.6.6", "X-SMS-Release", "x",
		"Connection", "Authorization, Traceparent, X-Request-ID, X-User-ID, X-Forwarded-For, X-Other",
		"X-Other", "1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-ID", "mine")
	var seen http.Header
	if err := json.Unmarshal([]byte(got.body), &seen); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	for _, name := range []string{"X-User-Id", "X-User-Role", "X-Real-Ip", "Forwarded", "X-Forwarded-Prefix", "X-Sms-Release", "X-Other", "Connection"} {
		if _, ok := seen[name]; ok {
			t.Errorf("%s came through: %q", name, seen[name])
		}
	}
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Request-Id": "mine",
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		if strings.Join(seen[name], "|") != want {
			t.Errorf("%s is %q, want %s", name, seen[name], want)
		}
	}
	if !strings.HasPrefix(seen.Get("Authorization"), "Bearer ") {
		t.Error("the token was stripped")
	}
	for name, want := range map[string]string{"X-Request-ID": "mine", "Cache-Control": "no-store", "X-SMS-Release": "r"} {
		if values := got.header.Values(name); strings.Join(values, "|") != want {
			t.Errorf("answered %s: %q, want %s once", name, values, want)
		}
	}
}

// TestStreamsAnswers sends a second event only after the caller has the first.
func TestStreamsAnswers(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	received := make(chan struct{})
	p.students(nil, newBackend(t, "one", "r", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n")
		_ = http.NewResponseController(w).Flush()
		<-received
		_, _ = io.WriteString(w, "data: two\n")
	}))
	res, err := http.DefaultClient.Do(p.request(identity.Viewer, "GET", "/api/v1/students", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if !lines.Scan() || lines.Text() != "data: one" {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	close(received)
	if !lines.Scan() || lines.Text() != "data: two" {
		t.Errorf("%q, %v", lines.Text(), lines.Err())
	}
}

// TestStreamsBodies sends the second part of a body only after the instance has the first.
func TestStreamsBodies(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	received := make(chan string)
	p.students(nil, newBackend(t, "one", "r", func(w http.ResponseWriter, r *http.Request) {
		part := make([]byte, 3)
		for range 2 {
			_, _ = io.ReadFull(r.Body, part)
			received <- string(part)
		}
	}))
	body, send := io.Pipe()
	done := make(chan error)
	go func() {
		res, err := http.DefaultClient.Do(p.request(identity.Clerk, "POST", "/api/v1/students", body))
		if err == nil {
			err = res.Body.Close()
		}
		done <- err
	}()
	for _, part := range []string{"one", "two"} {
		_, _ = io.WriteString(send, part)
		if got := <-received; got != part {
			t.Errorf("%q, want %q", got, part)
		}
	}
	send.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTooLargeBody(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.MaxBodyBytes = 100
	p := newPlatform(t, cfg, "production")
	p.students(nil, newBackend(t, "one", "r", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	if got := p.do(identity.Clerk, "POST", "/api/v1/students", strings.Repeat("x", 200)); got.status != 413 {
		t.Errorf("%+v", got)
	}
}
