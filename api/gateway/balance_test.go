package gateway

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"pgregory.net/rapid"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// testUpstreams are the defaults, but for times that a test would have to wait for.
var testUpstreams = UpstreamConfig{
	SendIdleTimeout: 20 * time.Second, ExchangeIdleTimeout: 2 * time.Minute, MaxWaiting: 1024,
	RetryBudgetPercent: 20, RetryBudgetMin: 10, RetryBudgetWindow: 10 * time.Second,
	LatencyHalfLife: 10 * time.Second, EjectAfter: 5, MaxEjectedPercent: 50,
	EjectTime: 200 * time.Millisecond, EjectTimeMax: 30 * time.Second, Trials: 3,
}

// registered makes upstreams out of "release" or "release!" for an unready one.
func registered(releases ...string) []*upstream {
	var all []*upstream
	for i, release := range releases {
		u := &upstream{Instance: discovery.Instance{ID: strconv.Itoa(i), Release: strings.TrimSuffix(release, "!")}}
		u.ready = !strings.HasSuffix(release, "!")
		all = append(all, u)
	}
	return all
}

func lineupOf(split discovery.Split, sticky bool, registered ...*upstream) *lineup {
	return newLineup(&testUpstreams, "student-service", registered, discovery.Application{Split: split, Sticky: sticky}, sinceStart())
}

func (l *lineup) release(w wish) string {
	w.now = sinceStart()
	if u, _ := l.pick(&w); u != nil {
		return u.Release
	}
	return ""
}

func TestSplitIsExact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		registered []*upstream
		split      discovery.Split
		wanted     []string
		want       map[string]float64
	}{
		{"canary", registered("old", "old", "new"), discovery.Split{"old": 90, "new": 10}, nil, map[string]float64{"old": .9, "new": .1}},
		{"three", registered("a", "b", "c"), discovery.Split{"a": 50, "b": 30, "c": 20}, nil, map[string]float64{"a": .5, "b": .3, "c": .2}},
		{"no split counts instances", registered("a", "b", "b", "b"), nil, nil, map[string]float64{"a": .25, "b": .75}},
		{"0 gets nothing", registered("old", "new"), discovery.Split{"old": 100, "new": 0}, nil, map[string]float64{"old": 1}},
		{"not named gets nothing", registered("old", "new"), discovery.Split{"old": 100}, nil, map[string]float64{"old": 1}},
		{"the sick give their share", registered("a!", "b", "c"), discovery.Split{"a": 50, "b": 40, "c": 10}, nil, map[string]float64{"b": .8, "c": .2}},
		{"0 gets nothing even then", registered("old!", "new"), discovery.Split{"old": 100, "new": 0}, nil, map[string]float64{"": 1}},
		{"an outdated split", registered("new"), discovery.Split{"old": 100}, nil, map[string]float64{"new": 1}},
		{"wanted", registered("old", "new"), discovery.Split{"old": 100}, []string{"new"}, map[string]float64{"new": 1}},
		{"wanted elsewhere", registered("old", "other"), discovery.Split{"old": 100}, []string{"new"}, map[string]float64{"old": 1}},
		{"wanted and sick", registered("old", "new!"), nil, []string{"new"}, map[string]float64{"": 1}},
	} {
		const draws = 20_000
		for _, sticky := range []bool{false, true} {
			counts := map[string]int{}
			l := lineupOf(c.split, sticky, c.registered...)
			for i := range draws {
				counts[l.release(wish{wanted: c.wanted, user: fmt.Sprint("user-", i)})]++
			}
			for release, n := range counts {
				within := .001
				switch {
				case len(c.split) == 0:
					within = .02 // instances are drawn by chance
				case sticky:
					within = .01
				}
				if got := float64(n) / draws; math.Abs(got-c.want[release]) > within {
					t.Errorf("%s, sticky %v: %q gets %.4f, want %.2f", c.name, sticky, release, got, c.want[release])
				}
			}
		}
	}
}

// TestStickyUsersStay checks by users of all kinds that each has one release, on every gateway; that a release which gets
// a larger share keeps its users, and nobody moves without need; and that somebody whose release is away has another one
// until it is back.
func TestStickyUsersStay(t *testing.T) {
	t.Parallel()
	one, another := registered("old", "old", "new", "third"), registered("third", "new", "old")
	away := registered("old", "new!", "third")
	split := func(of, third int) discovery.Split {
		return discovery.Split{"old": 100 - of - third, "new": of, "third": third}
	}
	rapid.Check(t, func(t *rapid.T) {
		w := wish{user: rapid.StringN(1, -1, -1).Draw(t, "user")}
		third := rapid.IntRange(0, 30).Draw(t, "third's share")
		small := rapid.IntRange(1, 68).Draw(t, "share")
		large := rapid.IntRange(small+1, 69).Draw(t, "larger share")
		before := lineupOf(split(small, third), true, one...).release(w)
		if again := lineupOf(split(small, third), true, another...).release(w); again != before {
			t.Fatalf("%q here, %q on another gateway", before, again)
		}
		after := lineupOf(split(large, third), true, one...).release(w)
		if before == "new" && after != "new" {
			t.Fatalf("in the canary at %d %%, with %q at %d %%", small, after, large)
		}
		if after != before && after != "new" && before != "old" {
			t.Fatalf("left %q, whose share did not shrink, for %q, whose did not grow", before, after)
		}
		elsewhere := lineupOf(split(small, third), true, away...).release(w)
		if elsewhere == "" || elsewhere == "new" || before != "new" && elsewhere != before {
			t.Fatalf("without new, a user of %q goes to %q", before, elsewhere)
		}
	})
}

