// Package clients runs Eureka clients that others wrote, as they are, against a real registry that is killed under them.
package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
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
	// patience is how long a test waits for anything, on a machine that is busy with other tests.
	patience  = 60 * time.Second
	pollEvery = 25 * time.Millisecond
)

// start starts a program that does not outlive the test. What it says is shown when the test fails.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(cmd.Path)+".log"))
	must(t, err)
	defer log.Close()
	cmd.Stderr = log
	must(t, child.Start(cmd, syscall.SIGKILL))
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if said, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			const most = 3000
			t.Logf("--- %s\n%s", filepath.Base(cmd.Path), said[max(0, len(said)-most):])
		}
	})
}

// binary is one of the platform's programs.
func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	must(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// registry is an eureka-server process on one port, whatever becomes of it.
type registry struct {
	t    *testing.T
	port int
	dir  string // of its files
	cmd  *exec.Cmd
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	port, err := pgtest.FreePort()
	must(t, err)
	_, public, err := identity.NewKeyPair()
	must(t, err)
	r := &registry{t: t, port: port, dir: t.TempDir()}
	must(t, os.WriteFile(r.publicKey(), public, 0o600))
	return r
}

func (r *registry) url() string       { return "http://127.0.0.1:" + strconv.Itoa(r.port) }
func (r *registry) publicKey() string { return filepath.Join(r.dir, "key") }

// launch starts the registry on a database and waits until it answers.
func (r *registry) launch(database postgres.Config) {
	r.t.Helper()
	password := filepath.Join(r.dir, "password")
	must(r.t, os.WriteFile(password, []byte(database.Password), 0o600))
	r.cmd = exec.Command(binary(r.t, "eureka-server"))
	r.cmd.Env = []string{"SERVER_ADDRESS=127.0.0.1:" + strconv.Itoa(r.port), "DATABASE_URL=" + database.URL,
		"DATABASE_PASSWORD_FILE=" + password, "IDENTITY_PUBLIC_KEY_FILE=" + r.publicKey(), "LOG_LEVEL=warn"}
	start(r.t, r.cmd)
	r.until("the registry answers", func() bool { return r.get("/eureka/apps", nil) == http.StatusOK })
}

// kill ends the registry as a crash would.
func (r *registry) kill() {
	r.t.Helper()
	must(r.t, r.cmd.Process.Kill())
	_ = r.cmd.Wait()
}

func (r *registry) database() postgres.Config { return pgtest.New(r.t, migrations.Registry()) }

// get reads a path as JSON; the status is 0 when nobody answers.
func (r *registry) get(path string, into any) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url()+path, nil)
	must(r.t, err)
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if into != nil && res.StatusCode == http.StatusOK {
		must(r.t, json.NewDecoder(res.Body).Decode(into))
	}
	return res.StatusCode
}

// registered is an instance as an ordinary client of the registry reads it.
type registered struct {
	Instance struct {
		Status   string
		Metadata map[string]string
	}
}

// holds reports whether the registry shows an instance, UP and with the metadata that the programs give themselves.
func (r *registry) holds(app, id string) bool {
	var found registered
	return r.get("/eureka/apps/"+app+"/"+id, &found) == http.StatusOK && found.Instance.Status == "UP" &&
		found.Instance.Metadata["colour"] == "blue"
}

// until polls: the protocol of the registry's clients has nothing to wait on.
func (r *registry) until(what string, reached func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !reached() {
		select {
		case <-ticker.C:
		case <-deadline:
			r.t.Fatalf("it never came that %s", what)
		}
	}
}

// event is what a program says of itself.
type event struct {
	Event string
	IDs   []string
}

// program is a process with a client in it, and all that it has said.
type program struct {
	t   *testing.T
	cmd *exec.Cmd

	mu      sync.Mutex
	events  []event
	changed chan struct{}
	over    bool
}

func run(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, changed: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	must(t, err)
	start(t, cmd)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = event{Event: fmt.Sprintf("%v: %s", err, bytes.Clone(lines.Bytes()))}
			}
			p.add(e, false)
		}
		p.add(event{Event: "over"}, true)
	}()
	return p
}

func (p *program) add(e event, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.over = append(p.events, e), over
	close(p.changed)
	p.changed = make(chan struct{})
}

// now is the place after all that the program has said.
func (p *program) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// await waits until the program says something after a place, and returns the place after that.
func (p *program) await(from int, name string, ids ...string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), patience, errors.New("too long"))
	defer cancel()
	for {
		p.mu.Lock()
		events, changed, over := p.events, p.changed, p.over
		p.mu.Unlock()
		for i := from; i < len(events); i++ {
			if events[i].Event == name && slices.Equal(events[i].IDs, ids) {
				return i + 1
			}
		}
		if over {
			p.t.Fatalf("it ended and never said %s %v: %v", name, ids, events)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			p.t.Fatalf("it does not say %s %v (%v): %v", name, ids, context.Cause(ctx), events)
		}
	}
}

// said counts what the program has said after a place.
func (p *program) said(from int, name string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events[from:] {
		if e.Event == name {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
