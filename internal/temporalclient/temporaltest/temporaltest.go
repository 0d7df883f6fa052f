// Package temporaltest gives tests a real Temporal server: one a test binary, on the PostgreSQL of pgtest.
package temporaltest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// programVariable names the server to run; without it, bin/temporal-server of the module, which `make build` makes.
const programVariable = "SMS_TEMPORAL_SERVER"

// Server is a Temporal server that a test may stop and start again, always at the same address.
type Server struct {
	Address string

	env []string
	log string
	cmd *exec.Cmd
}

var (
	mu      sync.Mutex
	shared  *Server
	failure error
)

// Address returns where the server that all tests share answers. It is started at the first call, and dies with the test
// binary.
func Address(t testing.TB) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if shared == nil && failure == nil {
		cluster, password := pgtest.Cluster(t)
		shared, failure = start(cluster, password, "temporal")
	}
	if failure != nil {
		t.Fatalf("start a Temporal server for tests: %v", failure)
	}
	return shared.Address
}

// New starts a server of the test's own, with databases of that name.
func New(t testing.TB, name string) *Server {
	t.Helper()
	cluster, password := pgtest.Cluster(t)
	s, err := start(cluster, password, name)
	if err != nil {
		t.Fatalf("start a Temporal server of its own: %v", err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Restart starts a server again that was killed.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatalf("start a Temporal server again: %v", err)
	}
}

// Namespace makes a namespace of its own for a test, in the server that all tests share.
func Namespace(t testing.TB, name string) string {
	t.Helper()
	return (&Server{Address: Address(t)}).Namespace(t, name)
}

// Namespace makes a namespace.
func (s *Server) Namespace(t testing.TB, name string) string {
	t.Helper()
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: s.Address, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	defer namespaces.Close()
	err = namespaces.Register(context.Background(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func start(cluster postgres.Cluster, password, name string) (*Server, error) {
	dir := filepath.Dir(cluster.Dir)
	passwordFile := filepath.Join(dir, name+".password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return nil, err
	}
	s := &Server{Address: "127.0.0.1:0", log: filepath.Join(dir, name+".log"), env: []string{
		"TEMPORAL_DATABASE_URL=" + cluster.Config(postgres.Superuser, "", name).URL, "TEMPORAL_DATABASE_PASSWORD_FILE=" + passwordFile,
		"TEMPORAL_VISIBILITY_DATABASE=" + name + "_visibility", "TEMPORAL_UI_ADDRESS=", "TEMPORAL_HEALTH_ADDRESS=", "LOG_LEVEL=warn",
	}}
	return s, s.run()
}

// run returns when the server is ready.
func (s *Server) run() error {
	program, err := find()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(program)
	s.cmd.Env = append(slices.Clone(s.env), "TEMPORAL_ADDRESS="+s.Address)
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(s.cmd, syscall.SIGKILL); err != nil {
		return err
	}
	var ready struct {
		Address string `json:"address"`
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		_ = s.cmd.Wait()
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("it ended before it was ready: %s", said[max(0, len(said)-1000):])
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return fmt.Errorf("it says %q: %w", line, err)
	}
	s.Address = ready.Address
	return nil
}

func find() (string, error) {
	if program := os.Getenv(programVariable); program != "" {
		return program, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not within a Go module")
		}
		dir = filepath.Dir(dir)
	}
	program := filepath.Join(dir, "bin", "temporal-server")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("there is no %s: run `make build`, or name the server with %s", program, programVariable)
	}
	return program, nil
}

// quiet drops the client's own logs.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
