package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/settings"
)

// migrator is what a service's program with a database does with `migrate` and the arguments behind it.
type migrator func(ctx context.Context, args []string) migration.Answer

// runMigrations writes the answer to `migrate`. One of a service without a database, which is nil, has an empty plan.
func runMigrations(ctx context.Context, out io.Writer, args []string, m migrator) (exitCode int) {
	answer := migration.Answer{Plan: &migration.Plan{}}
	if m != nil {
		answer = m(ctx, args)
	}
	if err := json.NewEncoder(out).Encode(answer); err != nil || answer.Error != "" {
		return 1
	}
	return 0
}

// newMigrator takes one flag. Its settings are those of the database and postgres.Limits; no others are needed.
func newMigrator(migrations fs.FS) migrator {
	return func(ctx context.Context, args []string) migration.Answer {
		plan, err := planOrApply(ctx, args, migrations)
		if err != nil {
			return migration.Answer{Error: err.Error(), Unavailable: postgres.Unavailable(err)}
		}
		return migration.Answer{Plan: &plan}
	}
}

func planOrApply(ctx context.Context, args []string, migrations fs.FS) (plan migration.Plan, err error) {
	database, err := settings.Load[postgres.Config]()
	if err != nil {
		return plan, err
	}
	limits, err := settings.Load[postgres.Limits]()
	if err != nil {
		return plan, err
	}
	switch strings.Join(args, " ") {
	case migration.PlanFlag:
		return postgres.PlanMigrations(ctx, database, migrations)
	case migration.Flag(migration.Expand):
		return postgres.ApplyMigrations(ctx, database, migrations, migration.Expand, limits)
	case migration.Flag(migration.Contract):
		return postgres.ApplyMigrations(ctx, database, migrations, migration.Contract, limits)
	default:
		return plan, fmt.Errorf("%s takes one of %s, %s and %s", migration.Command, migration.PlanFlag, migration.Flag(migration.Expand), migration.Flag(migration.Contract))
	}
}

// requireSchema makes the service unready while the schema of its database is older than what it was built for. It says so, because
// nobody else can know.
func requireSchema(s *Server, db *postgres.DB, needed int32) {
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
