// Package server is what every HTTP service of the platform shares: the engine, its middleware, health, metrics,
// problem details, authentication, and a stop that loses no request.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/api/server/plain"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

// Config is how a service listens and stops.
type Config struct {
	// Address to listen on, host:port; port 0 picks a free one. Not used when a socket is inherited.
	Address string `env:"SERVER_ADDRESS" envDefault:"127.0.0.1:0"`
	// ListenFD is the descriptor of a listening socket inherited from the supervisor, used instead of Address; 0 means none.
	ListenFD int `env:"SERVER_LISTEN_FD" envDefault:"0"`
	// SharedFD is an inherited socket on which other processes accept too, besides the one above: on stop this process
	// leaves it at once, because the others go on. 0 means none.
	SharedFD int `env:"SERVER_SHARED_FD" envDefault:"0"`
	// AdvertisedHost is the host name that callers reach this instance by.
	AdvertisedHost string `env:"SERVER_ADVERTISED_HOST" envDefault:"127.0.0.1"`
	// LocalSocket says that a service which is reached at a loopback address listens on a Unix socket too, for a gateway on the
	// same machine: that costs both sides half of what TCP does.
	LocalSocket bool `env:"SERVER_LOCAL_SOCKET" envDefault:"true"`
	// ReadHeaderTimeout bounds the reading of a request's headers.
	ReadHeaderTimeout time.Duration `env:"SERVER_READ_HEADER_TIMEOUT" envDefault:"5s"`
	// IdleTimeout closes a keep-alive connection that is not used.
	IdleTimeout time.Duration `env:"SERVER_IDLE_TIMEOUT" envDefault:"120s"`
	// MaxHeaderBytes bounds the headers of a request, in bytes.
	MaxHeaderBytes int `env:"SERVER_MAX_HEADER_BYTES" envDefault:"32768"`
	// MaxBodyBytes bounds the body of a request, in bytes.
	MaxBodyBytes int64 `env:"SERVER_MAX_BODY_BYTES" envDefault:"1048576"`
	// BodyIdleTimeout ends a request whose body stops coming for so long.
	BodyIdleTimeout time.Duration `env:"SERVER_BODY_IDLE_TIMEOUT" envDefault:"30s"`
	// BodyMinRate is how many bytes of an announced body must come a second, in the long run, beyond BodyIdleTimeout; 0: any.
	// So a caller cannot hold a request for ever by sending a byte now and then.
	BodyMinRate int64 `env:"SERVER_BODY_MIN_RATE" envDefault:"1024"`
	// WriteIdleTimeout cuts the connection of a caller that takes nothing of its answer for so long; 0 waits for ever.
	WriteIdleTimeout time.Duration `env:"SERVER_WRITE_IDLE_TIMEOUT" envDefault:"30s"`
	// DrainDelay is how long a stopping service still answers, so that callers notice that it leaves.
	DrainDelay time.Duration `env:"SERVER_DRAIN_DELAY" envDefault:"1.5s"`
	// HandoverTimeout is how long a service that is told to stop goes on as before until its successor is ready, where a supervisor
	// starts one (NOTIFY_SOCKET).
	HandoverTimeout time.Duration `env:"SERVER_HANDOVER_TIMEOUT" envDefault:"10s"`
	// DrainIdle is how long a stopping service keeps the connections of its shared socket open for their next request, whose answer
	// says that they close: callers there see no registry, and pause. Counted with DrainDelay from the drain's beginning.
	DrainIdle time.Duration `env:"SERVER_DRAIN_IDLE" envDefault:"10s"`
	// ShutdownTimeout bounds the wait for requests that still run after the drain; then they are cut off.
	ShutdownTimeout time.Duration `env:"SERVER_SHUTDOWN_TIMEOUT" envDefault:"60s"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	if c.HandoverTimeout < 0 || c.DrainDelay < 0 || c.DrainIdle < 0 || c.ShutdownTimeout < 0 {
		return errors.New("SERVER_HANDOVER_TIMEOUT, _DRAIN_DELAY, _DRAIN_IDLE and _SHUTDOWN_TIMEOUT must not be negative")
	}
	return nil
}

// stopTimeout is the longest that Stop takes.
func (c Config) stopTimeout() time.Duration {
	return c.HandoverTimeout + max(c.DrainDelay, c.DrainIdle) + c.ShutdownTimeout
}

// Info says what runs, for /actuator/info.
type Info struct {
	Service     string `json:"service"`
	Environment string `json:"environment" env:"SMS_ENVIRONMENT" envDefault:"production"`
	Version     string `json:"version"`
	Commit      string `json:"commit"`
	// Release is the digest of what runs, as the target knows it.
	Release string `json:"release" env:"SMS_RELEASE" envDefault:"unreleased"`
}

// Server is one HTTP service.
type Server struct {
	Engine  *gin.Engine
	API     huma.API
	Health  *Health
	Metrics *prometheus.Registry
	Info    Info

	cfg      Config
	log      *slog.Logger
	db       *postgres.DB // nil when there is none
	http     *http.Server
	front    *plain.Front // nil when net/http answers everything
	listener net.Listener
	shared   net.Listener // nil when there is none
	local    net.Listener // nil when there is none
	draining atomic.Bool
	callers  sharedConns
	failed   chan error
	// bodyLimits are those of routes that have their own, by method and path.
	bodyLimits map[string]int64
	door       Door // nil when there is none
	// tellsRoutes says that answers carry RouteHeader.
	tellsRoutes bool
	onServe     []func()
	onDrain     []func(context.Context)
}

// New builds a service that does not listen yet. Routes below /api ask for a token that verifier accepts.
func New(cfg Config, info Info, verifier *identity.Verifier, log *slog.Logger) *Server {
	gin.SetMode(gin.ReleaseMode)
	s := &Server{
		Engine: gin.New(), Health: newHealth(), Metrics: newMetrics(), Info: info,
		cfg: cfg, log: log, failed: make(chan error, 1), bodyLimits: map[string]int64{}, tellsRoutes: true, callers: sharedConns{changed: make(chan struct{}, 1)},
	}
	s.Engine.ContextWithFallback = true
	s.Engine.HandleMethodNotAllowed = true
	s.Engine.RedirectTrailingSlash = false // no answer that the document does not know
	s.Engine.Use(s.observe(), s.recover(), s.limitBody(), s.closeWhenDraining(), s.enter, s.authenticate(verifier), s.place())
	s.Engine.NoRoute(func(c *gin.Context) { WriteProblem(c, NotFound("there is nothing at this path")) })
	s.Engine.NoMethod(func(c *gin.Context) {
		WriteProblem(c, NewProblem(http.StatusMethodNotAllowed, "not-found", "this path does not take "+c.Request.Method))
	})
	s.Health.mount(s.Engine, info)
	s.mountMetrics()
	s.API = humagin.New(s.Engine, apiConfig(info))
	mountDocs(s.Engine)
	s.http = &http.Server{
		Handler: s.Engine, ReadHeaderTimeout: cfg.ReadHeaderTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxHeaderBytes: cfg.MaxHeaderBytes, ConnState: s.callers.count, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// OnServe adds what happens once the server listens and says that it is ready, for example to join the registry.
func (s *Server) OnServe(f func()) { s.onServe = append(s.onServe, f) }

// OnDrain adds what a stop does first, for example to leave the registry.
func (s *Server) OnDrain(f func(context.Context)) { s.onDrain = append(s.onDrain, f) }

// Addr is where the server listens, as callers reach it. It is known once Start has returned.
func (s *Server) Addr() (host string, port int) {
	return s.cfg.AdvertisedHost, portOf(s.listener.Addr())
}

// portOf is 0 for an address that has none.
func portOf(address net.Addr) int {
	if tcp, ok := address.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

// Failed yields the error that ended serving, if any.
func (s *Server) Failed() <-chan error { return s.failed }

// Start listens, so that a taken port is an error here, and serves in the background.
func (s *Server) Start(ctx context.Context) error {
	var err error
	if s.cfg.ListenFD > 0 {
		s.listener, err = inherit(s.cfg.ListenFD)
	} else {
		s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Address)
	}
	if err != nil {
		return fmt.Errorf("listen on %s (SERVER_ADDRESS): %w", s.cfg.Address, err)
	}
	if s.cfg.SharedFD > 0 {
		if s.shared, err = inherit(s.cfg.SharedFD); err != nil {
			return fmt.Errorf("use the shared socket (SERVER_SHARED_FD): %w", err)
		}
		s.callers.port = portOf(s.shared.Addr())
		go s.serve(s.shared)
	}
	if s.front != nil {
		go func() { _ = s.http.Serve(s.front) }() // ends with the shutdown, and has no error before
	}
	go s.serve(s.listener)
	s.listenLocally(ctx)
	s.Health.accept(true)
	host, port := s.Addr()
	s.log.Info("listening", "server.address", host, "server.port", port)
	for _, f := range s.onServe {
		f()
	}
	s.notify(child.ReadyNotice)
	return nil
}

func (s *Server) serve(l net.Listener) {
	serve := s.http.Serve
	if s.front != nil {
		serve = s.front.Serve
	}
	if err := serve(impatientListener{l, s.cfg.WriteIdleTimeout}); !s.draining.Load() && !errors.Is(err, http.ErrServerClosed) {
		select {
		case s.failed <- fmt.Errorf("serve: %w", err):
		default: // one failure is enough to end the process
		}
	}
}

// listenLocally opens the Unix socket. It lies in the abstract namespace (unix(7)), where nothing is left of it after a crash, under
// a name that nobody else can have taken. A service that has none is reached by TCP.
func (s *Server) listenLocally(ctx context.Context) {
	if ip := net.ParseIP(s.cfg.AdvertisedHost); !s.cfg.LocalSocket || ip == nil || !ip.IsLoopback() {
		return
	}
	var err error
	if s.local, err = (&net.ListenConfig{}).Listen(ctx, "unix", discovery.SocketPrefix+s.Info.Service+"/"+rand.Text()); err != nil {
		s.local = nil
		s.log.Warn("there is no local socket: callers come by TCP", "error", err.Error())
		return
	}
	go s.serve(s.local)
}

func inherit(fd int) (net.Listener, error) {
	file := os.NewFile(uintptr(fd), "inherited socket")
	defer file.Close() // FileListener has its own copy
	return net.FileListener(file)
}

func apiConfig(info Info) huma.Config {
	cfg := huma.DefaultConfig("School Management System: "+info.Service, info.Version)
	cfg.DocsPath = "" // ours loads nothing from other hosts
	cfg.SchemasPath = ""
	cfg.CreateHooks = nil // no $schema links in answers
	cfg.OnAddOperation = append(cfg.OnAddOperation, documentPosition, completeDocument)
	cfg.Info.Description = "Errors are RFC 9457 problem details. Times are RFC 3339 in UTC."
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
	}
	return cfg
}

// ETag is the strong entity tag of a version (RFC 9110, section 8.8.3).
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// MatchVersion reads If-Match: the version that the caller has seen, or the problem to answer. A weak tag never matches (RFC
// 9110, section 13.1.1), and "*" names no version, so it does not guard against lost updates.
func MatchVersion(ifMatch string) (int64, error) {
	if ifMatch == "" || ifMatch == "*" {
		return 0, PreconditionRequired()
	}
	if len(ifMatch) < 3 || ifMatch[0] != '"' || ifMatch[len(ifMatch)-1] != '"' {
		return 0, ConcurrentUpdate()
	}
	version, err := strconv.ParseInt(ifMatch[1:len(ifMatch)-1], 10, 64)
	if err != nil {
		return 0, ConcurrentUpdate()
	}
	return version, nil
}