func TestTheLighterOfTwoIsTaken(t *testing.T) {
	t.Parallel()
	two := registered("a", "b")
	two[0].outstanding.Store(3)
	l := lineupOf(nil, false, two...)
	for range 100 {
		if u, _ := l.pick(&wish{now: sinceStart()}); u != two[1] {
			t.Fatal("the instance with more to do was taken")
		}
	}
	if u, _ := l.pick(&wish{now: sinceStart(), tried: two[1:]}); u != two[0] {
		t.Error("an instance that was tried before was taken again")
	}
}

func TestReleaseHeader(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.students(discovery.Split{"old": 100, "new": 0}, newBackend(t, "1", "old", say("")), newBackend(t, "2", "new", say("")))
	p.set("ops-service", nil, newBackend(t, "3", "ops", say("")).Instance)
	p.await("ops-service", 1)
	for _, c := range []struct {
		role                 identity.Role
		path, header, answer string
	}{
		{identity.Admin, "/api/v1/students", "new", "new"},
		{identity.Admin, "/api/v1/students", "other, new", "new"},
		{identity.Admin, "/api/v1/students", "other", "old"},
		{identity.Viewer, "/api/v1/students", "new", "old"},
		{identity.Operator, "/api/v1/ops/rollouts", "new", "ops"},
	} {
		for range 10 {
			if got := p.do(c.role, "GET", c.path, "", "X-SMS-Release", c.header).header.Get("X-SMS-Release"); got != c.answer {
				t.Fatalf("%s asks %s for %q: %q answered, want %q", c.role, c.path, c.header, got, c.answer)
			}
		}
	}
}

// TestBrokenConnections has one instance that closes every connection: reads go elsewhere, a write is never done twice.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.EjectAfter, cfg.RetryBudgetPercent = 1_000_000, 100 // it stays
	p := newPlatform(t, cfg, "production")
	var writes atomic.Int64
	broken := newBackend(t, "broken", "r", func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body)
			writes.Add(1)
		}
		panic(http.ErrAbortHandler)
	})
	sound := newBackend(t, "sound", "r", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			writes.Add(1)
		}
	})
	p.students(nil, broken, sound)
	failed := 0
	for i := range 100 {
		if got := p.do(identity.Clerk, "GET", "/api/v1/students", ""); got.status != 200 {
			t.Fatalf("a read was lost: %+v", got)
		}
		got := p.do(identity.Clerk, "POST", "/api/v1/students", "body")
		if got.status == http.StatusBadGateway {
			failed++
		} else if got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		if n := writes.Load(); n != int64(i+1) {
			t.Fatalf("%d writes done for %d sent", n, i+1)
		}
	}
	if failed == 0 {
		t.Error("no write met the broken instance")
	}
}

// TestGoneInstance refuses connections while it is registered: everything goes to the other one, writes with their
// bodies too, and it is back as soon as it answers again.
func TestGoneInstance(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.CheckInterval = time.Hour // only passive ejection sees it
	p := newPlatform(t, cfg, "production")
	gone := newBackend(t, "gone", "r", say(""))
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	p.students(nil, gone, newBackend(t, "there", "r", echo))
	gone.CloseClientConnections()
	gone.Close()
	for i := range 20 {
		body := fmt.Sprint("body ", i)
		if got := p.do(identity.Clerk, "POST", "/api/v1/students", body); got.status != 200 || got.body != body {
			t.Fatalf("%+v", got)
		}
	}
	p.await("student-service", 1)
}

func TestUnreadyInstanceLeavesAndComesBack(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	var unready atomic.Bool
	b := newBackend(t, "one", "r", say("ok"))
	ready := newBackend(t, "front", "r", say("ok"))
	b.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p.students(nil, b, ready)
	unready.Store(true)
	p.await("student-service", 1)
	unready.Store(false)
	p.await("student-service", 2)
}

func TestWaitsForAnInstance(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.WaitForInstance = 20 * time.Second
	p := newPlatform(t, cfg, "production")
	done := make(chan answer)
	go func() { done <- p.do(identity.Clerk, "POST", "/api/v1/students", "x") }()
	p.students(nil, newBackend(t, "late", "r", say("here")))
	if got := <-done; got.body != "here" {
		t.Errorf("%+v", got)
	}

	none := newPlatform(t, testConfig, "production")
	got := none.do(identity.Clerk, "GET", "/api/v1/students", "")
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "problems/unavailable") {
		t.Errorf("%+v", got)
	}
}

