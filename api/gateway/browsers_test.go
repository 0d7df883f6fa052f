package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
)

func TestPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	cfg := DoorConfig{CORSOrigins: []string{"https://school.example", "http://localhost:3000"}, CORSMaxAge: time.Hour}
	p := doorPlatform(t, cfg, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			t.Error("a preflight reached an instance")
		}
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Vary", "Accept")
		_, _ = io.WriteString(w, "students")
	})
	for name, c := range map[string]struct{ origin, method, headers, allowed string }{
		"a page that may": {"https://school.example", "PUT", "authorization,if-match", "https://school.example"},
		"all headers": {"http://localhost:3000", "POST", "authorization,content-type,idempotency-key,if-match,if-none-match,traceparent," +
			"x-request-id,x-sms-position", "http://localhost:3000"},
		"another page":       {"https://evil.example", "GET", "", ""},
		"another scheme":     {"http://school.example", "GET", "", ""},
		"another port":       {"https://school.example:8443", "GET", "", ""},
		"a longer name":      {"https://school.example.evil.example", "GET", "", ""},
		"no page":            {"null", "GET", "", ""},
		"a method too many":  {"https://school.example", "TRACE", "", ""},
		"a header too many":  {"https://school.example", "GET", "x-user-id", ""},
		"the release header": {"https://school.example", "GET", "x-sms-release", ""},
	} {
		headers := []string{"Origin", c.origin, "Access-Control-Request-Method", c.method}
		if c.headers != "" {
			headers = append(headers, "Access-Control-Request-Headers", c.headers)
		}
		got := p.do("", "OPTIONS", "/api/v1/students", "", headers...)
		if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != c.allowed || !strings.Contains(got.header.Get("Vary"), "Origin") {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
		if c.allowed != "" && (got.header.Get("Access-Control-Max-Age") != "3600" || got.header.Get("Access-Control-Allow-Methods") != c.method) {
			t.Errorf("%s: %v", name, got.header)
		}
		if got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: credentials are allowed", name)
		}
	}
	got := p.do(identity.Viewer, "GET", "/api/v1/students", "", "Origin", "https://school.example")
	got.want(t, 200, "students")
	if strings.Join(got.header.Values("Access-Control-Allow-Origin"), "|") != "https://school.example" ||
		strings.Join(got.header.Values("Vary"), "|") != "Origin|Accept" ||
		!strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "Ratelimit-Policy") {
		t.Errorf("%v", got.header)
	}
	got = p.do("", "GET", "/api/v1/students", "", "Origin", "https://school.example") // a page must be able to read a refusal
	got.want(t, 401, "unauthorized")
	if got.header.Get("Access-Control-Allow-Origin") != "https://school.example" {
		t.Errorf("%v", got.header)
	}
	got = p.do(identity.Viewer, "GET", "/api/v1/students", "", "Origin", "https://evil.example")
	if _, ok := got.header["Access-Control-Allow-Origin"]; ok || strings.Join(got.header.Values("Vary"), "|") != "Origin|Accept" {
		t.Errorf("%v", got.header)
	}

	without := doorPlatform(t, DoorConfig{}, say("students"))
	got = without.do("", "OPTIONS", "/api/v1/students", "", "Origin", "https://school.example", "Access-Control-Request-Method", "GET")
	if got.status == 204 || got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no origins are set, and one is allowed: %d %v", got.status, got.header)
	}
}

// TestEveryAnswerIsSafe looks at answers of every kind.
func TestEveryAnswerIsSafe(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.MaxBodyBytes = 100
	cfg.Door = DoorConfig{MaxHeaders: 30, HSTSMaxAge: 24 * time.Hour, UserRate: 1, UserBurst: 50, LimitedClients: 1000}
	p := newPlatform(t, cfg, "production")
	p.gateway.door.users.now = (&clock{}).Load
	p.students(nil, newBackend(t, "one", "r", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src *")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	many := []string{}
	for i := range 40 {
		many = append(many, "X-Many", fmt.Sprint(i))
	}
	check := func(got answer, status int, policy string) {
		t.Helper()
		if got.status != status {
			t.Errorf("%d %s, want %d", got.status, got.body, status)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": policy,
			"Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=86400"} {
			if values := got.header.Values(name); len(values) != 1 || !strings.HasPrefix(values[0], want) {
				t.Errorf("%d: %s is %q, want %s once", status, name, values, want)
			}
		}
		if got.header.Get("X-Request-ID") == "" {
			t.Errorf("%d: no request id", status)
		}
	}
	const nothing = "default-src 'none'; frame-ancestors 'none'"
	check(p.do(identity.Clerk, "GET", "/api/v1/students", ""), 200, nothing)
	check(p.do("", "GET", "/api/v1/students", ""), 401, nothing)
	check(p.do(identity.Viewer, "POST", "/api/v1/students", "{}"), 403, nothing)
	check(p.do(identity.Viewer, "GET", "/api/v1/nothing", ""), 404, nothing)
	check(p.do("", "GET", "/nothing", ""), 404, nothing)
	check(p.do(identity.Viewer, "TRACE", "/api/v1/students", ""), 405, nothing)
	check(p.do(identity.Viewer, "GET", "/api/v1//students", ""), 400, nothing)
	check(p.do(identity.Clerk, "POST", "/api/v1/students", strings.Repeat("x", 200)), 413, nothing)
	check(p.do(identity.Clerk, "GET", "/api/v1/students", "", many...), 431, nothing)
	check(p.do(identity.Viewer, "GET", "/api/v1/configurations/settings", ""), 503, nothing)
	check(p.do("", "GET", "/actuator/health", ""), 200, nothing)
	check(p.do("", "GET", "/openapi.json", ""), 200, nothing)
	check(p.do("", "GET", "/docs", ""), 200, "default-src 'none'; ")
	if docs := p.do("", "GET", "/docs", "").header.Get("Content-Security-Policy"); !strings.Contains(docs, "frame-ancestors 'none'") {
		t.Errorf("the page may be framed: %s", docs)
	}
	for range 50 {
		p.do(identity.Operator, "GET", "/api/v1/nothing", "")
	}
	check(p.do(identity.Operator, "GET", "/api/v1/ops/rollouts", ""), 429, nothing)
	plain := doorPlatform(t, DoorConfig{}, say("students"))
	got := plain.do(identity.Viewer, "GET", "/api/v1/students", "")
	if got.header.Get("Strict-Transport-Security") != "" || got.header.Get("RateLimit") != "" {
		t.Errorf("%v", got.header)
	}
}
