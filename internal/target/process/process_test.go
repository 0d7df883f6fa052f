package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/target"
)

// scripted is a target that keeps what it was told and fails as it is told.
type scripted struct {
	told []any
	err  error
}

func (s *scripted) Import(_ context.Context, service, ref string) (target.Release, error) {
	s.told = append(s.told, service, ref)
	return target.Release{Digest: "sha256:1"}, s.err
}

func (s *scripted) Ensure(_ context.Context, d target.Deployment) error {
	s.told = append(s.told, d)
	return s.err
}

func (s *scripted) Status(_ context.Context, environment, service string) (target.Observed, error) {
	s.told = append(s.told, environment, service)
	return target.Observed{Instances: []target.Instance{{Name: "one", Release: "sha256:1", Ready: true}}}, s.err
}

func (s *scripted) Remove(_ context.Context, environment, service, track string, fence int64) error {
	s.told = append(s.told, environment, service, track, fence)
	return s.err
}

func (s *scripted) Migrations(_ context.Context, environment, service, release string) (migration.Plan, error) {
	s.told = append(s.told, environment, service, release)
	return migration.Plan{Database: "student_db", Version: 7}, s.err
}

func (s *scripted) Migrate(_ context.Context, m target.Migration) (migration.Plan, error) {
	s.told = append(s.told, m)
	return migration.Plan{Database: "student_db", Version: 8}, s.err
}

// dial serves a target on a Unix socket.
func dial(t *testing.T, served target.Target) Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: Handler(served)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return NewClient(socket)
}

func TestEveryCallArrivesAsItWasMade(t *testing.T) {
	t.Parallel()
	far := &scripted{}
	near := dial(t, far)
	d := target.Deployment{Environment: "production", Service: "student-service", Track: target.Canary, Release: "sha256:1", Replicas: 2, Fence: 1 << 60}
	release, err := near.Import(t.Context(), "student-service", "/srv/a b")
	observed, statusErr := near.Status(t.Context(), "staging", "api-gateway")
	asked := target.Migration{Environment: "staging", Service: "student-service", Release: "sha256:1", Kind: migration.Contract, Fence: 1 << 60}
	plan, planErr := near.Migrations(t.Context(), "staging", "student-service", "sha256:1")
	migrated, migrateErr := near.Migrate(t.Context(), asked)
	if err := errors.Join(err, statusErr, planErr, migrateErr, near.Ensure(t.Context(), d), near.Remove(t.Context(), "production", "api-gateway", target.Stable, 7)); err != nil {
		t.Fatal(err)
	}
	if release.Digest != "sha256:1" || observed.Ready("sha256:1") != 1 || plan.Version != 7 || migrated.Version != 8 {
		t.Errorf("came back: %+v, %+v, %+v, %+v", release, observed, plan, migrated)
	}
	want := []any{"student-service", "/srv/a b", "staging", "api-gateway", "staging", "student-service", "sha256:1", asked, d, "production", "api-gateway", target.Stable, int64(7)}
	if diff := cmp.Diff(want, far.told); diff != "" {
		t.Errorf("what arrived (-want +got):\n%s", diff)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		far  error
		is   error
		text string
	}{
		"fenced":    {target.ErrFenced, target.ErrFenced, target.ErrFenced.Error()},
		"not found": {fmt.Errorf("%w: no such file", target.ErrNotFound), target.ErrNotFound, "not found on the target: no such file"},
		"migration": {fmt.Errorf("%w: it is locked", target.ErrMigration), target.ErrMigration, "the migration failed: it is locked"},
		"other":     {errors.New("disk full"), nil, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := dial(t, &scripted{err: c.far}).Ensure(t.Context(), target.Deployment{})
			if err == nil || err.Error() != c.text || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %s", err, c.text)
			}
		})
	}
	err := NewClient(filepath.Join(t.TempDir(), "nobody")).Ensure(t.Context(), target.Deployment{})
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
}
