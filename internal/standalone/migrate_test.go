package standalone

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/target"
)

// newFleet has imported a script as a release of the student service.
func newFleet(t *testing.T, script string) (f *fleet, release string) {
	t.Helper()
	p := &Platform{layout: Layout{Root: t.TempDir()}}
	path := filepath.Join(t.TempDir(), "student-service")
	desired, err := loadDesired(p.layout.desired())
	if err := errors.Join(err, p.layout.make(), os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700)); err != nil {
		t.Fatal(err)
	}
	f = &fleet{platform: p, desired: desired}
	imported, err := f.Import(t.Context(), "student-service", path)
	if err := errors.Join(err, desired.install(Production, "student-service", imported.Digest, 1), desired.install(Production, "api-gateway", imported.Digest, 1)); err != nil {
		t.Fatal(err)
	}
	return f, imported.Digest
}

func TestReleasesTellTheirMigrations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, untold, err string }{
		"a plan":             {`[ "$*" = "migrate --plan" ] && [ -n "$DATABASE_URL" ] && echo '{"plan":{"database":"student_db","version":6}}'`, "", ""},
		"an error":           {`echo '{"error":"it is locked"}'; exit 1`, "", "the migration failed: it is locked"},
		"a database is away": {`echo '{"error":"connection refused","unavailable":true}'; exit 1`, "", "connection refused"},
		"nothing":            {`exit 0`, "it does not answer migrate --plan", ""},
		"another language":   {`echo hello; echo 'cannot start: no key' >&2; exit 1`, "exit status 1), and says cannot start: no key", ""},
		"too much":           {`yes '{"plan":{}}' | head -c 3000000; yes complaint | head -c 3000000 >&2`, "and says complaint", ""},
		"settings to serve":  {`[ -z "$IDENTITY_PUBLIC_KEY_FILE$DISCOVERY_URL" ] && echo '{"plan":{"database":"student_db","version":6}}'`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, release := newFleet(t, c.script)
			if err := os.WriteFile(f.platform.layout.settingsOf("student-service"), []byte("IDENTITY_PUBLIC_KEY_FILE=/key\nDATABASE_MAX_CONNS=2\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			plan, err := f.Migrations(t.Context(), Production, "student-service", release)
			switch {
			case c.err != "":
				if err == nil || err.Error() != c.err || errors.Is(err, target.ErrMigration) != (name == "an error") {
					t.Errorf("got %v, want %s", err, c.err)
				}
			case err != nil, c.untold == "" && plan.Version != 6, len(plan.Untold) > 2*mostComplained, !strings.Contains(plan.Untold, c.untold):
				t.Errorf("got %+v, %v", plan, err)
			}
		})
	}
}

func TestMigrateKeepsToFencesAndContexts(t *testing.T) {
	t.Parallel()
	f, release := newFleet(t, `[ "$*" = "migrate --expand" ] && echo '{"plan":{"database":"student_db","version":7}}'`)
	m := target.Migration{Environment: Production, Service: "student-service", Release: release, Kind: migration.Expand, Fence: 5}
	for range 2 {
		if plan, err := f.Migrate(t.Context(), m); err != nil || plan.Version != 7 {
			t.Errorf("%+v, %v", plan, err)
		}
	}
	m.Kind = migration.Contract
	if _, err := f.Migrate(t.Context(), m); !errors.Is(err, target.ErrMigration) {
		t.Errorf("a release that does not know what it is asked: %v", err)
	}
	m.Fence = 4
	if _, err := f.Migrate(t.Context(), m); !errors.Is(err, target.ErrFenced) {
		t.Errorf("an older fence: %v", err)
	}
	if _, err := f.Migrations(t.Context(), Production, "student-service", "sha256:12"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("a release that is not there: %v", err)
	}
	if _, err := f.Migrations(t.Context(), "moon", "student-service", release); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("an environment that is not there: %v", err)
	}
	if plan, err := f.Migrations(t.Context(), Production, "api-gateway", release); err != nil || plan.Database != "" {
		t.Errorf("a service without a database: %+v, %v", plan, err)
	}
}

// TestAMigrationEndsWithItsCaller ends one that would go on for ever, once it says that it has begun.
func TestAMigrationEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	begun := filepath.Join(t.TempDir(), "begun")
	if err := syscall.Mkfifo(begun, 0o600); err != nil {
		t.Fatal(err)
	}
	f, release := newFleet(t, "echo begun >"+begun+"\nexec sleep 3600")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := f.Migrations(ctx, Production, "student-service", release)
		ended <- err
	}()
	if _, err := os.ReadFile(begun); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
