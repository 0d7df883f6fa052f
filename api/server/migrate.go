package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/settings"
)

// runMigrations is what a service's program does with `migrate`: one flag, one answer on out. A service without migrations answers
// an empty plan. The settings are those of the database and postgres.Limits; no others are needed.
func runMigrations(ctx context.Context, out io.Writer, args []string, migrations fs.FS) (exitCode int) {
	var answer migration.Answer
	plan, err := planOrApply(ctx, args, migrations)
	if answer.Plan = &plan; err != nil {
		answer = migration.Answer{Error: err.Error(), Unavailable: postgres.Unavailable(err)}
		exitCode = 1
	}
	if err := json.NewEncoder(out).Encode(answer); err != nil {
		return 1
	}
	return exitCode
}

func planOrApply(ctx context.Context, args []string, migrations fs.FS) (plan migration.Plan, err error) {
	if migrations == nil {
		return plan, nil
	}
	database, err := settings.Load[postgres.Config]()
	if err != nil {
		return plan, err
	}
	limits, err := settings.Load[postgres.Limits]()
	if err != nil {
		return plan, err
	}
	if len(args) == 1 {
		switch args[0] {
		case migration.PlanFlag:
			return postgres.PlanMigrations(ctx, database, migrations)
		case migration.Flag(migration.Expand):
			return postgres.ApplyMigrations(ctx, database, migrations, migration.Expand, limits)
		case migration.Flag(migration.Contract):
			return postgres.ApplyMigrations(ctx, database, migrations, migration.Contract, limits)
		}
	}
	return plan, fmt.Errorf("%s takes one of %s, %s and %s", migration.Command, migration.PlanFlag, migration.Flag(migration.Expand), migration.Flag(migration.Contract))
}

// requireSchema makes the service unready while the schema of its database is older than what it was built for. It says so, because
// nobody else can know.
func (s *Server) requireSchema(db *postgres.DB, needed int32) {
	s.Health.Require("schema", func(ctx context.Context) Component {
		version, err := postgres.SchemaVersion(ctx, db)
		switch {
		case err != nil:
			return Component{Status: Down}
		case version < needed:
			return Component{Status: Down, Details: map[string]any{"version": version, "needed": needed}}
		}
		return Component{Status: Up}
	})
}
