package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Superuser is the first role of a private cluster.
const Superuser = "postgres"

// Installation is a PostgreSQL server and its tools on this machine.
type Installation struct {
	// Bin is the folder of initdb, postgres, pg_dump and pg_restore.
	Bin   string
	Major int
}

// FindInstallation returns the newest installation below /usr/lib/postgresql, where Debian and Ubuntu put them, or the
// one in bin when it is not empty.
func FindInstallation(bin string) (Installation, error) {
	candidates := []string{bin}
	if bin == "" {
		candidates, _ = filepath.Glob("/usr/lib/postgresql/*/bin")
	}
	var newest Installation
	for _, dir := range candidates {
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
		if len(fields) < 3 {
			continue
		}
		major, err := strconv.Atoi(strings.SplitN(fields[2], ".", 2)[0])
		if err == nil && major > newest.Major {
			newest = Installation{Bin: dir, Major: major}
		}
	}
	if newest.Major == 0 {
		return newest, errors.New("no PostgreSQL server found below /usr/lib/postgresql: install it with `make deps` " +
			"(apt-get install postgresql), or name its folder of programs with SMS_POSTGRES_BIN")
	}
	return newest, nil
}

// Account is the operating system account that a cluster runs under. PostgreSQL refuses to run as root.
type Account struct {
	Name     string
	UID, GID int
}

// ClusterAccount is the current account or, for root, the one that the PostgreSQL package made, else nobody.
func ClusterAccount() (Account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return Account{Name: strconv.Itoa(uid), UID: uid, GID: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if account, err := LookupAccount(name); err == nil {
			return account, nil
		}
	}
	return Account{}, errors.New("PostgreSQL does not run as root, and there is no account postgres or nobody to run it under")
}

// LookupAccount finds an account of this machine.
func LookupAccount(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, err
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return Account{Name: name, UID: uid, GID: gid}, errors.Join(uidErr, gidErr)
}

// Credential makes a command run under the account. Only root can; for others it changes nothing.
func (a Account) Credential(cmd *exec.Cmd) {
	if os.Geteuid() != 0 {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
}

// Cluster is a private PostgreSQL server on the loopback interface, with SCRAM passwords and no Unix socket.
type Cluster struct {
	Installation
	Account
	// Dir is the cluster's data directory.
	Dir  string
	Port int
	// Settings are further server settings, by name.
	Settings map[string]string
	// Env is the environment of the cluster's processes, besides what they need.
	Env []string
}

// Init makes the cluster unless it is there. The superuser's password is read from passwordFile. A cluster that was
// made by another major version is left as it is, with an error that says what to do.
func (c Cluster) Init(ctx context.Context, password string) error {
	version, err := os.ReadFile(filepath.Join(c.Dir, "PG_VERSION"))
	if err == nil {
		if found := strings.TrimSpace(string(version)); found != strconv.Itoa(c.Major) {
			return fmt.Errorf("the data in %s was written by PostgreSQL %s, and PostgreSQL %d is installed: install version %s "+
				"and name its programs with SMS_POSTGRES_BIN=/usr/lib/postgresql/%s/bin, or move the data with pg_upgrade; "+
				"nothing was changed", c.Dir, found, c.Major, found, found)
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the PostgreSQL data directory: %w", err)
	}
	unfinished, err := c.makeUnfinished()
	if err != nil {
		return err
	}
	// initdb wants a file; the pipe keeps the password off the disk and out of the arguments.
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for initdb: %w", err)
	}
	defer read.Close()
	if err := read.Chown(c.UID, c.GID); err != nil {
		return fmt.Errorf("hand initdb the password: %w", err)
	}
	if _, err := write.WriteString(password + "\n"); err != nil {
		return fmt.Errorf("hand initdb the password: %w", err)
	}
	write.Close()
	cmd := c.command(ctx, "initdb", "--pgdata", unfinished, "--username", Superuser, "--pwfile", "/proc/self/fd/3",
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--data-checksums")
	cmd.ExtraFiles = []*os.File{read}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(out, 3))
	}
	return os.Rename(unfinished, c.Dir)
}

// makeUnfinished makes an empty folder beside the cluster's, to be renamed once it is complete, so that a kill leaves no half
// cluster under the final name.
func (c Cluster) makeUnfinished() (string, error) {
	unfinished := c.Dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		return "", fmt.Errorf("make the PostgreSQL data directory: %w", err)
	}
	if err := os.Chown(unfinished, c.UID, c.GID); err != nil {
		return "", fmt.Errorf("give %s to account %s: %w", unfinished, c.Name, err)
	}
	return unfinished, nil
}

// Command is the server process, to be started and watched by the caller. SIGINT stops it fast and cleanly.
func (c Cluster) Command() *exec.Cmd {
	settings := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(c.Port), "unix_socket_directories": "",
		"max_connections": "200", "shared_buffers": "64MB",
		// Statements and details of errors hold personal data, so the log goes without them.
		"log_min_error_statement": "panic", "log_error_verbosity": "terse", "log_line_prefix": "%m [%p] %a ",
	}
	for name, value := range c.Settings {
		settings[name] = value
	}
	args := []string{"-D", c.Dir}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return c.command(context.Background(), "postgres", args...)
}

// Config reaches a database of the cluster.
func (c Cluster) Config(role, password, database string) Config {
	return Config{
		URL:      fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", role, c.Port, database),
		Password: password, MaxConns: 8, StatementTimeout: time.Minute, LockTimeout: 10 * time.Second, ConnectTimeout: 2 * time.Second,
	}
}

// Connect opens one connection as the superuser, waiting until the server answers or ctx ends.
func (c Cluster) Connect(ctx context.Context, password, database string) (*pgx.Conn, error) {
	pool, err := c.Config(Superuser, password, database).PoolConfig("sms up")
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.ConnectConfig(ctx, pool.ConnConfig)
		if err == nil || !Unavailable(err) {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("PostgreSQL on port %d does not answer: %w", c.Port, err)
		}
	}
}

func (c Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}, c.Env...)
	c.Credential(cmd)
	return cmd
}

func lastLines(out []byte, n int) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte(" | ")))
}
