package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/fx"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

var versions = fstest.MapFS{
	"001_t.sql": {Data: []byte("create table t (id int, name text);")},
	"002_n.sql": {Data: []byte("alter table t add column n int;")},
	"003_d.sql": {Data: []byte("-- contract\nalter table t drop column name;")},
}

// TestMigrateInsteadOfServing sets the environment, so it does not run in parallel. No setting but the database's is needed.
func TestMigrateInsteadOfServing(t *testing.T) {
	database := pgtest.New(t, fstest.MapFS{"001_t.sql": versions["001_t.sql"]})
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(database.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL", database.URL)
	t.Setenv("DATABASE_PASSWORD_FILE", password)
	opts := []fx.Option{fx.Options(), Database("test-service", versions)}
	for _, c := range []struct {
		flag    string
		version int32
		pending int
	}{{migration.PlanFlag, 1, 2}, {"--contract", 1, 2}, {"--expand", 2, 1}, {"--expand", 2, 1}, {"--contract", 3, 0}, {migration.PlanFlag, 3, 0}} {
		var out strings.Builder
		code := runMigrations(t.Context(), &out, []string{c.flag}, migratorOf(opts))
		var answer migration.Answer
		if err := json.Unmarshal([]byte(out.String()), &answer); err != nil || code != 0 || answer.Plan.Version != c.version || len(answer.Plan.Pending) != c.pending {
			t.Errorf("%s: exit %d, %s", c.flag, code, out.String())
		}
	}

	for want, args := range map[string][]string{`"unavailable":true`: {migration.PlanFlag}, "takes one of --plan, --expand and --contract": {"--all"}} {
		t.Setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x")
		var out strings.Builder
		if code := runMigrations(t.Context(), &out, args, migratorOf(opts)); code != 1 || !strings.Contains(out.String(), want) || strings.Contains(out.String(), database.Password) {
			t.Errorf("%v: exit %d, %s, want %s", args, code, out.String(), want)
		}
	}
	var out strings.Builder
	if code := runMigrations(t.Context(), &out, nil, migratorOf([]fx.Option{fx.Options()})); code != 0 || out.String() != `{"plan":{"version":0,"known":0}}`+"\n" {
		t.Errorf("a service without a database: exit %d, %s", code, out.String())
	}
}

func TestAnOlderSchemaIsNotReady(t *testing.T) {
	t.Parallel()
	pool, err := postgres.Open(t.Context(), pgtest.New(t, fstest.MapFS{"001_t.sql": versions["001_t.sql"]}), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	needed, err := postgres.NeededVersion(versions)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Health: newHealth()}
	requireSchema(s, postgres.NewDB(pool), needed)
	check := func(want string) {
		t.Helper()
		if _, components := s.Health.Check(t.Context()); components["schema"].Status != want {
			t.Errorf("the schema is %+v, want %s", components["schema"], want)
		}
	}
	check(Down)
	if _, err := pool.Exec(t.Context(), "update schema_version set version = 2"); err != nil {
		t.Fatal(err)
	}
	check(Up)
}
