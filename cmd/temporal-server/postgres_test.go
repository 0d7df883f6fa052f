package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The role that tests give to the server. It may create databases and has a password, as in real installations.
const (
	testRole     = "temporal"
	testPassword = "p@ss: wörd/+%41"
)

// privatePostgres is a PostgreSQL server of the tests' own, which they may kill.
type privatePostgres struct {
	binaries, dir string
	port          int
	account       *syscall.Credential // nil: the tests' own account
	process       *exec.Cmd
	exited        chan struct{}
	databases     atomic.Int32
}

// newPostgres makes and starts a server. It fails where no PostgreSQL is installed.
func newPostgres() (*privatePostgres, error) {
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(installed) == 0 {
		return nil, errors.New("no PostgreSQL in /usr/lib/postgresql/*/bin: install the package postgresql")
	}
	dir, err := os.MkdirTemp("", "temporal-server-test-")
	if err != nil {
		return nil, err
	}
	free, err := reserveLoopback()
	if err != nil {
		return nil, err
	}
	p := &privatePostgres{binaries: filepath.Dir(installed[len(installed)-1]), dir: dir, port: free.port}
	if err := p.leaveRoot(); err != nil {
		return nil, err
	}
	initdb := p.command("initdb", "-D", p.data(), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", p.passwordFile(),
		"-E", "UTF8", "--locale=C", "--no-sync")
	if err := os.WriteFile(p.passwordFile(), []byte(testPassword+"\n"), 0o644); err != nil {
		return nil, err
	}
	if output, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, output)
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	return p, p.exec("create role " + testRole + " login createdb password '" + testPassword + "'")
}

// leaveRoot picks an account for PostgreSQL, which refuses to run as root, and gives it the directory.
func (p *privatePostgres) leaveRoot() error {
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		if account, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	p.account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(uidErr, gidErr, os.Chown(p.dir, int(uid), int(gid)))
}

func (p *privatePostgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.binaries, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	return cmd
}

func (p *privatePostgres) data() string         { return filepath.Join(p.dir, "data") }
func (p *privatePostgres) passwordFile() string { return filepath.Join(p.dir, "password") }

// start returns when the server accepts connections. After a kill it tries again until the old backends have gone.
func (p *privatePostgres) start() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		p.process = p.command("postgres", "-D", p.data(), "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB")
		var log strings.Builder
		p.process.Stdout, p.process.Stderr = &log, &log
		if err := p.process.Start(); err != nil {
			return err
		}
		process, exited := p.process, make(chan struct{})
		p.exited = exited
		go func() { _ = process.Wait(); close(exited) }()
		err := p.awaitConnections(deadline)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			p.kill()
			return fmt.Errorf("start PostgreSQL: %w: %s", err, log.String())
		}
	}
}

// awaitConnections fails when the process ends or the deadline passes.
func (p *privatePostgres) awaitConnections(deadline time.Time) error {
	for {
		err := p.exec("select 1")
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return err
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(deadline) {
				return err
			}
		}
	}
}

// kill ends the postmaster as a crash or the kernel's out-of-memory killer does.
func (p *privatePostgres) kill() {
	_ = p.process.Process.Kill()
	<-p.exited
}

func (p *privatePostgres) remove() {
	_ = p.process.Process.Signal(syscall.SIGQUIT)
	<-p.exited
	_ = os.RemoveAll(p.dir)
}

// connect opens a session as superuser.
func (p *privatePostgres) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", p.port, database))
	if err != nil {
		return nil, err
	}
	cfg.Password = testPassword
	return pgx.ConnectConfig(ctx, cfg)
}

func (p *privatePostgres) exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := p.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// environment is what a server needs to run on two databases of its own, with ports that are free.
func (p *privatePostgres) environment() map[string]string {
	n := p.databases.Add(1)
	return map[string]string{
		"TEMPORAL_DATABASE_URL":           fmt.Sprintf("postgres://%s@127.0.0.1:%d/temporal_%d", testRole, p.port, n),
		"TEMPORAL_DATABASE_PASSWORD_FILE": p.passwordFile(),
		"TEMPORAL_VISIBILITY_DATABASE":    fmt.Sprintf("visibility_%d", n),
		"TEMPORAL_ADDRESS":                "127.0.0.1:0",
		"TEMPORAL_UI_ADDRESS":             "127.0.0.1:0",
		"TEMPORAL_HEALTH_ADDRESS":         "127.0.0.1:0",
		"LOG_LEVEL":                       "warn",
	}
}
