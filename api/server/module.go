package server

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/settings"
	"github.com/school-sms/sms/internal/telemetry"
)

// Settings loads a configuration at once and provides it. The faults of all configurations are named together.
func Settings[T any]() fx.Option {
	cfg, err := settings.Load[T]()
	if err != nil {
		return fx.Error(err)
	}
	return fx.Supply(cfg)
}

// Module gives a process its logger, its token verifier and a *Server that starts last and stops first.
func Module(service string) fx.Option {
	return fx.Options(
		Settings[telemetry.LogConfig](),
		Settings[Config](),
		Settings[identity.Config](),
		Settings[Info](),
		fx.Provide(
			newVerifier,
			func(cfg telemetry.LogConfig) (*slog.Logger, error) {
				log, err := telemetry.NewLogger(os.Stderr, service, cfg)
				if err == nil {
					slog.SetDefault(log)
				}
				return log, err
			},
			func(cfg Config, info Info, verifier *identity.Verifier, log *slog.Logger) *Server {
				info.Service, info.Version, info.Commit = service, Version, Commit
				return New(cfg, info, verifier, log)
			},
		),
	)
}

// newVerifier follows the keys of the configured issuers while the process runs.
func newVerifier(lc fx.Lifecycle, cfg identity.Config) (*identity.Verifier, error) {
	verifier, err := identity.NewVerifier(cfg)
	if err != nil {
		return nil, err
	}
	lc.Append(fx.StartStopHook(verifier.Start, verifier.Stop))
	return verifier, nil
}

// migrateAgain is the pause before a migration is tried again while the database cannot be reached.
const migrateAgain = 500 * time.Millisecond

// Database provides a *postgres.DB, and the *pgxpool.Pool of its primary, to the database of the environment's postgres.Config,
// without which the service is not ready, nor with a schema that is older than it needs. When the configuration says so, the
// migrations are applied at start. Run does so without serving when it is asked to.
func Database(application string, migrations fs.FS) fx.Option {
	return migrated{migrate: newMigrator(migrations), Option: fx.Options(
		Settings[postgres.Config](),
		fx.Provide(func(lc fx.Lifecycle, cfg postgres.Config) (*postgres.DB, *pgxpool.Pool, error) {
			db, err := postgres.OpenDB(context.Background(), cfg, application)
			if err != nil {
				return nil, nil, err
			}
			lc.Append(fx.Hook{
				OnStart: func(ctx context.Context) error {
					if !cfg.Migrate {
						return nil
					}
					return migrate(ctx, cfg, migrations)
				},
				OnStop: func(context.Context) error {
					db.Close()
					return nil
				},
			})
			return db, db.Pool, nil
		}),
		fx.Invoke((*Server).UseDatabase),
		fx.Invoke(func(s *Server, db *postgres.DB) error {
			needed, err := postgres.NeededVersion(migrations)
			requireSchema(s, db, needed)
			return err
		}),
	)}
}

// migrated are options in which Run finds how to migrate. So programs without a database are built without what that takes.
type migrated struct {
	fx.Option
	migrate migrator
}

// Migrated lets Run migrate the database of a service that opens it by itself.
func Migrated(migrations fs.FS) fx.Option {
	return migrated{migrate: newMigrator(migrations), Option: fx.Options()}
}

func migrate(ctx context.Context, cfg postgres.Config, migrations fs.FS) error {
	if deadline, ok := ctx.Deadline(); ok { // end before fx does, which would say that it took too long and no more
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-time.Second))
		defer cancel()
	}
	for {
		_, err := postgres.Migrate(ctx, cfg, migrations)
		if err == nil || !postgres.Unavailable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the database did not become reachable: %w", err)
		case <-time.After(migrateAgain):
		}
	}
}

// Serve starts the server once everything listed before it in main has started, and stops it before them. It is a module
// because fx runs the invocations of modules, in their order, before those that stand alone.
var Serve = fx.Module("serve", fx.Invoke(func(lc fx.Lifecycle, s *Server, shutdown fx.Shutdowner) {
	lc.Append(fx.Hook{
		OnStart: func(ctx context.Context) error {
			if err := s.Start(ctx); err != nil {
				return err
			}
			go func() {
				s.log.Error("serving ended", "error", <-s.Failed())
				_ = shutdown.Shutdown(fx.ExitCode(1))
			}()
			return nil
		},
		OnStop: s.Stop,
	})
}))
