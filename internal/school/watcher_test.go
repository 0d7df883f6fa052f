package school_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/api/configuration"
	"github.com/school-sms/sms/api/registry"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/school"
	"github.com/school-sms/sms/migrations"
)

var quiet = slog.New(slog.DiscardHandler)

// patience is how long a test waits for what must come; no wait of the watcher ends by itself before.
const patience = 30 * time.Second

// platform is a registry, a database of settings and who may sign tokens.
type platform struct {
	t         *testing.T
	signer    *identity.Signer
	verifier  *identity.Verifier
	discovery discovery.Config
	store     *configuration.Store
	tokenFile string
	// endRegistry stops the registry before the test ends.
	endRegistry func()
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	must(t, err)
	p := &platform{t: t, tokenFile: filepath.Join(t.TempDir(), "token")}
	p.signer, err = identity.NewSigner(private)
	must(t, err)
	p.verifier, err = identity.NewVerifier(identity.Config{PublicKey: string(public)})
	must(t, err)
	p.writeToken(p.token(identity.Viewer))

	pool := open(t, pgtest.New(t, migrations.Registry()))
	r := registry.New(registry.Config{DefaultLease: time.Minute, MaxLease: time.Minute, EvictInterval: 50 * time.Millisecond,
		Settle: time.Hour, WriteWait: 5 * time.Second, StoreTimeout: 2 * time.Second, MaxWait: time.Minute}, pool, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	loaded := make(chan struct{})
	wg.Go(func() { r.Follow(ctx, nil, loaded) })
	wg.Go(func() { r.Run(ctx) })
	<-loaded
	t.Cleanup(func() { cancel(); wg.Wait() })
	s := p.newServer("eureka-server")
	r.Mount(s)
	p.endRegistry = p.serve(s)
	p.discovery = discovery.Config{URL: "http://" + addressOf(s) + "/eureka", RenewInterval: time.Second, LeaseDuration: 20 * time.Second,
		Timeout: 5 * time.Second, Wait: time.Minute}

	p.store = configuration.NewStore(postgres.NewDB(open(t, pgtest.New(t, migrations.Configuration()))))
	return p
}

func open(t *testing.T, cfg postgres.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), cfg, "test")
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addressOf(s *server.Server) string {
	host, port := s.Addr()
	return discovery.Instance{Host: host, Port: port}.Address()
}

func (p *platform) newServer(service string) *server.Server {
	cfg := server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxBodyBytes: 1 << 20, BodyIdleTimeout: time.Minute, ShutdownTimeout: 5 * time.Second}
	return server.New(cfg, server.Info{Service: service}, p.verifier, quiet)
}

