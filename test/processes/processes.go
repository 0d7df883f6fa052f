// Package processes gives tests the platform's own programs as processes of their own, which can be killed.
package processes

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

const (
	// Patience is how long a test waits for anything, on a machine that is busy with other tests.
	Patience  = 60 * time.Second
	pollEvery = 25 * time.Millisecond
)

// Start starts a program that does not outlive the test, and returns where its stderr goes. That is shown when the test fails.
func Start(t testing.TB, cmd *exec.Cmd) (log string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(cmd.Path)+".log"))
	must(t, err)
	defer file.Close()
	cmd.Stderr = file
	must(t, child.Start(cmd, syscall.SIGKILL))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if said, err := os.ReadFile(file.Name()); t.Failed() && err == nil {
			const most = 3000
			t.Logf("--- %s\n%s", filepath.Base(cmd.Path), said[max(0, len(said)-most):])
		}
	})
	return file.Name()
}

// Binary is one of the platform's programs, as `make build` left it.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// Prometheus starts one that listens at an address and reads metrics four times a second, of whom the scrape configurations name. It
// does not wait for it.
func Prometheus(t testing.TB, address, scrape string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		path = filepath.Join("..", "..", "bin", "prometheus")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `test/clients/install` first", err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(config, []byte("global: {scrape_interval: 250ms, scrape_timeout: 250ms}\nscrape_configs:\n"+scrape), 0o600))
	cmd := exec.Command(path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	Start(t, cmd)
	return cmd
}

// FreeAddress is one of the loopback interface that was free a moment ago.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := pgtest.FreePort()
	must(t, err)
	return "127.0.0.1:" + strconv.Itoa(port)
}

// Until polls until something is so, where there is nothing to wait on.
func Until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	deadline := time.After(Patience)
	for !reached() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it never came that %s", what)
		}
	}
}

// Registry is an eureka-server on one address, whatever becomes of its process.
type Registry struct {
	// URL is http://host:port.
	URL string
	// PublicKey names the file with the platform's token key; Private is the other half.
	PublicKey string
	Private   []byte
	// Log is where the process that runs says what it does.
	Log string

	t       testing.TB
	address string
	cmd     *exec.Cmd
}

// NewRegistry prepares a registry. Launch starts it.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	must(t, err)
	r := &Registry{t: t, address: FreeAddress(t), PublicKey: filepath.Join(t.TempDir(), "key"), Private: private}
	r.URL = "http://" + r.address
	must(t, os.WriteFile(r.PublicKey, public, 0o600))
	return r
}

// Database makes an empty registry_db.
func (r *Registry) Database() postgres.Config { return pgtest.New(r.t, migrations.Registry()) }

// Launch starts the process on a database and waits until it answers.
func (r *Registry) Launch(database postgres.Config, env ...string) {
	r.t.Helper()
	password := r.PublicKey + ".password"
	must(r.t, os.WriteFile(password, []byte(database.Password), 0o600))
	r.cmd = exec.Command(Binary(r.t, "eureka-server"))
	r.cmd.Env = append([]string{"SERVER_ADDRESS=" + r.address, "DATABASE_URL=" + database.URL, "DATABASE_PASSWORD_FILE=" + password,
		"IDENTITY_PUBLIC_KEY_FILE=" + r.PublicKey}, env...)
	r.Log = Start(r.t, r.cmd)
	Until(r.t, "the registry answers", func() bool {
		res, err := http.Get(r.URL + "/actuator/health/liveness")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	})
}

// Kill ends the process as a crash would.
func (r *Registry) Kill() {
	r.t.Helper()
	must(r.t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
}

// Gateway starts an api-gateway of production that registers itself, and does not wait for it.
func (r *Registry) Gateway(env ...string) (address, log string, cmd *exec.Cmd) {
	r.t.Helper()
	address = FreeAddress(r.t)
	cmd = exec.Command(Binary(r.t, "api-gateway"))
	cmd.Env = append([]string{"SERVER_ADDRESS=" + address, "DISCOVERY_URL=" + r.URL + "/eureka", "DISCOVERY_RENEW_INTERVAL=500ms",
		"SMS_ENVIRONMENT=production", "IDENTITY_PUBLIC_KEY_FILE=" + r.PublicKey}, env...)
	return address, Start(r.t, cmd), cmd
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
