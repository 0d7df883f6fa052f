package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server/plain"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/settings"
)

// Registered keeps the process in the service registry while it serves, wherever it stands in main. The registry may be away: then the process serves, and registers once the registry is back.
var Registered = fx.Module("registered",
	fx.Provide(settings.Load[discovery.Config], fx.Private),
	fx.Invoke(func(s *Server, cfg discovery.Config, log *slog.Logger) {
		s.OnServe(func() { s.Register(cfg, log) })
	}),
)

// Register puts a server that listens into the registry, and takes it out first of all when the server drains.
func (s *Server) Register(cfg discovery.Config, log *slog.Logger) *discovery.Registrar {
	registrar := discovery.NewRegistrar(cfg, s.instance(cfg), log)
	s.OnDrain(func(ctx context.Context) {
		if err := registrar.Stop(ctx); err != nil {
			log.Warn("still in the registry until the lease ends", "error", err.Error())
		}
	})
	registrar.Start()
	return registrar
}

// instance is the server as the registry shows it.
func (s *Server) instance(cfg discovery.Config) discovery.Instance {
	host, port := s.Addr()
	app := discovery.App(s.Info.Service, cfg.Environment)
	metadata := map[string]string{discovery.MetadataEnvironment: cfg.Environment}
	if s.local != nil {
		metadata[discovery.MetadataSocket] = s.local.Addr().String()
	}
	return discovery.Instance{App: app, Host: host, Port: port, Release: s.Info.Release, Version: s.Info.Version, Metadata: metadata}
}

// Wrap puts a handler around the engine, for a process that must see requests before the routes do.
func (s *Server) Wrap(around func(http.Handler) http.Handler) {
	s.http.Handler = around(s.http.Handler)
}

// AnswerPlain has plain requests answered before net/http, for a process that has to answer very many. The server does not listen yet.
func (s *Server) AnswerPlain() {
	s.front = plain.NewFront(plain.Config{Server: s.http, Watch: callerWatch, ConnState: s.callers.count, Log: s.log})
}

// callerWatch is how late it may be noticed that a caller of a plain request has gone.
const callerWatch = 100 * time.Millisecond
