package student

import (
	"log/slog"
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
)

// Module serves students from the process's database pool.
var Module = fx.Module("student",
	server.Settings[CSVConfig](),
	fx.Provide(NewStore),
	fx.Invoke(func(s *server.Server, store *Store) { Mount(s, store, DefaultSchool, time.Now) }),
	fx.Invoke(func(lc fx.Lifecycle, s *server.Server, store *Store, cfg CSVConfig, log *slog.Logger) {
		files := NewCSV(store, cfg, DefaultSchool, time.Now, log)
		files.Mount(s)
		lc.Append(fx.StartStopHook(files.Start, files.Stop))
	}),
)
