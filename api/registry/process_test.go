package registry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// process is a registry process that a test may kill and launch again, always at the same address.
type process struct {
	node
	port   int
	launch func() (kill func())
	// signal sends a signal to what was launched last.
	signal func(syscall.Signal)
}

func newProcess(t *testing.T, database postgres.Config, env ...string) *process {
	t.Helper()
	port, err := pgtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"password": []byte(database.Password), "key": public}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	p := &process{node: node{"http://" + address}, port: port}
	p.launch = func() func() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(append(os.Environ(), "TEST_EUREKA_SERVER=1", "SERVER_ADDRESS="+address,
			"DATABASE_URL="+database.URL, "DATABASE_PASSWORD_FILE="+filepath.Join(dir, "password"),
			"IDENTITY_PUBLIC_KEY_FILE="+filepath.Join(dir, "key"), "LOG_LEVEL=error"), env...)
		cmd.Stderr = os.Stderr
		if err := child.Start(cmd, syscall.SIGKILL); err != nil {
			t.Error(err)
			return func() {}
		}
		p.signal = func(s syscall.Signal) { _ = cmd.Process.Signal(s) }
		return sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	return p
}

// TestKilledRegistry kills a registry process with a signal that it cannot see, twice: nobody who lives is lost, the
// view of a gateway never loses anybody, and who died meanwhile goes within a lease.
func TestKilledRegistry(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	server := newProcess(t, database, "REGISTRY_EVICT_INTERVAL=100ms")
	port, launch := server.port, server.launch
	kill := launch()
	defer func() { kill() }()

	cfg := discovery.Config{URL: "http://127.0.0.1:" + strconv.Itoa(port) + "/eureka", Timeout: 2 * time.Second,
		RenewInterval: 500 * time.Millisecond, LeaseDuration: 2 * time.Second, Wait: 10 * time.Second}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	registrar := func(id string, cfg discovery.Config) *discovery.Registrar {
		r := discovery.NewRegistrar(cfg, discovery.Instance{App: "a", ID: id, Host: "127.0.0.1", Port: 1, Release: "r"}, log)
		r.Start()
		select {
		case <-r.Registered():
		case <-time.After(30 * time.Second):
			t.Fatalf("%s cannot register", id)
		}
		return r
	}
	living := registrar("living", cfg)
	never := cfg
	never.RenewInterval = time.Hour
	registrar("dead", never)

	view := discovery.NewView(discovery.NewClient(cfg), log)
	view.Start()
	defer view.Stop()
	awaitView(t, view, func(s discovery.Snapshot) bool { return len(s.App("a").Instances) == 2 })

	for range 2 {
		kill()
		snapshot, _ := view.Current()
		if len(snapshot.App("a").Instances) == 0 {
			t.Fatal("the view lost everybody with the registry")
		}
		epoch := snapshot.Epoch
		kill = launch()
		snapshot = awaitView(t, view, func(s discovery.Snapshot) bool { return s.Epoch != epoch })
		if app := snapshot.App("a"); len(app.Instances) == 0 || app.Instances[len(app.Instances)-1].ID != "living" {
			t.Fatalf("after the restart: %+v", app)
		}
	}
	awaitView(t, view, func(s discovery.Snapshot) bool { return len(s.App("a").Instances) == 1 })
	if err := living.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	awaitView(t, view, func(s discovery.Snapshot) bool { return len(s.App("a").Instances) == 0 })
}

func awaitView(t *testing.T, view *discovery.View, reached func(discovery.Snapshot) bool) discovery.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("the view does not get there"))
	defer cancel()
	for {
		snapshot, changed := view.Current()
		if reached(snapshot) {
			return snapshot
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%v: %+v", context.Cause(ctx), snapshot)
		}
	}
}
