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

var (
	mu      sync.Mutex
	address string
	failure error
)

// Address returns where the server answers. It is started at the first call, and dies with the test binary.
func Address(t testing.TB) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if address == "" && failure == nil {
		cluster, password := pgtest.Cluster(t)
		address, failure = start(cluster, password)
	}
	if failure != nil {
		t.Fatalf("start a Temporal server for tests: %v", failure)
	}
	return address
}

// Namespace makes a namespace of its own for a test.
func Namespace(t testing.TB, name string) string {
	t.Helper()
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: Address(t), Logger: quiet{}})
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

func start(cluster postgres.Cluster, password string) (string, error) {
	program, err := find()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(cluster.Dir)
	passwordFile := filepath.Join(dir, "temporal.password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(dir, "temporal.log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Env = []string{
		"TEMPORAL_DATABASE_URL=" + cluster.Config(postgres.Superuser, "", "temporal").URL, "TEMPORAL_DATABASE_PASSWORD_FILE=" + passwordFile,
		"TEMPORAL_ADDRESS=127.0.0.1:0", "TEMPORAL_UI_ADDRESS=", "TEMPORAL_HEALTH_ADDRESS=", "LOG_LEVEL=warn",
	}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(cmd, syscall.SIGKILL); err != nil {
		return "", err
	}
	var ready struct {
		Address string `json:"address"`
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		_ = cmd.Wait()
		said, _ := os.ReadFile(log.Name())
		return "", fmt.Errorf("it ended before it was ready: %s", said[max(0, len(said)-1000):])
	}
	go func() { _ = cmd.Wait() }()
	if err := json.Unmarshal(line, &ready); err != nil {
		return "", fmt.Errorf("it says %q: %w", line, err)
	}
	return ready.Address, nil
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
