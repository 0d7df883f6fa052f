package configuration

import (
	"go.uber.org/fx"

	environment "github.com/school-sms/sms/internal/settings"
)

// Module serves settings and profile from the process's database pool.
var Module = fx.Module("configuration",
	fx.Provide(NewStore),
	fx.Provide(environment.Load[Config], fx.Private),
	fx.Invoke(Mount),
)
