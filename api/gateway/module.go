package gateway

import (
	"context"
	"log/slog"
	"runtime/debug"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/settings"
)

// Module is the gateway of the process's environment.
var Module = fx.Options(
	fx.Provide(settings.Load[Config]),
	fx.Decorate(func(shared server.Config, own Config) server.Config {
		shared.MaxBodyBytes = own.MaxBodyBytes
		return shared
	}),
	fx.Module("gateway",
		fx.Provide(settings.Load[discovery.Config], fx.Private),
		fx.Invoke(start),
	),
)

func start(lc fx.Lifecycle, s *server.Server, cfg Config, registry discovery.Config, log *slog.Logger) {
	debug.SetGCPercent(cfg.GCPercent)
	view := discovery.NewView(discovery.NewClient(registry), log)
	g := New(cfg, registry.Environment, view, log)
	g.Mount(s)
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			view.Start()
			g.Start()
			return nil
		},
		OnStop: func(context.Context) error {
			g.Stop()
			view.Stop()
			return nil
		},
	})
}
