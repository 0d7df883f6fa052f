package hostile

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/test/processes"
)

// TestForgedHeaders sends what only the gateway may say, in every spelling, and has Connection name what must stay.
func TestForgedHeaders(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	token := p.bearer(identity.Clerk)
	forged := []string{"X-User-ID", "X-User-Role", "X-Real-IP", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
		"X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-User", "X-Forwarded-Client-Cert", "X-SMS-Release", "X_User_ID", "X_User_Role", "X-User_ID", "X_Forwarded_For"}
	head := []string{"POST " + students + "/forged HTTP/1.1", "Host: sms", "Authorization: " + token, "X-Request-ID: mine",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Mine: 1",
		"Connection: close, Authorization, X-Request-ID, Traceparent, X-User-ID, X-Forwarded-For, X-Mine",
		"Transfer-Encoding: chunked", "Trailer: X-User-ID, Authorization"}
	for _, name := range forged {
		for _, spelling := range []string{name, name, strings.ToLower(name), strings.ToUpper(name)} {
			head = append(head, spelling+": forged")
		}
	}
	a := send(t, p.gateway, lines(head...)+"5\r\nhello\r\n0\r\nX-User-ID: forged\r\nX-User-Role: forged\r\nAuthorization: Bearer forged\r\n\r\n")
	got := p.service.got("/forged")
	if !slices.Equal(a.status, []int{200}) || len(got) != 1 {
		t.Fatalf("%v %q, came %d times", a.status, a.bodies, len(got))
	}
	for _, where := range []http.Header{got[0].header, got[0].trailer} {
		for name, values := range where {
			if strings.Contains(strings.Join(values, ","), "forged") || name == "X-Mine" || name == "Trailer" {
				t.Errorf("%s came through: %q", name, values)
			}
		}
	}
	if len(got[0].trailer) > 0 || p.service.sawBytes("Bearer forged") {
		t.Errorf("a trailer came through: %v", got[0].trailer)
	}
	for name, want := range map[string]string{"Authorization": token, "X-Request-Id": "mine",
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "sms", "X-Forwarded-Proto": "http"} {
		if values := got[0].header[name]; !slices.Equal(values, []string{want}) {
			t.Errorf("%s is %d values, want one, as it should be", name, len(values))
		}
	}
	if traceparent := got[0].header.Get("Traceparent"); !strings.HasPrefix(traceparent, "00-0af7651916cd43dd8448eb211c80319c-") {
		t.Errorf("the trace was lost: %q", traceparent)
	}
}

// TestReleaseIsPickedByOperators asks for a release that gets no traffic: from anybody else the wish is not heard.
func TestReleaseIsPickedByOperators(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	client := discovery.NewClient(discovery.Config{URL: p.registry.URL + "/eureka", Timeout: processes.Patience}).
		WithToken(func() (string, error) { return strings.TrimPrefix(p.bearer(identity.Operator), "Bearer "), nil })
	must(t, client.SetSplit(t.Context(), "student-service", discovery.Split{"recorder": 100, "canary": 0}, 1))
	newService(t, p.registry, "canary", nil)
	released := func(role identity.Role) string {
		a := send(t, p.gateway, get("", "Authorization: "+p.bearer(role), "X-SMS-Release: canary"))
		if !slices.Equal(a.status, []int{200}) {
			t.Fatalf("%s: %v %q", role, a.status, a.bodies)
		}
		return a.header[0].Get("X-SMS-Release")
	}
	processes.Until(t, "the canary is there", func() bool { return released(identity.Admin) == "canary" })
	for range 20 {
		for role, want := range map[identity.Role]string{identity.Admin: "canary", identity.Clerk: "recorder", identity.Viewer: "recorder"} {
			if got := released(role); got != want {
				t.Fatalf("%s asked for the canary and got %s", role, got)
			}
		}
	}
}

// TestTokens sends every token that must not be believed to the gateway, and to a service itself. None is served, and none
// stands in a log.
func TestTokens(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	good := strings.TrimPrefix(p.bearer(identity.Admin), "Bearer ")
	registry := strings.TrimPrefix(p.registry.URL, "http://")
	m := newMint(t, p, good)
	bad := m.badHeaders()
	for _, tokens := range []map[string]string{m.badClaims(), m.badSignatures("http://" + p.gateway + "/keys"), m.broken()} {
		for name, token := range tokens {
			bad[name] = []string{"Authorization: Bearer " + token}
		}
	}
	secrets := []string{good, signature(good)}
	for name, headers := range bad {
		for _, h := range headers {
			if _, token, ok := strings.Cut(h, " ey"); ok {
				secrets = append(secrets, "ey"+token, signature(token))
			}
		}
		t.Run(name, func(t *testing.T) {
			for address, path := range map[string]string{p.gateway: students + "/token-", registry: "/api/v1/registry/splits/x"} {
				if address == registry && len(headers) > 1 && strings.HasPrefix(headers[1], "Authorization:") {
					continue // that is the gateway's to refuse
				}
				head := append([]string{"GET " + path + " HTTP/1.1", "Host: sms", "Connection: close"}, headers...)
				if a := send(t, address, lines(head...)); !slices.Equal(a.status, []int{401}) || !strings.Contains(a.bodies[0], "problems/unauthorized") {
					t.Errorf("%s answered %v %q", path, a.status, a.bodies)
				}
			}
			if p.service.sawBytes("/token-") {
				t.Fatal("it came through")
			}
		})
	}
	inQuery := send(t, p.gateway, get("/query?access_token="+good+"&token="+good, "Cookie: token="+good))
	if !slices.Equal(inQuery.status, []int{401}) || p.service.sawBytes("/query") {
		t.Errorf("a token in the query: %v", inQuery.status)
	}
	huge := send(t, p.gateway, get("/token-", "Authorization: Bearer "+strings.Repeat("a", 100<<10)))
	if huge.first() != 431 {
		t.Errorf("a huge token: %v", huge.status)
	}
	for name, token := range m.fine() {
		if a := send(t, p.gateway, get("/fine", "Authorization: Bearer "+token)); !slices.Equal(a.status, []int{200}) {
			t.Errorf("%s: %v %q", name, a.status, a.bodies)
		}
		secrets = append(secrets, token, signature(token))
	}
	for _, path := range []string{p.log, p.registry.Log} {
		log, err := os.ReadFile(path)
		must(t, err)
		if len(log) == 0 {
			t.Fatalf("%s is empty: there is nothing to look through", path)
		}
		for _, secret := range secrets {
			if len(secret) > 10 && strings.Contains(string(log), secret) {
				t.Errorf("a token stands in %s", path)
			}
		}
	}
}

// signature is the last part of a token, by which it could be made whole again.
func signature(token string) string { return token[strings.LastIndexByte(token, '.')+1:] }
