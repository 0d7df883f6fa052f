package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// caller is a user of a gateway, with connections and a token of its own.
type caller struct {
	http  *http.Client
	url   string
	token string
}

func (p *platform) caller(user string) *caller {
	p.t.Helper()
	token, err := p.signer.Sign(user, identity.Clerk, time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &caller{http: &http.Client{Transport: transport}, url: p.url, token: "Bearer " + token}
}

// get reads a path below the students, and the whole of the answer.
func (c *caller) get(ctx context.Context, path string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/api/v1/students"+path, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(text)}, err
}

// keepAsking has callers read until stop is called, which returns how often something else than 200 came back.
func (p *platform) keepAsking(callers int, path string) (stop func() (asked, failed int64)) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	var asked, failed atomic.Int64
	for range callers {
		c := p.caller("somebody")
		running.Go(func() {
			for ctx.Err() == nil {
				got, err := c.get(ctx, path)
				if ctx.Err() != nil {
					return
				}
				asked.Add(1)
				if err != nil || got.status != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) { cancel(); running.Wait(); return asked.Load(), failed.Load() }
}

// until waits for a state of the student service's fleet, by the states of its instances.
func (p *platform) until(what string, reached func(states map[string]int) bool) {
	p.t.Helper()
	f := p.gateway.fleets["student-service"]
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), 20*time.Second, errors.New("not "+what))
	defer cancel()
	for {
		now := f.current.Load()
		if reached(f.states()) {
			return
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			p.t.Fatalf("%v: %v", context.Cause(ctx), f.states())
		}
	}
}

// faulty is an instance that fails while it is told to.
type faulty struct {
	*backend
	failing atomic.Bool
	asked   atomic.Int64
}

func newFaulty(t *testing.T, id, release string, fail http.HandlerFunc) *faulty {
	f := &faulty{}
	f.backend = newBackend(t, id, release, func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		if f.failing.Load() {
			fail(w, r)
		}
	})
	return f
}

func answer500(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
func breakOff(http.ResponseWriter, *http.Request)      { panic(http.ErrAbortHandler) }

// realTimes are the defaults, as far as they decide how soon something is noticed.
func realTimes() Config {
	cfg := testConfig
	cfg.CheckInterval, cfg.CheckTimeout = 500*time.Millisecond, 400*time.Millisecond
	cfg.EjectTime = time.Second
	return cfg
}

// TestFaultyInstanceIsEjected has one of two instances fail what it is asked, though it says that it is ready: within a
// second it is out, no caller notices, and when it has recovered it comes back by trials.
func TestFaultyInstanceIsEjected(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]http.HandlerFunc{"answers 500": answer500, "breaks off": breakOff} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, realTimes(), "production")
			sick, sound := newFaulty(t, "sick", "r", fail), newFaulty(t, "sound", "r", nil)
			p.students(nil, sick.backend, sound.backend)
			stop := p.keepAsking(4, "")
			for sick.asked.Load() < 100 || sound.asked.Load() < 100 {
				_, err := p.caller("another").get(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
			}
			sick.failing.Store(true)
			failing := time.Now()
			p.until("ejected", func(states map[string]int) bool { return states["open"] == 1 })
			if took := time.Since(failing); took > time.Second {
				t.Errorf("it was out after %s", took)
			}
			// Trials go there one at a time, and fail: between them it gets nothing.
			p.until("on trial", func(states map[string]int) bool { return states["half-open"] == 1 })
			p.until("ejected again", func(states map[string]int) bool { return states["open"] == 1 })
			before := sick.asked.Load()
			sick.failing.Store(false)
			p.until("back", func(states map[string]int) bool { return states["closed"] == 2 })
			if n := sick.asked.Load() - before; n < int64(testConfig.Trials) || n > 50 {
				t.Errorf("%d requests brought it back, want about %d", n, testConfig.Trials)
			}
			asked, failed := stop()
			t.Logf("%d requests, %d failed", asked, failed)
			if failed > 0 {
				t.Errorf("%d of %d requests failed", failed, asked)
			}
		})
	}
}

// TestBadRequestEjectsNobody has a client ask for what every instance answers with 500, now and then or all the time.
func TestBadRequestEjectsNobody(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, realTimes(), "production")
	poison := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/poison") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	p.students(nil, newBackend(t, "1", "r", poison), newBackend(t, "2", "r", poison), newBackend(t, "3", "r", poison))
	c := p.caller("somebody")
	for i := range 600 {
		path, want := "/poison", http.StatusInternalServerError
		if i >= 300 && i%2 == 0 {
			path, want = "", http.StatusOK
		}
		got, err := c.get(t.Context(), path)
		if err != nil || got.status != want {
			t.Fatalf("%v %+v", err, got)
		}
		if states := p.gateway.fleets["student-service"].states(); states["closed"] != 3 {
			t.Fatalf("after %d requests: %v", i+1, states)
		}
	}
}

