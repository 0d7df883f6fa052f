package ops

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/notice"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/settings"
)

// Config is what can be operated: the same lists as the worker's.
type Config struct {
	// Databases that can be backed up, as in the worker's backup.Config.
	Databases backup.Sources `env:"BACKUP_DATABASES"`
	// Gateways by environment, as in the worker's smoketest.Config.
	Gateways smoketest.Gateways `env:"SMOKE_GATEWAYS"`
	// TargetSocket is set where the worker has a target to roll out to, as in workers.RolloutConfig.
	TargetSocket string `env:"TARGET_SOCKET"`
	// PrometheusURL is set where the worker can ask a Prometheus, as in its rollout.Prometheus.
	PrometheusURL string `env:"PROMETHEUS_URL"`
	// Promise is how old the newest verified backup of a database may be, and how long a database that is new here may
	// have none. The default gives a nightly backup an hour on the day that has 25.
	Promise time.Duration `env:"BACKUP_PROMISE" envDefault:"26h"`
	// WatchInterval is how often the watchdog looks whether promises are kept.
	WatchInterval time.Duration `env:"BACKUP_WATCH_INTERVAL" envDefault:"1m"`
}

// Check names every fault.
func (c Config) Check() error {
	var faults []error
	if c.Promise <= 0 {
		faults = append(faults, fmt.Errorf("BACKUP_PROMISE: %s: must be above 0, such as 26h", c.Promise))
	}
	if c.WatchInterval < time.Second {
		faults = append(faults, fmt.Errorf("BACKUP_WATCH_INTERVAL: %s: must be at least 1s", c.WatchInterval))
	}
	return errors.Join(faults...)
}

// Rollouts reports whether there is a target to roll out to.
func (c Config) Rollouts() bool { return c.TargetSocket != "" }

// Module is the operations' HTTP side, on the process's database pool and Temporal client.
var Module = fx.Module("ops",
	fx.Provide(settings.Load[Config], settings.Load[notice.Config], operation.NewStore, notice.NewDeliverer, New, NewWatchdog),
	fx.Invoke(func(s *server.Server, ops *Service) { ops.Mount(s) }, watch, tell, func(s *server.Server, store *operation.Store, log *slog.Logger) {
		s.Metrics.MustRegister(RolloutMetrics{store, log})
	}),
)

// watch keeps the watchdog going. What it finds is shown, and does not make the service unready: no other instance would
// have younger backups.
func watch(lc fx.Lifecycle, s *server.Server, w *Watchdog, cfg Config) {
	s.Health.Advise("backups", w.Check)
	s.Metrics.MustRegister(w)
	lc.Append(fx.StartStopHook(func() { w.Start(cfg.WatchInterval) }, w.Stop))
}

// tell keeps webhooks told. One that does not listen is shown, and does not make the service unready.
func tell(lc fx.Lifecycle, s *server.Server, d *notice.Deliverer, cfg notice.Config) {
	if cfg.File != "" {
		s.Health.Advise("webhooks", checkWebhooks(d))
	}
	s.Metrics.MustRegister(d)
	lc.Append(fx.StartStopHook(d.Start, d.Stop))
}
