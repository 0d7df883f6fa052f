package student

import (
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
)

// Module serves students from the process's database pool.
var Module = fx.Module("student",
	fx.Provide(NewStore),
	fx.Invoke(func(s *server.Server, store *Store) { Mount(s, store, DefaultSchool, time.Now) }),
)
