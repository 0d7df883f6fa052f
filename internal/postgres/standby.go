package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/school-sms/sms/internal/child"
)

// Upstream is where a standby gets the primary's log from.
type Upstream struct {
	// Port of the primary on the loopback interface.
	Port int
	// Role may replicate. Its password is in PassFile, in the format of .pgpass, with the database `replication`.
	Role, PassFile string
	// Slot is a physical replication slot: the primary keeps what the standby has not had.
	Slot string
}

func (u Upstream) conninfo() string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s passfile='%s' application_name=%s", u.Port, u.Role, quote(u.PassFile), u.Slot)
}

// Standby is the cluster as a standby of the upstream. Once copied, it follows when it is started.
func (c Cluster) Standby(u Upstream) Cluster {
	c.Settings = maps.Clone(c.Settings)
	if c.Settings == nil {
		c.Settings = map[string]string{}
	}
	c.Settings["primary_conninfo"], c.Settings["primary_slot_name"] = u.conninfo(), u.Slot
	return c
}

// CopyFrom makes the cluster by a base backup of the upstream, which must run. The slot must be there and unused.
func (c Cluster) CopyFrom(ctx context.Context, u Upstream) error {
	unfinished, err := c.makeUnfinished()
	if err != nil {
		return err
	}
	cmd := c.command(ctx, "pg_basebackup", "--pgdata", unfinished, "--dbname", u.conninfo(), "--slot", u.Slot,
		"--wal-method", "stream", "--checkpoint", "fast", "--no-password")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := child.Start(cmd, syscall.SIGTERM); err != nil {
		return fmt.Errorf("pg_basebackup: %w", err)
	}
	err = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the process that receives the log
	if err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, lastLines(out.Bytes(), 3))
	}
	signal := filepath.Join(unfinished, "standby.signal")
	if err := errors.Join(os.WriteFile(signal, nil, 0o600), os.Chown(signal, c.UID, c.GID)); err != nil {
		return fmt.Errorf("make the copy a standby: %w", err)
	}
	return os.Rename(unfinished, c.Dir)
}

// Control is what the control file of a stopped cluster says.
type Control struct {
	// System identifies the cluster and its copies.
	System uint64
	// Reached is a place in the log that the cluster's data is not before, in bytes.
	Reached uint64
}

// ReadControl reads the control file of the cluster.
func (c Cluster) ReadControl(ctx context.Context) (Control, error) {
	out, err := c.command(ctx, "pg_controldata", "--pgdata", c.Dir).Output()
	if err != nil {
		return Control{}, fmt.Errorf("pg_controldata: %w", err)
	}
	var control Control
	var faults []error
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Database system identifier":
			control.System, err = strconv.ParseUint(value, 10, 64)
		case "Latest checkpoint location", "Minimum recovery ending location":
			var high, low uint64
			_, err = fmt.Sscanf(value, "%X/%X", &high, &low)
			control.Reached = max(control.Reached, high<<32|low)
		}
		faults = append(faults, err)
	}
	if control.System == 0 {
		faults = append(faults, errors.New("it names no system"))
	}
	return control, errors.Join(faults...)
}
