package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
)

// asServer makes the test binary be the server: tests run it as the process that it is, with signals and exit codes,
// without another build.
const asServer = "TEMPORAL_SERVER_TEST_AS_SERVER"

// postgres is shared by all tests but the one that kills it; each test has its own databases.
var postgres *privatePostgres

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
		return
	}
	var err error
	if postgres, err = newPostgres(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	postgres.remove()
	os.Exit(code)
}

// process is one run of the server.
type process struct {
	Ready
	t      *testing.T
	cmd    *exec.Cmd
	stderr lockedBuffer
	ready  chan struct{} // closed when the Ready message came
	exited chan struct{} // closed when the process ended
}

// launch starts a server with the environment, overridden by settings, and does not wait for it.
func launch(t *testing.T, environment map[string]string, settings ...string) *process {
	t.Helper()
	p := &process{t: t, ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = []string{asServer + "=1"}
	environment = maps.Clone(environment)
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		environment[key] = value
	}
	for key, value := range environment {
		p.cmd.Env = append(p.cmd.Env, key+"="+value)
	}
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		output := bufio.NewReader(stdout)
		if line, err := output.ReadBytes('\n'); err == nil && json.Unmarshal(line, &p.Ready) == nil {
			close(p.ready)
		}
		_, _ = io.Copy(io.Discard, output)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("server log:\n%s", p.stderr.String())
		}
	})
	return p
}

// start launches a server and waits until it is ready.
func start(t *testing.T, environment map[string]string, settings ...string) *process {
	t.Helper()
	p := launch(t, environment, settings...)
	select {
	case <-p.ready:
	case <-p.exited:
		t.Fatalf("server ended: %s", p.stderr.String())
	case <-time.After(30 * time.Second):
		t.Fatal("server is not ready after 30s")
	}
	return p
}

// exitCode waits for the end of the process.
func (p *process) exitCode() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(15 * time.Second):
		p.t.Fatal("server has not ended after 15s")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks for a clean end and checks that it is one.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if code := p.exitCode(); code != 0 {
		p.t.Fatalf("exit code %d after SIGTERM", code)
	}
}

// health is what the endpoint answers; the status code is 0 while nothing answers.
func (p *process) health(path string) (int, healthReport) {
	response, err := http.Get("http://" + p.HealthAddress + path)
	if err != nil {
		return 0, healthReport{}
	}
	defer response.Body.Close()
	var report healthReport
	if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
		p.t.Errorf("%s: %v", path, err)
	}
	return response.StatusCode, report
}

// dial connects an SDK client to the server's namespace.
func (p *process) dial(ctx context.Context) client.Client {
	p.t.Helper()
	c, err := client.DialContext(ctx, client.Options{
		HostPort: p.Address, Namespace: p.Namespace, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

// eventually polls until the condition returns no error, and fails the test when ctx ends before.
func eventually(ctx context.Context, t *testing.T, condition func() error) {
	t.Helper()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	t.Cleanup(cancel)
	return ctx
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
