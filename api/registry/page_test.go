package registry

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
)

func TestPageEscapesAndLoadsNothing(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	const script = `<script>alert(1)</script>`
	r.register(t, "student-service", `one\"><img src=x onerror=alert(1)>`, `,"status":"DOWN"`)
	r.Do(t, "", "POST", "/eureka/apps/odd", `{"instance":{"instanceId":"x","hostName":"`+script+`","app":"ODD","metadata":{"release":"`+script+`","version":"'&"}}}`).Want(204)
	r.Do(t, "", "PUT", "/eureka/apps/odd/x/status?value=OUT_OF_SERVICE", nil).Want(200)
	r.Do(t, identity.Operator, "PUT", "/api/v1/registry/splits/student-service",
		map[string]any{"split": map[string]int{"<b>a</b>": 90, "bbb": 10}, "sticky": true, "fence": 1}).Want(200)
	answer := r.Do(t, "", "GET", "/", nil).Want(200)
	body := string(answer.Body)
	for _, never := range []string{script, "<img", "<b>", "src=", "href=", "http://", "https://", "@import", "url("} {
		if strings.Contains(strings.ReplaceAll(body, "&lt;img src=x onerror", ""), never) {
			t.Errorf("the page holds %s", never)
		}
	}
	for _, wanted := range []string{"&lt;script&gt;", "OUT_OF_SERVICE (set by an operator)", "each user stays with one release", "student-service", "DOWN", "90 %"} {
		if !strings.Contains(body, wanted) {
			t.Errorf("the page does not hold %s", wanted)
		}
	}
	policy := answer.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if strings.Contains(body, "style=") {
		t.Error("the policy refuses a style attribute")
	}
	if to := os.Getenv("REGISTRY_PAGE_FILE"); to != "" { // to look at
		if err := os.WriteFile(to, answer.Body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	r.registry.mu.Lock()
	for i := range maxShown + 7 {
		k := key{"a", string(rune('a'+i%26)) + strings.Repeat("x", i/26)}
		l, err := newLease(k, document{InstanceID: text(k.id), App: "A", HostName: "h", own: "UP"}, time.Hour, 1, &spoken{})
		if err != nil {
			t.Fatal(err)
		}
		r.registry.put(k, l, 1)
	}
	r.registry.mu.Unlock()
	if body := string(r.Do(t, "", "GET", "/", nil).Want(200).Body); !strings.Contains(body, "7 more instances") || strings.Count(body, "<tr>") != maxShown+1 {
		t.Errorf("%d rows", strings.Count(body, "<tr>"))
	}
}