// TestPoliteStopLosesNothing replaces every instance of a service in turn, while callers read and write.
func TestPoliteStopLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	type process struct {
		discovery.Instance
		stop func(context.Context) error
	}
	var served atomic.Int64
	start := func(id string) process {
		s := p.newServer("student-service", "r", 1<<20)
		echo := func(c *gin.Context) {
			body, _ := io.ReadAll(c.Request.Body)
			served.Add(1)
			c.String(http.StatusOK, string(body))
		}
		s.Engine.Any("/api/v1/students", echo)
		return process{instanceAt(id, "r", listen(t, s)), s.Stop}
	}
	running := []process{start("a"), start("b")}
	register := func() {
		var instances []discovery.Instance
		for _, r := range running {
			instances = append(instances, r.Instance)
		}
		p.set("student-service", nil, instances...)
	}
	register()
	p.await("student-service", 2)

	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var lost, sent atomic.Int64
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				for _, method := range []string{"POST", "GET"} {
					if got := p.do(identity.Clerk, method, "/api/v1/students", "x"); got.status != http.StatusOK {
						lost.Add(1)
						t.Errorf("lost: %+v", got)
					}
					sent.Add(1)
				}
			}
		})
	}
	for i := range 4 {
		next := start(fmt.Sprint("next ", i))
		leaving := running[0]
		running = append(running[1:], next)
		register()
		p.await("student-service", 2)
		if err := leaving.stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	callers.Wait()
	t.Logf("%d sent, %d served, %d lost", sent.Load(), served.Load(), lost.Load())
	if served.Load() != sent.Load() {
		t.Errorf("%d served for %d sent", served.Load(), sent.Load())
	}
}

func TestRegistryGone(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.students(nil, newBackend(t, "one", "r", say("ok")))
	p.gone()
	for {
		_, changed := p.gateway.view.Current()
		if p.gateway.view.Err() != nil {
			break
		}
		<-changed
	}
	if got := p.do(identity.Viewer, "GET", "/api/v1/students", ""); got.body != "ok" {
		t.Errorf("%+v", got)
	}
	got := p.do("", "GET", "/actuator/health/readiness", "")
	if got.status != 200 || !strings.Contains(got.body, `"registry":{"status":"DOWN"}`) ||
		!strings.Contains(got.body, `"student-service":{"status":"UP","details":{"instances":1,`) ||
		!strings.Contains(got.body, `"ops-service":{"status":"DOWN"`) {
		t.Errorf("%+v", got)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.students(nil, newBackend(t, "one", "r1", say("ok")))
	p.do(identity.Viewer, "GET", "/api/v1/students", "")
	got := p.do("", "GET", "/actuator/prometheus", "")
	for _, line := range []string{`gateway_requests_total{method="GET",release="r1",route="/api/v1/students/*",service="student-service",status="200"} 1`,
		`gateway_request_duration_seconds_count{method="GET",release="r1",route="/api/v1/students/*",service="student-service"} 1`,
		`gateway_healthy_instances{service="student-service"} 1`,
		`gateway_instance_state{service="student-service",state="closed"} 1`,
		`gateway_instance_state{service="student-service",state="half-open"} 0`,
		`gateway_ejections_total{reason="faults",service="student-service"} 0`} {
		if !strings.Contains(got.body, line) {
			t.Errorf("%s is missing", line)
		}
	}
}

func TestReadyWithoutRegistry(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.FirstView = 300 * time.Millisecond
	started := time.Now()
	view := discovery.NewView(discovery.NewClient(discovery.Config{URL: "http://127.0.0.1:1/eureka", Timeout: time.Second, Wait: time.Second}), quiet)
	g := New(cfg, "production", view, quiet)
	view.Start()
	g.Start()
	defer view.Stop()
	defer g.Stop()
	<-g.ready
	if took := time.Since(started); took < cfg.FirstView {
		t.Errorf("ready after %s, before the registry was seen", took)
	}
}

// TestRoutesAreCounted lets the service say by what route it answers, and callers hear nothing of it.
func TestRoutesAreCounted(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	s := p.newServer("student-service", "r1", 1<<20)
	s.Engine.GET("/api/v1/students/:studentId", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	p.set("student-service", nil, instanceAt("one", "r1", listen(t, s)))
	p.await("student-service", 1)
	for range 3 {
		if got := p.do(identity.Viewer, "GET", "/api/v1/students/STU-2026-00001", ""); got.status != http.StatusNoContent || got.header.Get(server.RouteHeader) != "" {
			t.Errorf("%+v", got)
		}
	}
	got := p.do("", "GET", "/actuator/prometheus", "")
	const counted = `gateway_requests_total{method="GET",release="r1",route="/api/v1/students/{studentId}",service="student-service",status="204"} 3`
	if !strings.Contains(got.body, counted) {
		t.Errorf("%s is missing", counted)
	}
}
