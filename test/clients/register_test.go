package clients

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/test/processes"
)

// TestRegisteringClients has services of others register, renew, find a service of ours, and live through a registry that
// is killed: once with its leases in the database, and once without.
func TestRegisteringClients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		command func(*testing.T) *exec.Cmd
		env     string
		delta   bool
	}{
		{"eureka-js-client in full", eurekaJS, "DELTA=0", false},
		{"eureka-js-client by deltas", eurekaJS, "DELTA=1", true},
		{"fargo in XML", fargo, "FORMAT=xml", false},
		{"fargo in JSON", fargo, "FORMAT=json", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := processes.NewRegistry(t)
			database := r.Database()
			r.Launch(database)
			join(t, r, "first")
			leave := join(t, r, "second")

			cmd := c.command(t)
			address, err := url.Parse(r.URL)
			must(t, err)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "REGISTRY_PORT=" + address.Port(), "APP=FOREIGN", "INSTANCE=foreign-1", "PEER=peer", c.env}
			p := run(t, cmd)
			at := p.await(0, "registered")
			processes.Until(t, "the registry shows the instance", func() bool { return holds(t, r, "FOREIGN", "foreign-1") })
			p.await(p.await(at, "heartbeat"), "heartbeat")
			p.await(0, "sees", "first", "second")
			if c.delta {
				p.await(at, "delta")
			}

			r.Kill()
			at = p.await(p.now(), "failed")
			r.Launch(database)
			at = p.await(at, "heartbeat")
			if n := p.said(0, "registered"); n != 1 || !holds(t, r, "FOREIGN", "foreign-1") {
				t.Errorf("the registry had the lease in its database, and lost it: registered %d times", n)
			}
			leave()
			at = p.await(at, "sees", "first")

			r.Kill()
			at = p.await(at, "failed")
			r.Launch(r.Database())
			at = p.await(p.await(at, "registered"), "heartbeat")
			processes.Until(t, "the instance is back", func() bool { return holds(t, r, "FOREIGN", "foreign-1") })
			join(t, r, "third")
			p.await(at, "sees", "first", "third")

			must(t, cmd.Process.Signal(syscall.SIGTERM))
			p.await(at, "deregistered")
			p.await(at, "over")
			if status := get(t, r, "/eureka/apps/FOREIGN/foreign-1", nil); status != 404 {
				t.Errorf("after it left: %d", status)
			}
		})
	}
}

// join puts a service of ours into the registry.
func join(t *testing.T, r *processes.Registry, id string) (leave func()) {
	t.Helper()
	cfg := discovery.Config{URL: r.URL + "/eureka", Timeout: 5 * time.Second, RenewInterval: 200 * time.Millisecond, LeaseDuration: 30 * time.Second}
	port := map[string]int{"first": 8081, "second": 8082, "third": 8083}[id] // by which clients tell instances of one host apart
	registrar := discovery.NewRegistrar(cfg, discovery.Instance{App: "peer", ID: id, Host: "127.0.0.1", Port: port}, slog.New(slog.DiscardHandler))
	registrar.Start()
	leave = func() {
		if err := registrar.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { _ = registrar.Stop(context.Background()) }) // the registry may be gone
	select {
	case <-registrar.Registered():
	case <-time.After(processes.Patience):
		t.Fatalf("%s cannot register", id)
	}
	return leave
}

func eurekaJS(t *testing.T) *exec.Cmd {
	t.Helper()
	if _, err := os.Stat(filepath.Join("eureka-js-client", "node_modules", ".installed")); err != nil {
		t.Fatalf("%v: run `test/clients/install` first", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: run `deploy/debian/install test` first", err)
	}
	return exec.Command(node, filepath.Join("eureka-js-client", "client.js"))
}

// builtFargo is the program of the folder fargo, which is a module of its own for the sake of its dependencies.
var builtFargo = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "fargo-client"))
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-C", "fargo", "-trimpath", "-o", path, ".")
	build.Stderr = os.Stderr
	return path, build.Run()
})

func fargo(t *testing.T) *exec.Cmd {
	t.Helper()
	path, err := builtFargo()
	if err != nil {
		t.Fatalf("build the client: %v", err)
	}
	return exec.Command(path)
}
