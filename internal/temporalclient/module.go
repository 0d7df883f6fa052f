package temporalclient

import (
	"context"

	"go.temporal.io/sdk/client"
	"go.uber.org/fx"

	"github.com/school-sms/sms/internal/settings"
)

// Module provides a client that is closed when the process stops.
var Module = fx.Module("temporal",
	fx.Provide(
		settings.Load[Config],
		New,
		func(c client.Client) Liveness { return Liveness{Client: c} },
	),
	fx.Invoke(func(lc fx.Lifecycle, c client.Client) {
		lc.Append(fx.Hook{OnStop: func(context.Context) error {
			c.Close()
			return nil
		}})
	}),
)
