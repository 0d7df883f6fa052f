package operations

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

// ownMounts gives a process mounts that end with it, root or not.
func ownMounts() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

func mountSmallDisk(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts apart: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, smallDisk); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

// objects are all files of the backups, unfinished ones too, with their hashes.
func (p *platform) objects() map[string]string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, p.source.Database, "*"))
	must(p.t, err)
	hidden, err := filepath.Glob(filepath.Join(p.dir, p.source.Database, ".*"))
	must(p.t, err)
	found := map[string]string{}
	for _, file := range append(files, hidden...) {
		content, err := os.ReadFile(file)
		must(p.t, err)
		found[filepath.Base(file)] = sha256Of(content)
	}
	return found
}

func TestAFullDiskFailsTheBackupAndChangesNoOther(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	p.again(onSmallDisk + "=" + p.dir)
	p.dir = fmt.Sprintf("/proc/%d/root%s", p.worker.Process.Pid, p.dir) // as the worker sees it
	first := p.verified(p.start())
	p.retained(first)
	before := p.objects()

	// Nobody knows beforehand that the next one is so much bigger.
	backuptest.Exec(t, p.source.Database, "set role "+backuptest.Owner+"; create table ballast as select gen_random_uuid() from generate_series(1, 500000)")
	full := p.until(backups+"/"+p.start().ID, ended)
	if full.State != operation.Failed {
		t.Errorf("%s: %s", full.State, full.Summary)
	}
	contains(t, full.Summary, "Disk full", "no space left on device")
	if after := p.objects(); len(before) < 4 || !maps.Equal(before, after) {
		t.Errorf("before: %v, after: %v", before, after)
	}

	backuptest.Exec(t, p.source.Database, "drop table ballast")
	if again := p.until(backups+"/"+p.start().ID, ended); again.State != backup.StateVerified || len(p.archives()) != 2 {
		t.Errorf("with space again: %s: %s, archives %v", again.State, again.Summary, p.archives())
	}
}
