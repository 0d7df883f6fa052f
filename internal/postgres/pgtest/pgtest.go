// Package pgtest gives tests real PostgreSQL databases: one private server a test binary, one database a test.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
)

const dirPrefix = "sms-pgtest-"

type server struct {
	*Server

	mu        sync.Mutex
	templates map[string]string // digest of migrations → template database
}

var shared = sync.OnceValues(start)

// New makes a database with the migrations applied; nil: an empty one. It is dropped when the test ends.
func New(t testing.TB, migrations fs.FS) postgres.Config {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("start PostgreSQL for tests: %v", err)
	}
	ctx := context.Background()
	template, err := s.template(ctx, migrations)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if err := s.exec(ctx, fmt.Sprintf("create database %s template %s", name, template)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.exec(ctx, fmt.Sprintf("drop database if exists %s with (force)", name)); err != nil {
			t.Error(err)
		}
	})
	return s.Config(postgres.Superuser, s.Password, name)
}

// Cluster returns the server that the tests of this binary share, and its superuser's password.
func Cluster(t testing.TB) (postgres.Cluster, string) {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("start PostgreSQL for tests: %v", err)
	}
	return s.Cluster, s.Password
}

// template returns a database with the migrations applied, made once for each set of migrations.
func (s *server) template(ctx context.Context, migrations fs.FS) (string, error) {
	if migrations == nil {
		return "template1", nil
	}
	digest := sha256.New()
	err := fs.WalkDir(migrations, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(migrations, path)
		fmt.Fprintf(digest, "%s %d\n%s", path, len(content), content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	key := hex.EncodeToString(digest.Sum(nil)[:8])

	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.templates[key]; ok {
		return name, nil
	}
	name := "template_" + key
	if err := s.exec(ctx, "create database "+name); err != nil {
		return "", err
	}
	if _, err := postgres.Migrate(ctx, s.Config(postgres.Superuser, s.Password, name), migrations); err != nil {
		return "", err
	}
	s.templates[key] = name
	return name, nil
}

func (s *server) exec(ctx context.Context, statement string) error {
	conn, err := s.Connect(ctx, s.Password, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func start() (*server, error) {
	s, err := newServer("shared", map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Init(context.Background(), s.Password), s.start()); err != nil {
		return nil, err
	}
	return &server{Server: s, templates: map[string]string{}}, nil
}

// sweep removes what earlier test binaries left: their servers died with them, their folders did not.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), dirPrefix))
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(dir)
		}
	}
}

// FreePort returns a TCP port of the loopback interface that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