// TestFailingCanaryIsSeen has a new release fail everything: its answers are not covered up by the old release's, and it
// is not ejected, because whoever rolls it out has to see it.
func TestFailingCanaryIsSeen(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.students(discovery.Split{"old": 50, "new": 50}, newBackend(t, "1", "old", say("")), newBackend(t, "2", "old", say("")), newBackend(t, "3", "new", answer500))
	c, failed := p.caller("somebody"), 0
	for range 400 {
		got, err := c.get(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if got.status == http.StatusInternalServerError {
			failed++
		}
	}
	if failed < 140 || failed > 260 {
		t.Errorf("%d of 400 requests show what is wrong with half of them", failed)
	}
}

// TestHungInstanceIsEjected has one of two instances stop answering anything, while it still takes connections.
func TestHungInstanceIsEjected(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, realTimes(), "production")
	hung, release := atomic.Bool{}, make(chan struct{})
	b := newBackend(t, "hangs", "r", say(""))
	t.Cleanup(func() { close(release) })
	inner := b.Config.Handler
	b.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hung.Load() {
			<-release
		}
		inner.ServeHTTP(w, r)
	})
	p.students(nil, b, newBackend(t, "answers", "r", say("")))
	stop := p.keepAsking(8, "")
	hung.Store(true)
	began := time.Now()
	p.until("ejected", func(states map[string]int) bool { return states["silent"] == 1 })
	const late = 500 * time.Millisecond // what a loaded machine may add
	took := time.Since(began)
	t.Logf("out after %s", took)
	if took > time.Second+late {
		t.Errorf("it was out after %s", took)
	}
	p.until("gone", func(states map[string]int) bool { return states["unready"] == 1 })
	stop()
}

// TestTheLastStays has every instance of a service fail in the same way, in turn all the ways that are not certain: they
// are not ejected all, callers get the instances' own answers, and nobody waits.
func TestTheLastStays(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 5} {
		cfg := testConfig
		cfg.WaitForInstance = time.Hour // whoever waits, fails the test
		p := newPlatform(t, cfg, "production")
		var all []*backend
		for i := range n {
			all = append(all, newBackend(t, fmt.Sprint(i), "r", answer500))
		}
		p.students(nil, all...)
		f := p.gateway.fleets["student-service"]
		for _, u := range f.current.Load().instances {
			for range 10 {
				f.proven(u)
			}
		}
		if ejected := f.states()["open"]; ejected > n/2 || n > 1 && ejected == 0 {
			t.Errorf("%d of %d ejected", ejected, n)
		}
		c := p.caller("somebody")
		for range 20 {
			if got, err := c.get(t.Context(), ""); err != nil || got.status != http.StatusInternalServerError {
				t.Fatalf("%v %+v", err, got)
			}
		}
	}
}

// TestEjectedIsBetterThanNone: when what was not ejected dies, the ejected one serves.
func TestEjectedIsBetterThanNone(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	dies := newBackend(t, "dies", "r", say("")) // of two, the second is ejected
	p.students(nil, newBackend(t, "ejected", "r", say("ejected")), dies)
	f := p.gateway.fleets["student-service"]
	for _, u := range f.current.Load().instances {
		for u.ID == "ejected" && f.states()["open"] == 0 {
			f.proven(u)
		}
	}
	dies.CloseClientConnections()
	dies.Close()
	p.until("gone", func(states map[string]int) bool { return states["unready"] == 1 })
	c := p.caller("somebody")
	for range 20 {
		if got, err := c.get(t.Context(), ""); err != nil || got.body != "ejected" {
			t.Fatalf("%v %+v", err, got)
		}
	}
	p.until("on trial", func(states map[string]int) bool { return states["half-open"]+states["closed"] == 1 })
	for range testConfig.Trials {
		if _, err := c.get(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if states := f.states(); states["closed"] != 1 {
		t.Errorf("after as many good answers as it takes: %v", states)
	}
}

// counting counts what is sent to instances.
type counting struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *counting) RoundTrip(req *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

// TestAllFailing has every instance fail: what is sent to them grows by a fifth at most, beyond the few further tries that
// are always allowed.
func TestAllFailing(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]http.HandlerFunc{"answer 500": answer500, "break off": breakOff, "refuse": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig
			cfg.WaitForInstance = 0
			p := newPlatform(t, cfg, "production")
			one, two := newFaulty(t, "1", "r", fail), newFaulty(t, "2", "r", fail)
			p.students(nil, one.backend, two.backend)
			through := p.gateway.proxy.Transport.(*transport)
			sent := &counting{RoundTripper: through.base}
			through.base = sent
			one.failing.Store(true)
			two.failing.Store(true)
			if fail == nil {
				for _, b := range []*faulty{one, two} {
					b.CloseClientConnections()
					b.Close()
				}
			}
			const callers, each = 8, 250
			began := time.Now()
			var running sync.WaitGroup
			for range callers {
				c := p.caller("somebody")
				running.Go(func() {
					for range each {
						got, err := c.get(t.Context(), "")
						if err != nil || got.status < 500 {
							t.Errorf("%v %+v", err, got)
							return
						}
					}
				})
			}
			running.Wait()
			t.Logf("%d requests, %d sent", callers*each, sent.n.Load())
			windows := 1 + int64(time.Since(began)/cfg.RetryBudgetWindow)
			most, arrived := callers*each*12/10+windows*int64(cfg.RetryBudgetMin), one.asked.Load()+two.asked.Load()
			if sent.n.Load() > most || arrived > most {
				t.Errorf("%d sent for %d requests, of which %d arrived; at most %d are allowed", sent.n.Load(), callers*each, arrived, most)
			}
		})
	}
}
