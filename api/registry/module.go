package registry

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/settings"
	"github.com/school-sms/sms/migrations"
)

// Module is the registry on its database.
var Module = fx.Module("registry",
	fx.Provide(settings.Load[Config], settings.Load[postgres.Config], fx.Private),
	fx.Provide(
		func(cfg postgres.Config) (*pgxpool.Pool, error) {
			return postgres.Open(context.Background(), cfg, "eureka-server")
		}, fx.Private),
	fx.Provide(New, fx.Private),
	fx.Invoke(run),
)

func run(lc fx.Lifecycle, s *server.Server, r *Registry, cfg Config, database postgres.Config, pool *pgxpool.Pool, log *slog.Logger) {
	r.Mount(s)
	if cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
	prepare := func(context.Context) error { return nil }
	if database.Migrate {
		prepare = func(ctx context.Context) error {
			_, err := postgres.Migrate(ctx, database, migrations.Registry())
			return err
		}
	}
	running, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	lc.Append(fx.Hook{
		OnStart: func(ctx context.Context) error {
			loaded := make(chan struct{})
			wg.Go(func() { r.Follow(running, prepare, loaded) })
			wg.Go(func() { r.Run(running) })
			select {
			case <-loaded:
			case <-time.After(cfg.StartWait):
				log.Warn("the stored leases cannot be read for now: starting without them")
			case <-ctx.Done():
			}
			return nil
		},
		OnStop: func(context.Context) error {
			cancel()
			wg.Wait()
			pool.Close()
			return nil
		},
	})
}

// Mount adds the registry's paths, health and end to a server.
func (r *Registry) Mount(s *server.Server) {
	r.MountEureka(s.Engine)
	r.MountSnapshot(s.Engine)
	r.RegisterSplits(s)
	r.MountPage(s.Engine)
	s.Metrics.MustRegister(r)
	s.Health.Advise("database", server.CheckError(r.store.pool.Ping))
	s.OnDrain(func(context.Context) { r.Close() })
}
