package gateway

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// TestSplitHoldsThroughTheGateway sends 20,000 requests of as many users through a split, each by itself and sticky.
func TestSplitHoldsThroughTheGateway(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	split := discovery.Split{"old": 90, "new": 10}
	old, canary := newBackend(t, "1", "old", say("")), newBackend(t, "2", "new", say(""))
	p.students(split, old, canary)
	const requests, callers = 20_000, 8
	count := func() int64 {
		var running sync.WaitGroup
		var canaries atomic.Int64
		for k := range callers {
			c := p.caller("somebody")
			running.Go(func() {
				for i := range requests / callers {
					token, err := p.signer.Sign(fmt.Sprintf("user-%d-%d", k, i), identity.Clerk, time.Hour)
					if err != nil {
						t.Error(err)
						return
					}
					c.token = "Bearer " + token
					got, err := c.get(t.Context(), "")
					if err != nil || got.status != http.StatusOK {
						t.Errorf("%v %+v", err, got)
						return
					}
					if got.header.Get("X-SMS-Release") == "new" {
						canaries.Add(1)
					}
				}
			})
		}
		running.Wait()
		return canaries.Load()
	}
	check := func(how string) {
		t.Helper()
		n := count()
		t.Logf("%s: %d of %d", how, n, requests)
		if share := float64(n) / requests; math.Abs(share-.1) > .01 {
			t.Errorf("%s: the canary got %.4f", how, share)
		}
	}
	check("each request by itself")
	f := p.gateway.fleets["student-service"]
	before := f.current.Load()
	p.fakeRegistry.mu.Lock()
	p.snapshot.Apps["student-service"] = discovery.Application{Instances: p.snapshot.Apps["student-service"].Instances, Split: split, Sticky: true}
	p.fakeRegistry.mu.Unlock()
	p.set("ops-service", nil) // so that the revision changes
	<-before.changed
	check("sticky")
	c := p.caller("meera")
	first, err := c.get(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if got, err := c.get(t.Context(), ""); err != nil || got.header.Get("X-SMS-Release") != first.header.Get("X-SMS-Release") {
			t.Fatalf("%v: one user was given to two releases", err)
		}
	}
}

// TestOneSlowInstance has one of three instances take twenty times as long: the latency that 99 of 100 requests have is
// at most twice that of three sound ones, measured in the same run.
func TestOneSlowInstance(t *testing.T) {
	t.Parallel()
	const usual, callers, requests = 50 * time.Millisecond, 24, 3_600
	p := newPlatform(t, testConfig, "production")
	var slow atomic.Bool
	var slowed atomic.Int64
	work := func(r *http.Request, takes time.Duration) {
		select {
		case <-time.After(takes):
		case <-r.Context().Done():
		}
	}
	sound := func(_ http.ResponseWriter, r *http.Request) { work(r, usual) }
	third := func(_ http.ResponseWriter, r *http.Request) {
		if !slow.Load() {
			work(r, usual)
			return
		}
		slowed.Add(1)
		work(r, 20*usual)
	}
	p.students(nil, newBackend(t, "1", "r", sound), newBackend(t, "2", "r", sound), newBackend(t, "3", "r", third))
	p99 := func() time.Duration {
		var running sync.WaitGroup
		took := make([]time.Duration, requests)
		for k := range callers {
			c := p.caller("somebody")
			running.Go(func() {
				for i := k; i < requests; i += callers {
					began := time.Now()
					if got, err := c.get(t.Context(), ""); err != nil || got.status != http.StatusOK {
						t.Errorf("%v %+v", err, got)
						return
					}
					took[i] = time.Since(began)
				}
			})
		}
		running.Wait()
		slices.Sort(took)
		return took[requests*99/100]
	}
	const attempts = 3 // where something else takes the machine meanwhile, every instance is a slow one
	for attempt := 1; ; attempt++ {
		slow.Store(false)
		slowed.Store(0)
		healthy := p99()
		slow.Store(true)
		with := p99()
		t.Logf("p99 %s with three sound ones, %s with one slow, which got %d of %d requests", healthy, with, slowed.Load(), requests)
		if with <= 2*healthy {
			break
		}
		if attempt == attempts {
			t.Fatalf("p99 is %s with a slow instance, %s without", with, healthy)
		}
	}
	if slowed.Load() == 0 {
		t.Error("the slow instance was never tried")
	}
}

// TestBrokenAnswerStaysBroken cuts the connection in the middle of an answer: the caller must not take the half that it
// has for a whole answer, and nobody may send the request again.
func TestBrokenAnswerStaysBroken(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"with a length": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
		"in chunks":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		p := newPlatform(t, testConfig, "production")
		var asked atomic.Int64
		cut := func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte(head))
			_ = c.(*net.TCPConn).SetLinger(0) // a reset, as from a killed process
			_ = c.Close()
		}
		p.students(nil, newBackend(t, "1", "r", cut), newBackend(t, "2", "r", cut))
		c := p.caller("somebody")
		for i := range 20 {
			got, err := c.get(t.Context(), "")
			if err == nil && got.status == http.StatusOK {
				t.Fatalf("%s: the caller takes %q for the whole answer", name, got.body)
			}
			if n := asked.Load(); err != nil && n > int64(3*(i+1)) {
				t.Fatalf("%s: %d sent for %d requests", name, n, i+1)
			}
		}
		f := p.gateway.fleets["student-service"]
		for _, u := range f.current.Load().instances {
			if n := u.outstanding.Load(); n != 0 {
				t.Errorf("%s: %d requests count as running still", name, n)
			}
		}
	}
}

