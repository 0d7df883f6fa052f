package student

import (
	"context"
	"log/slog"
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/school"
	"github.com/school-sms/sms/internal/settings"
)

// Module serves students from the process's database pool, by the settings of the school as they are.
var Module = fx.Module("student",
	server.Settings[CSVConfig](),
	fx.Provide(NewStore),
	fx.Provide(settings.Load[discovery.Config], settings.Load[school.Config], school.NewWatcher, fx.Private),
	fx.Invoke(
		follow,
		func(lc fx.Lifecycle, s *server.Server, store *Store, w *school.Watcher, cfg CSVConfig, log *slog.Logger) {
			current := func() School { return schoolOf(w.Current()) }
			Mount(s, store, current, time.Now)
			files := NewCSV(store, cfg, current, time.Now, log)
			files.Mount(s)
			lc.Append(fx.StartStopHook(files.Start, files.Stop))
		},
	),
)

// follow keeps the watcher going while the process runs, and shows what it knows.
func follow(lc fx.Lifecycle, s *server.Server, w *school.Watcher) {
	s.Health.Advise("schoolSettings", func(context.Context) server.Component {
		c := server.Component{Status: server.Down}
		ok, details := w.Health()
		if c.Details = details; ok {
			c.Status = server.Up
		}
		return c
	})
	s.Metrics.MustRegister(w.Collectors()...)
	lc.Append(fx.Hook{
		OnStart: func(ctx context.Context) error { w.Start(ctx); return nil },
		OnStop:  func(context.Context) error { w.Stop(); return nil },
	})
}
