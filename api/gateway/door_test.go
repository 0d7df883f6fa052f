package gateway

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

// doorPlatform is a platform with a door and one student service.
func doorPlatform(t *testing.T, cfg DoorConfig, handler http.HandlerFunc) *platform {
	t.Helper()
	all := testConfig
	all.Door = cfg
	if all.Door.LimitedClients == 0 {
		all.Door.LimitedClients = 1000
	}
	p := newPlatform(t, all, "production")
	p.students(nil, newBackend(t, "one", "r", handler))
	return p
}

// bearer calls with a token as it is.
func (p *platform) bearer(token, path string) answer {
	p.t.Helper()
	return p.do("", "GET", path, "", "Authorization", "Bearer "+token)
}

func (p *platform) token(user string) string {
	p.t.Helper()
	token, err := p.signer.Sign(user, identity.Viewer, time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

func (a answer) want(t *testing.T, status int, text string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, text) {
		t.Errorf("%d %s, want %d %s", a.status, a.body, status, text)
	}
}

func TestUsersAreLimited(t *testing.T) {
	t.Parallel()
	p := doorPlatform(t, DoorConfig{UserRate: 1, UserBurst: 3}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", "of the instance")
		_, _ = io.WriteString(w, "students")
	})
	now := &clock{}
	p.gateway.door.users.now = now.Load
	asha, again, meera := p.token("asha"), p.token("asha"), p.token("meera")
	for i, token := range []string{asha, again, asha} {
		got := p.bearer(token, "/api/v1/students")
		got.want(t, 200, "students")
		want := fmt.Sprintf(`"user";r=%d;t=%d`, 2-i, i+1)
		if values := got.header.Values("RateLimit"); len(values) != 1 || values[0] != want || got.header.Get("RateLimit-Policy") != `"user";q=3;w=3` {
			t.Errorf("%q %q, want %s", values, got.header.Values("RateLimit-Policy"), want)
		}
	}
	for _, path := range []string{"/api/v1/students", "/api/v1/nothing"} {
		got := p.bearer(again, path) // another token of the same user
		got.want(t, 429, "problems/rate-limited")
		if got.header.Get("Retry-After") != "1" || got.header.Get("RateLimit") != `"user";r=0;t=1` || got.header.Get("X-Request-ID") == "" {
			t.Errorf("%v", got.header)
		}
	}
	p.bearer(meera, "/api/v1/students").want(t, 200, "students")
	now.forward(time.Second)
	p.bearer(asha, "/api/v1/students").want(t, 200, "students")
	p.bearer(asha, "/api/v1/students").want(t, 429, "rate-limited")
	if n := p.gateway.door.users.refused.Load(); n != 3 {
		t.Errorf("%d refused are counted", n)
	}
}

func TestStrangersAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	p := doorPlatform(t, DoorConfig{AddressRate: 1, AddressBurst: 3}, say("students"))
	now := &clock{}
	p.gateway.door.addresses.now = now.Load
	p.verifierRemembers(t)
	good := p.token("asha")
	for range 5 { // the first time it is a stranger's, and given back
		p.bearer(good, "/api/v1/students").want(t, 200, "students")
	}
	got := p.bearer(good, "/api/v1/students")
	if got.header.Get("RateLimit") != "" {
		t.Errorf("a user is told of the address's limit: %v", got.header)
	}
	p.bearer("forged", "/api/v1/students").want(t, 401, "unauthorized")
	p.do("", "GET", "/openapi.json", "").want(t, 200, "openapi")
	p.do("", "GET", "/api/v1/students", "").want(t, 401, "unauthorized")
	for _, token := range []string{"forged", "", p.token("meera")} { // meera's might be good: it is not looked at
		got := p.bearer(token, "/api/v1/students")
		got.want(t, 429, "rate-limited")
		if got.header.Get("Retry-After") != "1" || got.header.Get("RateLimit-Policy") != `"address";q=3;w=3` {
			t.Errorf("%v", got.header)
		}
	}
	p.do("", "GET", "/openapi.json", "").want(t, 429, "rate-limited")
	p.do("", "GET", "/actuator/health", "").want(t, 200, "UP")
	p.bearer(good, "/api/v1/students").want(t, 200, "students")
	now.forward(time.Second)
	p.bearer(p.token("meera"), "/api/v1/students").want(t, 200, "students")
	p.bearer("forged", "/api/v1/students").want(t, 401, "unauthorized")
	p.bearer("forged", "/api/v1/students").want(t, 429, "rate-limited")
}

