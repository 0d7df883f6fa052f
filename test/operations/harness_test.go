// Package operations tests backups, smoke tests and schedules as a whole: the HTTP interface, a worker process that can be
// killed, a real Temporal server and real PostgreSQL databases.
package operations

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	smoketestacts "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/storage/storagetest"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/migrations"
	"github.com/school-sms/sms/workers"
)

// record makes the tests write the histories of their workflows to where the replay tests read them.
var record = flag.Bool("record", false, "write the workflows' histories to workflows/*/testdata")

// asWorker makes the test binary an ops-worker, asService an ops-service, so that there is a process to kill.
const (
	asWorker  = "OPERATIONS_TEST_WORKER"
	asService = "OPERATIONS_TEST_SERVICE"
	// onSmallDisk names the folder in which the worker has a file system of smallDisk, which nobody else sees.
	onSmallDisk = "OPERATIONS_TEST_SMALL_DISK"
	smallDisk   = "size=4m,mode=700"
)

func TestMain(m *testing.M) {
	storagetest.RunProcess()
	if dir := os.Getenv(onSmallDisk); dir != "" {
		if err := mountSmallDisk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if os.Getenv(asWorker) != "" {
		server.Run(server.Module("ops-worker"), server.Database("ops-worker", migrations.Ops()), temporalclient.Module, workers.Module, server.Serve)
	}
	if os.Getenv(asService) != "" {
		server.Run(server.Module("ops-service"), server.Database("ops-service", migrations.Ops()), temporalclient.Module, ops.Module, server.Serve, server.Registered)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// patience is how long a test waits for anything.
const patience = 90 * time.Second

// platform is one installation of the operations: a namespace, an ops_db, a worker and the HTTP interface.
type platform struct {
	t       *testing.T
	handler http.Handler
	signer  *identity.Signer
	client  client.Client
	source  backup.Source
	dir     string // of the backups
	keys    backup.KeyFiles
	gateway *gateway
	// database is ops_db.
	database postgres.Config
	env      []string
	worker   *exec.Cmd
}

func newPlatform(t *testing.T, students int) *platform {
	t.Helper()
	return newPlatformOn(t, students, temporaltest.Address(t), func(name string) { temporaltest.Namespace(t, name) })
}

// newPlatformOn uses the Temporal server at an address, in a namespace that makeNamespace makes.
func newPlatformOn(t *testing.T, students int, address string, makeNamespace func(name string)) *platform {
	t.Helper()
	return newPlatformOf(t, backuptest.New(t, students), address, makeNamespace)
}

// newPlatformOf backs up a database that is there.
func newPlatformOf(t *testing.T, source backup.Source, address string, makeNamespace func(name string)) *platform {
	t.Helper()
	dir := t.TempDir()
	private, public, err := identity.NewKeyPair()
	must(t, err)
	signer, err := identity.NewSigner(private)
	must(t, err)
	p := &platform{t: t, signer: signer, source: source, dir: filepath.Join(dir, "backups"), gateway: newGateway(t)}

	database := pgtest.New(t, migrations.Ops())
	p.database = database
	pool, err := postgres.Open(context.Background(), database, "test")
	must(t, err)
	t.Cleanup(pool.Close)
	log := slog.New(slog.DiscardHandler)
	temporal := temporalclient.Config{Address: address, Namespace: p.source.Database}
	makeNamespace(temporal.Namespace)
	p.client, err = temporalclient.New(temporal, log)
	must(t, err)
	t.Cleanup(p.client.Close)

	write(t, filepath.Join(dir, "public.pem"), string(public))
	write(t, filepath.Join(dir, "ops.password"), database.Password)
	write(t, filepath.Join(dir, "smoke.token"), gatewayToken+"\n")
	keys := backuptest.Keys(t)
	p.keys = keys
	p.env = []string{
		asWorker + "=1", "PATH=/usr/bin:/bin", "PGPASSFILE=" + os.Getenv("PGPASSFILE"), "SERVER_DRAIN_DELAY=0s", "LOG_LEVEL=warn",
		"IDENTITY_PUBLIC_KEY_FILE=" + filepath.Join(dir, "public.pem"), "DISCOVERY_URL=http://127.0.0.1:1/eureka",
		"DATABASE_URL=" + database.URL, "DATABASE_PASSWORD_FILE=" + filepath.Join(dir, "ops.password"),
		"TEMPORAL_ADDRESS=" + temporal.Address, "TEMPORAL_NAMESPACE=" + temporal.Namespace,
		"BACKUP_DATABASES=" + p.source.Database + "=" + p.source.URL, "BACKUP_DIR=" + p.dir,
		"BACKUP_RECIPIENTS_FILE=" + keys.Recipients, "BACKUP_IDENTITIES_FILE=" + keys.Identities,
		"SMOKE_GATEWAYS=production=" + p.gateway.URL, "SMOKE_TOKEN_FILE=" + filepath.Join(dir, "smoke.token"),
	}
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	must(t, err)
	srv := server.New(server.Config{MaxBodyBytes: 1 << 20}, server.Info{Service: "ops-service"}, verifier, log)
	ops.New(p.client, operation.NewStore(pool), ops.Config{Databases: backup.Sources{p.source}, Promise: 26 * time.Hour,
		Gateways: smoketestacts.Gateways{{Environment: "production", URL: p.gateway.URL}}}, log).Mount(srv)
	p.handler = srv.Engine
	p.startWorker()
	t.Cleanup(p.killWorker)
	return p
}

// newPlatformWithoutTemporal has no worker either.
func newPlatformWithoutTemporal(t *testing.T) *platform {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	must(t, err)
	signer, err := identity.NewSigner(private)
	must(t, err)
	pool, err := postgres.Open(context.Background(), pgtest.New(t, migrations.Ops()), "test")
	must(t, err)
	t.Cleanup(pool.Close)
	log := slog.New(slog.DiscardHandler)
	c, err := temporalclient.New(temporalclient.Config{Address: "127.0.0.1:1", Namespace: "sms"}, log)
	must(t, err)
	t.Cleanup(c.Close)
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	must(t, err)
	srv := server.New(server.Config{MaxBodyBytes: 1 << 20}, server.Info{Service: "ops-service"}, verifier, log)
	ops.New(c, operation.NewStore(pool), ops.Config{Databases: backup.Sources{{Database: "student_db", URL: "postgres://x@127.0.0.1/x"}}}, log).Mount(srv)
	return &platform{t: t, signer: signer, handler: srv.Engine}
}

func (p *platform) startWorker() {
	p.t.Helper()
	self, err := os.Executable()
	must(p.t, err)
	log, err := os.OpenFile(filepath.Join(filepath.Dir(p.dir), "worker.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(p.t, err)
	defer log.Close()
	p.worker = exec.Command(self)
	p.worker.Env, p.worker.Stderr = p.env, log
	if slices.ContainsFunc(p.env, func(v string) bool { return strings.HasPrefix(v, onSmallDisk+"=") }) {
		p.worker.SysProcAttr = ownMounts()
	}
	must(p.t, child.Start(p.worker, syscall.SIGKILL))
	p.t.Cleanup(func() {
		if p.t.Failed() {
			said, _ := os.ReadFile(log.Name())
			p.t.Logf("the worker's log:\n%s", said)
		}
	})
}

// killWorker kills it as a crash would.
func (p *platform) killWorker() {
	_ = p.worker.Process.Kill()
	_ = p.worker.Wait()
}

// call makes a request as a user of a role. It returns the status.
func (p *platform) call(role identity.Role, method, path string, in, out any) (int, string) {
	p.t.Helper()
	token, err := p.signer.Sign("meera", role, time.Minute)
	must(p.t, err)
	body, err := json.Marshal(in)
	must(p.t, err)
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	p.handler.ServeHTTP(res, req)
	raw, err := io.ReadAll(res.Body)
	must(p.t, err)
	if out != nil && res.Code < 300 {
		if err := json.Unmarshal(raw, out); err != nil {
			p.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	return res.Code, string(raw)
}

// begin starts an operation that must begin.
func (p *platform) begin(path string, in any) ops.Operation {
	p.t.Helper()
	return p.beginAs(identity.Operator, path, in)
}

func (p *platform) beginAs(role identity.Role, path string, in any) ops.Operation {
	p.t.Helper()
	var o ops.Operation
	if code, body := p.call(role, http.MethodPost, path, in, &o); code != http.StatusAccepted {
		p.t.Fatalf("POST %s: %d %s", path, code, body)
	}
	return o
}

// until polls an operation until it is as wanted.
func (p *platform) until(path string, wanted func(ops.Operation) bool) ops.Operation {
	p.t.Helper()
	var o ops.Operation
	eventually(p.t, func() bool {
		if code, body := p.call(identity.Viewer, http.MethodGet, path, nil, &o); code != http.StatusOK {
			p.t.Fatalf("GET %s: %d %s", path, code, body)
		}
		return wanted(o)
	}, func() string { return path + ": " + o.State + ": " + o.Summary })
	return o
}

func ended(o ops.Operation) bool { return o.EndedAt != nil }

// keepHistory writes the history of a workflow for the replay tests, with -record.
func (p *platform) keepHistory(o ops.Operation, file string) {
	p.t.Helper()
	if !*record {
		return
	}
	must(p.t, temporaltest.WriteHistory(p.client, o.WorkflowID, o.RunID, filepath.Join("..", "..", "workflows", file)))
}

// archives are the files under their final names.
func (p *platform) archives() []string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, p.source.Database, "*.dump.zst.age"))
	must(p.t, err)
	return files
}

// scratches are the databases of drills.
func (p *platform) scratches() int {
	p.t.Helper()
	return backuptest.Number(p.t, `select count(*) from pg_database where starts_with(datname, $1)`, backup.ScratchName(p.source.Database, ""))
}

func eventually(t *testing.T, is func() bool, saw func() string) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s; last seen: %s", patience, saw())
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, part := range all {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

func sha256Of(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
