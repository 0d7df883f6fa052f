package workers

import (
	"context"
	"log/slog"
	"sync"

	"go.temporal.io/sdk/client"
	"go.uber.org/fx"

	backupacts "github.com/school-sms/sms/activities/backup"
	smoketestacts "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/settings"
)

// Module is the worker of every kind of operation. A kind is added by its registration.
var Module = fx.Module("workers",
	fx.Provide(settings.Load[Config], settings.Load[backup.Config], settings.Load[smoketestacts.Config], settings.Load[RolloutConfig], settings.Load[discovery.Config], operation.NewStore, NewBackupActivities, Schedules),
	registration(RecordRegistration),
	registration(SmokeTestRegistration),
	registration(BackupRegistration),
	registration(RolloutRegistration),
	fx.Provide(fx.Annotate(newHost, fx.ParamTags(``, `group:"registrations"`))),
	fx.Provide(func() *backupacts.Running { return &backupacts.Running{} }),
	fx.Invoke(start, keepCatalogue, func(s *server.Server, running *backupacts.Running) { s.Metrics.MustRegister(running) }),
)

// registration provides a constructor's Registration to the worker.
func registration(constructor any) fx.Option {
	return fx.Provide(fx.Annotate(constructor, fx.ResultTags(`group:"registrations"`)))
}

func newHost(c client.Client, registrations []Registration, schedules []schedule.Definition, cfg Config, log *slog.Logger) *Host {
	return NewHost(c, registrations, schedules, cfg.StopTimeout, log)
}

func start(lc fx.Lifecycle, h *Host, s *server.Server) {
	s.Health.Require("temporal", server.CheckError(h.Check))
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			h.Start()
			return nil
		},
		OnStop: func(context.Context) error {
			h.Stop()
			return nil
		},
	})
}

// keepCatalogue rebuilds the catalogue when the worker starts. Work does not wait for it.
func keepCatalogue(lc fx.Lifecycle, acts *backupacts.Activities, log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			running.Go(func() { rebuildCatalogue(ctx, acts, log) })
			return nil
		},
		OnStop: func(context.Context) error {
			cancel()
			running.Wait()
			return nil
		},
	})
}
