package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

var testConfig = Config{
	ConnectTimeout: 2 * time.Second, ResponseHeaderTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxIdlePerInstance: 256,
	WaitForInstance: 200 * time.Millisecond, Retries: 2, CheckInterval: 100 * time.Millisecond, CheckTimeout: 5 * time.Second,
	FirstView: 20 * time.Second, MaxBodyBytes: 1 << 30, DocumentTTL: time.Minute, DocumentTimeout: 5 * time.Second,
	UpstreamConfig: testUpstreams,
}

// fakeRegistry serves one snapshot and tells watchers when it changes.
type fakeRegistry struct {
	*httptest.Server
	mu       sync.Mutex
	snapshot discovery.Snapshot
	changed  chan struct{}
	// gone ends the registry and whoever waits for it.
	gone func()
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	closing := make(chan struct{})
	f := &fakeRegistry{changed: make(chan struct{})}
	f.snapshot = discovery.Snapshot{Revision: 1, Epoch: 1, Settled: true, Stored: true, Apps: map[string]discovery.Application{}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			f.mu.Lock()
			snapshot, changed := f.snapshot, f.changed
			encoded, _ := json.Marshal(snapshot)
			f.mu.Unlock()
			if strconv.FormatInt(snapshot.Revision, 10) != r.URL.Query().Get("after") {
				_, _ = w.Write(encoded)
				return
			}
			select {
			case <-changed:
			case <-closing:
				panic(http.ErrAbortHandler)
			}
		}
	}))
	f.gone = sync.OnceFunc(func() { close(closing); f.Close() })
	t.Cleanup(f.gone)
	return f
}

// set replaces an application.
func (f *fakeRegistry) set(app string, split discovery.Split, instances ...discovery.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshot.Apps[app] = discovery.Application{Instances: instances, Split: split}
	f.snapshot.Revision++
	close(f.changed)
	f.changed = make(chan struct{})
}

// platform is a gateway that listens, its registry and its callers.
type platform struct {
	*fakeRegistry
	t        *testing.T
	gateway  *Gateway
	server   *server.Server
	url      string
	signer   *identity.Signer
	verifier *identity.Verifier
	// publicKey is what other processes verify the signer's tokens with.
	publicKey string
}

func newPlatform(t *testing.T, cfg Config, environment string) *platform {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{fakeRegistry: newFakeRegistry(t), t: t, publicKey: string(public)}
	if p.signer, err = identity.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	if p.verifier, err = identity.NewVerifier(identity.Config{PublicKey: string(public), TokenCache: 100}); err != nil {
		t.Fatal(err)
	}
	registry := discovery.Config{URL: p.fakeRegistry.URL + "/eureka", Timeout: 5 * time.Second, Wait: 30 * time.Second}
	view := discovery.NewView(discovery.NewClient(registry), quiet)
	p.gateway = New(cfg, environment, view, quiet)
	p.server = p.newServer("api-gateway", "gateway", cfg.MaxBodyBytes)
	p.gateway.Mount(p.server)
	view.Start()
	p.gateway.Start()
	t.Cleanup(func() { p.gateway.Stop(); view.Stop() })
	p.url = "http://" + listen(t, p.server)
	return p
}

// newServer makes a server of the platform that does not listen yet.
func (p *platform) newServer(service, release string, maxBody int64) *server.Server {
	cfg := server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxBodyBytes: maxBody, BodyIdleTimeout: 20 * time.Second,
		DrainDelay: 300 * time.Millisecond, ShutdownTimeout: 10 * time.Second}
	return server.New(cfg, server.Info{Service: service, Release: release, Environment: "production"}, p.verifier, quiet)
}

// listen starts a server for the rest of the test and returns its address.
func listen(t *testing.T, s *server.Server) string {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody is left to wait for
		_ = s.Stop(ctx)
	})
	host, port := s.Addr()
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// backend is an instance that a test has in its hands.
type backend struct {
	*httptest.Server
	discovery.Instance
}

// newBackend serves handler, and says that it is ready unless handler answers that itself.
func newBackend(t *testing.T, id, release string, handler http.HandlerFunc) *backend {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", handler)
	mux.HandleFunc("/actuator/health/readiness", func(http.ResponseWriter, *http.Request) {})
	b := &backend{Server: httptest.NewServer(mux)}
	t.Cleanup(func() { b.CloseClientConnections(); b.Close() })
	b.Instance = instanceAt(id, release, b.Listener.Addr().String())
	return b
}

func instanceAt(id, release, address string) discovery.Instance {
	host, portText, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(portText)
	return discovery.Instance{ID: id, Host: host, Port: port, Status: discovery.StatusUp, Release: release}
}

// say answers with a text.
func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

type answer struct {
	status int
	header http.Header
	body   string
}

// request makes a request of a role to the gateway; an empty role sends no token.
func (p *platform) request(role identity.Role, method, path string, body io.Reader) *http.Request {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if role != "" {
		token, err := p.signer.Sign(string(role), role, time.Hour)
		if err != nil {
			p.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

// do calls the gateway as a role; headers are names and values by turns.
func (p *platform) do(role identity.Role, method, path, body string, headers ...string) answer {
	p.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = struct{ io.Reader }{strings.NewReader(body)} // of unknown length: streamed, not replayable
	}
	req := p.request(role, method, path, reader)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(text)}
}

// await waits until the fleet of a service has as many healthy instances.
func (p *platform) await(service string, healthy int) {
	p.t.Helper()
	f := p.gateway.fleets[service]
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), 20*time.Second, errors.New("the fleet does not get there"))
	defer cancel()
	for {
		now := f.current.Load()
		if f.healthy() == healthy {
			return
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			p.t.Fatalf("%v: %d healthy, want %d", context.Cause(ctx), f.healthy(), healthy)
		}
	}
}

// students registers instances of the student service and waits until all are healthy.
func (p *platform) students(split discovery.Split, backends ...*backend) {
	p.t.Helper()
	var instances []discovery.Instance
	for _, b := range backends {
		instances = append(instances, b.Instance)
	}
	p.set("student-service", split, instances...)
	p.await("student-service", len(backends))
}
