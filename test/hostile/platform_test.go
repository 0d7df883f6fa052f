// Package hostile speaks to a real gateway as its enemies do, and watches from behind it what comes through.
package hostile

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/test/processes"
)

const students = "/api/v1/students"

// platform is a registry and a gateway, each a process, and a student-service of the test's own that records what reaches it.
type platform struct {
	t        *testing.T
	registry *processes.Registry
	gateway  string // host:port
	process  *exec.Cmd
	log      string // of the gateway
	signer   *identity.Signer
	service  *service
}

// newPlatform starts one. The service answers paths below /api/v1/students by the handlers, and anything else with "served".
func newPlatform(t *testing.T, handlers map[string]http.HandlerFunc, env ...string) *platform {
	t.Helper()
	p := &platform{t: t, registry: processes.NewRegistry(t)}
	p.registry.Launch(p.registry.Database(), "LOG_LEVEL=debug")
	signer, err := identity.NewSigner(p.registry.Private)
	must(t, err)
	p.signer = signer
	p.service = newService(t, p.registry, "recorder", handlers)
	// Limits of rate are for other tests: here all enemies come from one address.
	for _, limit := range []string{"USER_RATE", "USER_BURST", "ADDRESS_RATE", "ADDRESS_BURST"} {
		env = append(env, "GATEWAY_"+limit+"=100000")
	}
	p.gateway, p.log, p.process = p.registry.Gateway(append([]string{"LOG_LEVEL=debug"}, env...)...)
	processes.Until(t, "the gateway finds the service", func() bool {
		req, err := http.NewRequest(http.MethodGet, "http://"+p.gateway+students, nil)
		must(t, err)
		req.Header.Set("Authorization", p.bearer(identity.Viewer))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	})
	return p
}

// bearer is a good Authorization header of a role.
func (p *platform) bearer(role identity.Role) string {
	p.t.Helper()
	token, err := p.signer.Sign("meera", role, 10*time.Minute)
	must(p.t, err)
	return "Bearer " + token
}

// service records whole requests, and every byte that comes.
type service struct {
	mu       sync.Mutex
	requests []request
	raw      bytes.Buffer
}

// request is one that came whole.
type request struct {
	method, uri, body string
	header, trailer   http.Header
}

func newService(t *testing.T, registry *processes.Registry, release string, handlers map[string]http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/actuator/", func(http.ResponseWriter, *http.Request) {})
	for path, handler := range handlers {
		mux.HandleFunc(students+path, handler)
	}
	server := &http.Server{MaxHeaderBytes: 1 << 20, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, pattern := mux.Handler(r); pattern != "" {
				mux.ServeHTTP(w, r)
				return
			}
			s.record(w, r)
		})}
	if handlers == nil {
		listener = tappedListener{listener, s}
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	cfg := discovery.Config{URL: registry.URL + "/eureka", Timeout: 5 * time.Second, RenewInterval: time.Second, LeaseDuration: 30 * time.Second}
	registrar := discovery.NewRegistrar(cfg, discovery.Instance{App: "student-service", Host: "127.0.0.1",
		Port: listener.Addr().(*net.TCPAddr).Port, Release: release}, slog.New(slog.DiscardHandler))
	registrar.Start()
	t.Cleanup(func() { _ = registrar.Stop(context.Background()) })
	return s
}

func (s *service) record(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return // it did not come whole, and a service does nothing with it
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{r.Method, r.RequestURI, string(body), r.Header, r.Trailer})
	s.mu.Unlock()
	_, _ = io.WriteString(w, "served")
}

// got lists the whole requests with a mark in their address.
func (s *service) got(mark string) (found []request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if strings.Contains(r.uri, mark) {
			found = append(found, r)
		}
	}
	return found
}

// sawBytes reports whether something came in any form at all.
func (s *service) sawBytes(mark string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Contains(s.raw.Bytes(), []byte(mark))
}

type tappedListener struct {
	net.Listener
	service *service
}

func (l tappedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return tappedConn{conn, l.service}, err
}

type tappedConn struct {
	net.Conn
	service *service
}

func (c tappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.service.mu.Lock()
	c.service.raw.Write(p[:n])
	c.service.mu.Unlock()
	return n, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
