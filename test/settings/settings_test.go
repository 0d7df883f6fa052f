// Package settings tests that a change of the school's settings reaches the services: real processes that are killed, a real
// registry and real PostgreSQL databases.
package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/api/configuration"
	"github.com/school-sms/sms/api/registry"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// asService makes the test binary one of the services, so that there are processes to kill.
const asService = "SETTINGS_TEST_SERVICE"

func TestMain(m *testing.M) {
	switch os.Getenv(asService) {
	case "eureka-server":
		server.Run(server.Module("eureka-server"), registry.Module, server.Serve)
	case "configuration-service":
		server.Run(server.Module("configuration-service"), server.Database("configuration-service", migrations.Configuration()),
			configuration.Module, server.Serve, server.Registered)
	case "student-service":
		server.Run(server.Module("student-service"), server.Database("student-service", migrations.Student()), student.Module,
			server.Serve, server.Registered)
	}
	os.Exit(m.Run())
}

const (
	patience = time.Minute
	// promised is how soon a change is in force at every service.
	promised = 5 * time.Second
)

type platform struct {
	t       *testing.T
	dir     string
	token   string
	mobiles int
}

// process is one service on a port of its own.
type process struct {
	p   *platform
	url string
	env []string
	cmd *exec.Cmd
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{t: t, dir: t.TempDir(), mobiles: 9000000000}
	private, public, err := identity.NewKeyPair()
	must(t, err)
	signer, err := identity.NewSigner(private)
	must(t, err)
	p.token, err = signer.Sign("meera", identity.Admin, time.Hour)
	must(t, err)
	viewer, err := signer.Sign("student-service", identity.Viewer, time.Hour)
	must(t, err)
	p.write("key", string(public))
	p.write("token", viewer)
	return p
}

func (p *platform) path(name string) string { return filepath.Join(p.dir, name) }

func (p *platform) write(name, content string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path(name), []byte(content), 0o600))
}