// serve starts a server and returns what stops it, which the end of the test does too.
func (p *platform) serve(s *server.Server) (stop func()) {
	p.t.Helper()
	must(p.t, s.Start(context.Background()))
	stop = sync.OnceFunc(func() {
		if err := s.Stop(context.Background()); err != nil {
			p.t.Error(err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

// instance is a running configuration-service.
type instance struct {
	p    *platform
	url  string
	stop func()
}

// start runs an instance of an environment, registered.
func (p *platform) start(environment string) *instance {
	p.t.Helper()
	s := p.newServer(school.Service)
	configuration.Mount(s, p.store, configuration.Config{WatchWait: time.Minute, WatchInterval: 10 * time.Millisecond})
	stop := p.serve(s)
	cfg := p.discovery
	cfg.Environment = environment
	<-s.Register(cfg, quiet).Registered()
	return &instance{p, "http://" + addressOf(s) + "/api/v1/configurations/settings", stop}
}

func (p *platform) token(role identity.Role) string {
	p.t.Helper()
	token, err := p.signer.Sign("test", role, time.Hour)
	must(p.t, err)
	return token
}

func (p *platform) writeToken(token string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.tokenFile+".new", []byte(token+"\n"), 0o600))
	must(p.t, os.Rename(p.tokenFile+".new", p.tokenFile))
}

// set writes a value of a setting that is there.
func (i *instance) set(category, key, value string) {
	i.p.t.Helper()
	var settings []configuration.Setting
	must(i.p.t, json.Unmarshal(i.call(http.MethodGet, "/category/"+category, "", nil), &settings))
	for _, s := range settings {
		if s.Key == key {
			body, err := json.Marshal(map[string]string{"value": value})
			must(i.p.t, err)
			i.call(http.MethodPut, fmt.Sprint("/", s.SettingID), server.ETag(s.Version), body)
			return
		}
	}
	i.p.t.Fatalf("there is no %s in %s", key, category)
}

func (i *instance) call(method, path, ifMatch string, body []byte) []byte {
	i.p.t.Helper()
	req, err := http.NewRequestWithContext(i.p.t.Context(), method, i.url+path, bytes.NewReader(body))
	must(i.p.t, err)
	req.Header.Set("Authorization", "Bearer "+i.p.token(identity.Admin))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("If-Match", ifMatch)
	res, err := http.DefaultClient.Do(req)
	must(i.p.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(i.p.t, err)
	if res.StatusCode != http.StatusOK {
		i.p.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	return text
}

// watch starts a watcher for the rest of the test.
func (p *platform) watch(change func(*school.Config, *discovery.Config)) *school.Watcher {
	p.t.Helper()
	cfg := school.Config{TokenFile: p.tokenFile, Keep: time.Hour, StartWait: patience, Wait: time.Minute, Timeout: 10 * time.Second,
		Retry: 50 * time.Millisecond}
	registry := p.discovery
	if change != nil {
		change(&cfg, &registry)
	}
	w := school.NewWatcher(cfg, registry, quiet)
	w.Start(p.t.Context())
	p.t.Cleanup(w.Stop)
	return w
}

// await looks again until what holds is as wanted.
func await(t *testing.T, w *school.Watcher, what string, wanted func(school.Settings) bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !wanted(w.Current()) {
		select {
		case <-tick.C:
		case <-deadline:
			_, details := w.Health()
			t.Fatalf("%s: not within %s; last %+v, %v", what, patience, w.Current(), details)
		}
	}
}

// holds checks what the health and the metrics of a watcher say.
func holds(t *testing.T, w *school.Watcher, wantOK bool, inForce string, fallback float64) {
	t.Helper()
	ok, details := w.Health()
	if ok != wantOK || fmt.Sprint(details["inForce"]) != inForce || (details["reason"] == nil) != (inForce == "CURRENT") {
		t.Errorf("health %v %v, want %v %s", ok, details, wantOK, inForce)
	}
	if got := metric(t, w, "school_settings_fallback"); got != fallback {
		t.Errorf("school_settings_fallback %v, want %v", got, fallback)
	}
}

func metric(t *testing.T, w *school.Watcher, name string) float64 {
	t.Helper()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(w.Collectors()...)
	families, err := metrics.Gather()
	must(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestChangesAreKnown(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	i := p.start("")
	w := p.watch(nil)
	first := w.Current()
	if !first.Fresh || first.Confirmed.IsZero() || first.Ages != school.DefaultAges || first.AcademicYear == "" || first.Version != 0 {
		t.Errorf("after the start: %+v", first)
	}
	i.set("ACADEMIC", school.MinAge, "5")
	await(t, w, "another age", func(s school.Settings) bool { return s.Ages == school.AgeLimits{Min: 5, Max: 18} })
	i.set("GENERAL", school.Timezone, "Europe/Berlin")
	await(t, w, "another zone", func(s school.Settings) bool { return s.Zone.String() == "Europe/Berlin" })
	p.endRegistry() // what it has said last goes on to hold
	i.set("FINANCIAL", school.CurrencyCode, "EUR")
	await(t, w, "another currency", func(s school.Settings) bool {
		return s.Currency == "EUR" && s.Values["FINANCIAL"][school.CurrencyCode] == "EUR"
	})
	holds(t, w, true, "CURRENT", 0)
	if age := metric(t, w, "school_settings_age_seconds"); age < 0 || age > patience.Seconds() {
		t.Errorf("school_settings_age_seconds %v", age)
	}
}

func TestAnotherInstanceIsAsked(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	one, two := p.start(""), p.start("")
	w := p.watch(nil)
	two.set("ACADEMIC", school.MinAge, "4")
	await(t, w, "a change", func(s school.Settings) bool { return s.Ages.Min == 4 })
	one.stop()
	two.set("ACADEMIC", school.MinAge, "5")
	await(t, w, "a change after the first has stopped", func(s school.Settings) bool { return s.Ages.Min == 5 })
	three := p.start("")
	two.stop()
	three.set("ACADEMIC", school.MinAge, "6")
	await(t, w, "a change after both have stopped", func(s school.Settings) bool { return s.Ages.Min == 6 && s.Fresh })
	holds(t, w, true, "CURRENT", 0)
}

func TestAway(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	i := p.start("")
	i.set("ACADEMIC", school.MinAge, "5")
	keeps := p.watch(nil)
	falls := p.watch(func(cfg *school.Config, _ *discovery.Config) { cfg.Keep = 0 })
	holds(t, falls, true, "CURRENT", 0)
	i.stop()
	await(t, falls, "the defaults", func(s school.Settings) bool { return s.Ages == school.DefaultAges && s.Confirmed.IsZero() && !s.Fresh })
	holds(t, falls, false, "DEFAULTS", 1)
	await(t, keeps, "that it is away", func(s school.Settings) bool { return !s.Fresh })
	if keeps.Current().Ages.Min != 5 {
		t.Errorf("kept %+v", keeps.Current())
	}
	holds(t, keeps, false, "LAST_KNOWN", 0)

	p.start("")
	for _, w := range []*school.Watcher{falls, keeps} {
		await(t, w, "that it is back", func(s school.Settings) bool { return s.Ages.Min == 5 && s.Fresh })
		holds(t, w, true, "CURRENT", 0)
	}
}

func TestNeverAnswered(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	w := p.watch(func(cfg *school.Config, _ *discovery.Config) { cfg.StartWait = time.Millisecond })
	if s := w.Current(); s.Ages != school.DefaultAges || s.Fresh {
		t.Errorf("%+v", s)
	}
	holds(t, w, false, "DEFAULTS", 1)
	if age := metric(t, w, "school_settings_age_seconds"); !math.IsInf(age, 1) {
		t.Errorf("school_settings_age_seconds %v", age)
	}
	p.start("").set("ACADEMIC", school.MinAge, "5")
	await(t, w, "the first answer", func(s school.Settings) bool { return s.Ages.Min == 5 })
}

func TestTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.start("")
	p.writeToken("expired")
	w := p.watch(func(cfg *school.Config, _ *discovery.Config) { cfg.StartWait = time.Millisecond })
	if w.Current().Fresh {
		t.Error("an answer without a token")
	}
	p.writeToken(p.token(identity.Viewer))
	await(t, w, "an answer", func(s school.Settings) bool { return s.Fresh })
}

func TestWithoutATokenFile(t *testing.T) {
	t.Parallel()
	w := school.NewWatcher(school.Config{StartWait: patience}, discovery.Config{URL: "http://127.0.0.1:1/eureka"}, quiet)
	w.Start(t.Context())
	defer w.Stop()
	if s := w.Current(); s.Ages != school.DefaultAges || s.Zone.String() != "Asia/Kolkata" {
		t.Errorf("%+v", s)
	}
	holds(t, w, true, "DEFAULTS", 1)
}

func TestEachEnvironmentHasItsOwn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	p.start("").set("ACADEMIC", school.MinAge, "5")
	staging := p.watch(func(cfg *school.Config, registry *discovery.Config) {
		cfg.StartWait, registry.Environment = time.Millisecond, "staging"
	})
	if staging.Current().Fresh {
		t.Error("production answered staging")
	}
	p.start("staging")
	await(t, staging, "staging's answer", func(s school.Settings) bool { return s.Fresh })
}