// verifierRemembers says that the platform's verifier keeps what it has verified: a stranger becomes known.
func (p *platform) verifierRemembers(t *testing.T) {
	t.Helper()
	token := p.token("somebody")
	if _, err := p.verifier.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if _, known := p.verifier.Known(token); !known {
		t.Fatal("the verifier of the tests remembers nothing")
	}
}

func TestTooMuchAtOnceIsShed(t *testing.T) {
	t.Parallel()
	started, finish := make(chan struct{}, 100), make(chan struct{})
	p := doorPlatform(t, DoorConfig{MaxInFlight: 2, MaxLasting: 1, ShedRetryAfter: 3 * time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	answers := make(chan answer, 3)
	call := func(headers ...string) {
		go func() { answers <- p.do(identity.Viewer, "GET", "/api/v1/students", "", headers...) }()
		<-started
	}
	call()
	call()
	for range 20 { // at once, though the others do not end
		got := p.do(identity.Viewer, "GET", "/api/v1/students", "")
		got.want(t, 503, "problems/unavailable")
		if got.header.Get("Retry-After") != "3" {
			t.Errorf("%v", got.header)
		}
	}
	p.do("", "GET", "/actuator/health", "").want(t, 200, "UP")
	p.do("", "GET", "/actuator/prometheus", "").want(t, 200, `gateway_shed_total{kind="short"} 20`)
	call("Accept", "text/event-stream") // these have slots of their own, and use up no others
	p.do(identity.Viewer, "GET", "/api/v1/students?waitForVersion=7", "").want(t, 503, "unavailable")
	p.do(identity.Clerk, "POST", "/api/v1/students", "of unknown length").want(t, 503, "unavailable")
	close(finish)
	for range 3 {
		(<-answers).want(t, 200, "done")
	}
	for range 10 { // all slots are free again
		p.do(identity.Viewer, "GET", "/api/v1/students", "").want(t, 200, "done")
		p.do(identity.Viewer, "GET", "/api/v1/students?a=b&wait=1s", "").want(t, 200, "done")
	}
	if d := p.gateway.door; d.inFlight.taken.Load() != 0 || d.lasting.taken.Load() != 0 {
		t.Errorf("%d and %d slots are not given back", d.inFlight.taken.Load(), d.lasting.taken.Load())
	}
}

// TestFewWaitForAnInstance has requests come for a service that has none.
func TestFewWaitForAnInstance(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.MaxWaiting, cfg.WaitForInstance = 2, time.Minute
	p := newPlatform(t, cfg, "production")
	f := p.gateway.fleets["student-service"]
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- p.do(identity.Viewer, "GET", "/api/v1/students", "") }()
	}
	for tick := time.NewTicker(time.Millisecond); f.waiting.taken.Load() < 2; { // nobody tells of a request that begins to wait
		<-tick.C
	}
	p.do(identity.Viewer, "GET", "/api/v1/students", "").want(t, 503, "unavailable")
	p.students(nil, newBackend(t, "one", "r", say("students")))
	for range 2 {
		(<-answers).want(t, 200, "students")
	}
	if n := f.waiting.taken.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestACallerThatNeverReadsIsCut and lets go of the instance that answers it.
func TestACallerThatNeverReadsIsCut(t *testing.T) {
	t.Parallel()
	let := make(chan error, 1)
	p := doorPlatform(t, DoorConfig{}, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				let <- err
				return
			}
		}
	})
	s := server.New(server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxBodyBytes: 1 << 20,
		BodyIdleTimeout: 20 * time.Second, WriteIdleTimeout: 300 * time.Millisecond}, server.Info{Service: "api-gateway"}, p.verifier, quiet)
	p.gateway.Mount(s)
	conn, err := net.Dial("tcp", listen(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(conn, "GET /api/v1/students HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", p.token("asha")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-let:
	case <-time.After(20 * time.Second):
		t.Fatal("the instance still writes")
	}
}

// TestForgedNamesAreDropped sends names that one server reads as another does not.
func TestForgedNamesAreDropped(t *testing.T) {
	t.Parallel()
	var seen http.Header
	p := doorPlatform(t, DoorConfig{}, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forged := []string{"x-uSeR-iD", "X_User_Id", "X_USER_ROLE", "x-user_id", "X-User-Name", "X-Auth-User", "X-Remote-User", "FORWARDED",
		"forwarded", "X_Forwarded_For", "x-forwarded-user", "X-REAL-IP", "True-Client-IP", "X-Original-URL", "x-rewrite-url",
		"X-HTTP-Method-Override", "X-SMS-RELEASE", "x.user.id", "X-User-ID~"}
	request := "GET /api/v1/students HTTP/1.1\r\nHost: x\r\nConnection: close, X-User-ID, x-user-role, Authorization\r\nX-Fine: 1\r\n" +
		"Authorization: Bearer " + p.token("asha") + "\r\n"
	for _, name := range forged {
		request += name + ": forged\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if answered, _ := io.ReadAll(conn); !strings.HasPrefix(string(answered), "HTTP/1.1 200") {
		t.Fatalf("%s", answered)
	}
	for name, values := range seen {
		if slices.Contains(values, "forged") {
			t.Errorf("%s came through", name)
		}
	}
	want := []string{"Accept-Encoding", "Authorization", "Traceparent", "User-Agent", "X-Fine", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
		"X-Request-Id"}
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if !slices.Contains(want, name) {
			t.Errorf("%s came through: %q", name, seen[name])
		}
	}
	if seen.Get("X-Fine") != "1" || seen.Get("Authorization") == "" {
		t.Errorf("%v", seen)
	}
}

// BenchmarkDoor measures what the door costs a request of a known user: compare on with off.
func BenchmarkDoor(b *testing.B) {
	gin.SetMode(gin.ReleaseMode)
	full := DoorConfig{UserRate: 1_000_000, UserBurst: 4000, AddressRate: 50, AddressBurst: 200, LimitedClients: 65536,
		MaxInFlight: 1024, MaxLasting: 512, MaxHeaders: 100, HSTSMaxAge: time.Hour}
	withCORS := full
	withCORS.CORSOrigins = []string{"https://school.example"}
	for name, cfg := range map[string]*DoorConfig{"off": nil, "on": &full, "on with CORS": &withCORS} {
		b.Run(name, func(b *testing.B) {
			engine := gin.New()
			if cfg != nil {
				d := newDoor(*cfg)
				d.users.interval, d.users.tolerance = 1, int64(full.UserBurst-1) // none is refused, however fast this is
				engine.Use(d.Enter, func(c *gin.Context) { d.Caller(c, identity.Principal{User: "asha", Role: identity.Viewer}) })
			}
			engine.GET("/api/v1/students", func(c *gin.Context) { c.Status(http.StatusOK) })
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest(http.MethodGet, "/api/v1/students", nil)
				for _, name := range []string{"Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization", "X-Request-Id", "Traceparent", "Connection"} {
					r.Header.Set(name, "value")
				}
				w := &discard{http.Header{}}
				for pb.Next() {
					clear(w.header)
					engine.ServeHTTP(w, r)
				}
			})
		})
	}
}

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