// process makes a service that start starts.
func (p *platform) process(service string, database postgres.Config, env ...string) *process {
	p.t.Helper()
	port, err := pgtest.FreePort()
	must(p.t, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p.write("password", database.Password)
	return &process{p: p, url: "http://" + address, env: append([]string{asService + "=" + service, "SERVER_ADDRESS=" + address,
		"SERVER_DRAIN_DELAY=0s", "LOG_LEVEL=warn", "IDENTITY_PUBLIC_KEY_FILE=" + p.path("key"), "DATABASE_URL=" + database.URL,
		"DATABASE_PASSWORD_FILE=" + p.path("password")}, env...)}
}

// start runs the service until it is killed or the test ends, and waits until it is ready.
func (r *process) start() {
	r.p.t.Helper()
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env, r.cmd.Stderr = r.env, os.Stderr
	must(r.p.t, child.Start(r.cmd, syscall.SIGKILL))
	r.p.t.Cleanup(r.kill)
	r.p.eventually(patience, r.url+" is ready", func() (bool, string) {
		res, err := http.Get(r.url + "/actuator/health/readiness")
		if err != nil {
			return false, err.Error()
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
}

// kill ends it as a crash would.
func (r *process) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *platform) eventually(within time.Duration, what string, is func() (bool, string)) {
	p.t.Helper()
	deadline, tick := time.After(within), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		done, last := is()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("%s: not within %s; last: %s", what, within, last)
		}
	}
}

// call asks a service as an administrator and decodes a good answer into out.
func (r *process) call(method, path string, in, out any, ifMatch string) (int, string) {
	r.p.t.Helper()
	body, err := json.Marshal(in)
	must(r.p.t, err)
	req, err := http.NewRequestWithContext(r.p.t.Context(), method, r.url+path, bytes.NewReader(body))
	must(r.p.t, err)
	req.Header.Set("Authorization", "Bearer "+r.p.token)
	req.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	res, err := http.DefaultClient.Do(req)
	must(r.p.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(r.p.t, err)
	if out != nil && res.StatusCode < 300 {
		must(r.p.t, json.Unmarshal(text, out))
	}
	return res.StatusCode, string(text)
}

// minAge sets the least age of a student.
func (r *process) minAge(years int) {
	r.p.t.Helper()
	const settings = "/api/v1/configurations/settings"
	var academic []configuration.Setting
	r.call(http.MethodGet, settings+"/category/ACADEMIC", nil, &academic, "")
	for _, s := range academic {
		if s.Key == "MIN_STUDENT_AGE" {
			if status, text := r.call(http.MethodPut, fmt.Sprintf("%s/%d", settings, s.SettingID), map[string]string{"value": fmt.Sprint(years)}, nil,
				server.ETag(s.Version)); status != http.StatusOK {
				r.p.t.Fatalf("set the least age: %d %s", status, text)
			}
			return
		}
	}
	r.p.t.Fatalf("there is no least age in %+v", academic)
}

// takes says whether the service registers a child of so many years.
func (r *process) takes(years int) (bool, string) {
	r.p.t.Helper()
	r.p.mobiles++
	born := time.Now().AddDate(-years, 0, -30).Format(time.DateOnly)
	status, text := r.call(http.MethodPost, "/api/v1/students", map[string]any{"firstName": "Asha", "lastName": "Verma", "dateOfBirth": born,
		"mobile": fmt.Sprint(r.p.mobiles), "fatherNameOrGuardian": "Ravi Verma", "motherName": "Sunita Verma", "caste": "General",
		"address": map[string]string{"street": "12 Lake Road", "city": "Pune", "state": "Maharashtra", "pinCode": "411001", "country": "India"}}, nil, "")
	switch {
	case status == http.StatusCreated:
		return true, text
	case status == http.StatusUnprocessableEntity && strings.Contains(text, "/invalid-age"):
		return false, text
	}
	r.p.t.Fatalf("register a child: %d %s", status, text)
	return false, ""
}

// awaitTakes waits until it does, or until it does not.
func (r *process) awaitTakes(within time.Duration, years int, want bool) {
	r.p.t.Helper()
	r.p.eventually(within, fmt.Sprintf("takes a child of %d: %v", years, want), func() (bool, string) {
		takes, text := r.takes(years)
		return takes == want, text
	})
}

// awaitInForce waits until the service says that these settings hold.
func (r *process) awaitInForce(want string) {
	r.p.t.Helper()
	r.p.eventually(patience, "in force: "+want, func() (bool, string) {
		var health struct {
			Components struct {
				SchoolSettings struct{ Details struct{ InForce string } } `json:"schoolSettings"`
			}
		}
		status, text := r.call(http.MethodGet, "/actuator/health", nil, &health, "")
		return status == http.StatusOK && health.Components.SchoolSettings.Details.InForce == want, text
	})
}

// TestAgeLimitsFollowTheSettings changes a limit at configuration-service, kills that, and brings it back. One student service
// keeps what it knew last, the other does not.
func TestAgeLimitsFollowTheSettings(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	eureka := p.process("eureka-server", pgtest.New(t, migrations.Registry()))
	eureka.start()
	discovery := "DISCOVERY_URL=" + eureka.url + "/eureka"
	config := p.process("configuration-service", pgtest.New(t, migrations.Configuration()), discovery)
	config.start()
	students := pgtest.New(t, migrations.Student())
	follows := []string{discovery, "SCHOOL_SETTINGS_TOKEN_FILE=" + p.path("token")}
	keeps := p.process("student-service", students, append(follows, "SCHOOL_SETTINGS_KEEP=1h")...)
	falls := p.process("student-service", students, append(follows, "SCHOOL_SETTINGS_KEEP=0s", "SCHOOL_SETTINGS_START_WAIT=100ms")...)
	for _, service := range []*process{keeps, falls} {
		service.start()
		service.awaitInForce("CURRENT")
		service.awaitTakes(promised, 4, true)
	}

	config.minAge(6)
	began := time.Now()
	keeps.awaitTakes(promised, 4, false)
	t.Logf("refused %s after the change was answered", time.Since(began))
	falls.awaitTakes(promised, 4, false)

	config.kill()
	falls.awaitInForce("DEFAULTS")
	keeps.awaitInForce("LAST_KNOWN")
	falls.awaitTakes(promised, 4, true)
	falls.awaitTakes(promised, 2, false)
	keeps.awaitTakes(promised, 4, false)

	falls.kill() // starts all the same, and knows nothing
	falls.start()
	falls.awaitInForce("DEFAULTS")
	falls.awaitTakes(promised, 4, true)

	config.start()
	for _, service := range []*process{keeps, falls} {
		service.awaitInForce("CURRENT")
		service.awaitTakes(promised, 4, false)
	}
	config.minAge(3)
	keeps.awaitTakes(promised, 4, true)
	falls.awaitTakes(promised, 4, true)
}
