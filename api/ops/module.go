package ops

import (
	"go.uber.org/fx"

	"github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/backup"
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
}

// Rollouts reports whether there is a target to roll out to.
func (c Config) Rollouts() bool { return c.TargetSocket != "" }

// Module is the operations' HTTP side, on the process's database pool and Temporal client.
var Module = fx.Module("ops",
	fx.Provide(settings.Load[Config], operation.NewStore, New),
	fx.Invoke(func(s *server.Server, ops *Service) { ops.Mount(s) }),
)
