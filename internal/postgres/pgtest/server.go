package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/postgres"
)

// Server is a PostgreSQL server on a port that it keeps, which a test may end and start again.
type Server struct {
	postgres.Cluster
	// Password of the superuser.
	Password string

	cmd  *exec.Cmd
	over chan struct{} // closed when the server has ended
}

// folder is where the servers of this test binary live.
var folder = sync.OnceValues(func() (string, error) {
	sweep()
	dir := filepath.Join(os.TempDir(), dirPrefix+strconv.Itoa(os.Getpid()))
	return dir, os.Mkdir(dir, 0o711)
})

func newServer(name string, settings map[string]string) (*Server, error) {
	install, err := postgres.FindInstallation(os.Getenv("SMS_POSTGRES_BIN"))
	if err != nil {
		return nil, err
	}
	account, err := postgres.ClusterAccount()
	if err != nil {
		return nil, err
	}
	dir, err := folder()
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	return &Server{Password: rand.Text(), Cluster: postgres.Cluster{
		Installation: install, Account: account, Dir: filepath.Join(dir, name), Port: port, Settings: settings,
	}}, err
}

// startWithin is for a machine that is busy with other tests.
const startWithin = 2 * time.Minute

// start runs the server until it answers; its log lies beside its data. A server that was killed leaves processes that stand
// in the way for a moment, so a start that ends is tried again.
func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	for {
		if err := s.launch(); err != nil {
			return err
		}
		answered := make(chan error, 1)
		go func() {
			conn, err := s.Connect(ctx, s.Password, "postgres")
			if err == nil {
				err = conn.Close(ctx)
			}
			answered <- err
		}()
		select {
		case err := <-answered:
			return err
		case <-s.over:
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// launch starts the process, which ends with this one.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd, s.over = s.Command(), make(chan struct{})
	s.cmd.Stderr = log
	if err := child.Start(s.cmd, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	go func(cmd *exec.Cmd, over chan struct{}) {
		_ = cmd.Wait()
		close(over)
	}(s.cmd, s.over)
	return nil
}

// NewServer makes and starts a server of the test's own. Unlike the shared one it waits for its own commits.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s, err := newServer("server-"+strings.ToLower(rand.Text()[:12]), map[string]string{"fsync": "off", "shared_buffers": "16MB",
		"wal_retrieve_retry_interval": "100ms", "max_standby_streaming_delay": "0"})
	if err == nil {
		err = s.Init(t.Context(), s.Password)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.keep(t)
	return s
}

// keep runs the server until the end of the test.
func (s *Server) keep(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		s.End(syscall.SIGQUIT)
		for _, path := range []string{s.Dir, s.Dir + ".log", s.Dir + ".pgpass"} {
			_ = os.RemoveAll(path)
		}
	})
	s.Start(t)
}

// Start starts a server that was ended, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		log, _ := os.ReadFile(s.Dir + ".log")
		t.Fatalf("%v\n%s", err, log)
	}
}

// End sends the server a signal and waits for its end: SIGINT for an orderly one, SIGKILL for a crash of all its processes.
func (s *Server) End(signal syscall.Signal) {
	if s.cmd == nil {
		return
	}
	if signal == syscall.SIGKILL {
		for _, process := range s.children() {
			_ = syscall.Kill(process, signal)
		}
	}
	_ = s.cmd.Process.Signal(signal)
	<-s.over
}

// Freeze stops every process of the server where it stands, as when its host is gone; the connections stay open. thaw lets
// them go on.
func (s *Server) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGSTOP) // first, so that no process is added
	processes := append(s.children(), s.cmd.Process.Pid)
	for _, process := range processes {
		_ = syscall.Kill(process, syscall.SIGSTOP)
	}
	thaw = func() {
		for _, process := range processes {
			_ = syscall.Kill(process, syscall.SIGCONT)
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// children are the processes that the server has started.
func (s *Server) children() []int {
	var pids []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	for _, list := range lists {
		content, _ := os.ReadFile(list) // gone with the server
		for field := range strings.FieldsSeq(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// NewStandby copies the server and starts the copy as its streaming replica.
func (s *Server) NewStandby(t testing.TB) *Server {
	t.Helper()
	standby, err := newServer("standby-"+strings.ToLower(rand.Text()[:12]), s.Settings)
	if err != nil {
		t.Fatal(err)
	}
	standby.Password = s.Password
	upstream := postgres.Upstream{Port: s.Port, Role: postgres.Superuser, PassFile: standby.Dir + ".pgpass", Slot: "standby"}
	line := fmt.Sprintf("127.0.0.1:%d:replication:%s:%s\n", s.Port, upstream.Role, s.Password)
	if err := os.WriteFile(upstream.PassFile, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(upstream.PassFile, s.UID, s.GID); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "select pg_create_physical_replication_slot('standby', true)")
	standby.Cluster = standby.Cluster.Standby(upstream)
	if err := standby.CopyFrom(t.Context(), upstream); err != nil {
		t.Fatal(err)
	}
	standby.keep(t)
	return standby
}

// New makes a migrated database on the server.
func (s *Server) New(t testing.TB, migrations fs.FS) postgres.Config {
	t.Helper()
	const name = "test"
	s.Exec(t, "postgres", "create database "+name)
	cfg := s.Config(postgres.Superuser, s.Password, name)
	if _, err := postgres.Migrate(t.Context(), cfg, migrations); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Exec runs a statement in a database as the superuser.
func (s *Server) Exec(t testing.TB, database, statement string) {
	t.Helper()
	conn, err := s.Connect(t.Context(), s.Password, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
