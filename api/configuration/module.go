package configuration

import "go.uber.org/fx"

// Module serves settings and profile from the process's database pool.
var Module = fx.Module("configuration", fx.Provide(NewStore), fx.Invoke(Mount))
