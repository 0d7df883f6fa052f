package postgres_test

import (
	"io/fs"
	"testing"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// TestMigrationsOfThePlatformMayRunInRollouts looks into every migration that there is: what a rollout would refuse is found here first.
func TestMigrationsOfThePlatformMayRunInRollouts(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]fs.FS{"student": migrations.Student(), "configuration": migrations.Configuration(), "registry": migrations.Registry(), "ops": migrations.Ops()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := postgres.PlanMigrations(t.Context(), pgtest.New(t, nil), files)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Version != 0 || len(plan.Pending) == 0 || int(plan.Known) != len(plan.Pending) {
				t.Errorf("the plan of an empty database: %+v", plan)
			}
			for _, m := range plan.Of(migration.Refused) {
				t.Errorf("%s is neither expand-only nor marked, see docs/decisions/0032-migrations-in-rollouts.md: %q", m.Name, m.Findings)
			}
		})
	}
}