// TestConnectionCloseAsksForReadiness: an instance that is leaving is out as soon as it says so in an answer, long before
// the next check is due; one that ends every connection by its nature stays.
func TestConnectionCloseAsksForReadiness(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.CheckInterval = 10 * time.Second // a check that is asked for waits for a tenth
	p := newPlatform(t, cfg, "production")
	var leaving atomic.Bool
	closes := func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }
	leaves := newBackend(t, "leaves", "r", closes)
	inner := leaves.Config.Handler
	leaves.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() && r.URL.Path == "/actuator/health/readiness" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	})
	p.students(nil, leaves, newBackend(t, "stays", "r", closes))
	leaving.Store(true)
	began := time.Now()
	stop := p.keepAsking(2, "")
	p.await("student-service", 1)
	if took := time.Since(began); took > cfg.CheckInterval/2 {
		t.Errorf("it was out after %s only", took)
	}
	if asked, failed := stop(); failed > 0 || p.gateway.fleets["student-service"].healthy() != 1 {
		t.Errorf("%d of %d failed, %d healthy", failed, asked, p.gateway.fleets["student-service"].healthy())
	}
}

// TestWaitingIsBounded: only so many requests wait for an instance, and none when there has been none for long.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.WaitForInstance, cfg.MaxWaiting = time.Hour, 3
	p := newPlatform(t, cfg, "production")
	f := p.gateway.fleets["student-service"]
	const callers = 10
	answers := make(chan int, callers)
	for range callers {
		c := p.caller("somebody")
		go func() {
			got, _ := c.get(t.Context(), "")
			answers <- got.status
		}()
	}
	for range callers - cfg.MaxWaiting {
		if status := <-answers; status != http.StatusServiceUnavailable {
			t.Errorf("%d, want 503", status)
		}
	}
	p.students(nil, newBackend(t, "late", "r", say("")))
	for range cfg.MaxWaiting {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("%d, want 200", status)
		}
	}
	if n := f.waiting.taken.Load(); n != 0 {
		t.Errorf("%d wait still", n)
	}

	f.cfg.WaitForInstance = 10 * time.Second
	for _, c := range []struct{ empty, patience time.Duration }{
		{0, 10 * time.Second}, {time.Second, 10 * time.Second}, {10 * time.Second, 10 * time.Second}, {15 * time.Second, 5 * time.Second}, {20 * time.Second, 0}, {time.Hour, 0},
	} {
		l := &lineup{emptySince: sinceStart() - c.empty}
		if got := max(f.patience(l), 0); got > c.patience || got < c.patience-time.Second {
			t.Errorf("empty for %s: a request waits for %s, want %s", c.empty, got, c.patience)
		}
	}
}

// TestStalledInstance stops taking a request, or stops in the middle of an answer.
func TestStalledInstance(t *testing.T) {
	t.Parallel()
	cfg := testConfig
	cfg.SendIdleTimeout, cfg.ExchangeIdleTimeout = 300*time.Millisecond, 400*time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	connect := func() (ours, theirs net.Conn) {
		ours, err := dialer(cfg)(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err = listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
		return ours, theirs
	}
	timedOut := func(what string, err error, began time.Time, least time.Duration) {
		t.Helper()
		if took := time.Since(began); !isTimeout(err) || took < least*3/4 || took > 30*least {
			t.Errorf("%s: %v after %s", what, err, took)
		}
	}
	ours, _ := connect() // nobody reads there
	piece := make([]byte, 32<<10)
	began := time.Now()
	for err = error(nil); err == nil; _, err = ours.Write(piece) {
	}
	timedOut("sending", err, began, cfg.SendIdleTimeout)

	ours, _ = connect()
	began = time.Now()
	_, err = ours.Read(piece)
	timedOut("waiting", err, began, cfg.ExchangeIdleTimeout)

	ours, theirs := connect() // an upload that takes long: who waits for the answer meanwhile must not be cut off
	ended := make(chan error, 1)
	go func() { _, err := ours.Read(make([]byte, 1)); ended <- err }()
	ctx, cancel := context.WithTimeout(t.Context(), 3*cfg.ExchangeIdleTimeout)
	defer cancel()
	tick := time.NewTicker(cfg.ExchangeIdleTimeout / 5)
	defer tick.Stop()
	for ctx.Err() == nil {
		if _, err := ours.Write(piece[:1]); err != nil {
			t.Fatal(err)
		}
		if _, err := theirs.Read(piece); err != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	if _, err := theirs.Write(piece[:1]); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the answer to a long upload: %v", err)
	}
}
