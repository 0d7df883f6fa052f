package standalone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/school-sms/sms/internal/postgres"
)

// programs are the binaries that `sms up` runs, besides PostgreSQL's.
var programs = []string{"temporal-server", registryService, "api-gateway", "student-service", "configuration-service", "ops-service", "ops-worker"}

// supervisedBy marks the environment of every child with the data directory that it belongs to.
const supervisedBy = "SMS_SUPERVISED_BY"

// acquire makes this the only `sms up` of the data directory. The kernel frees it when the process ends, however it ends.
func (l Layout) acquire() (release func(), err error) {
	f, err := os.OpenFile(l.lock(), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be used: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("`sms up` already runs with data directory %s: see `sms status`, or choose another with --data-dir", l.Root)
	}
	return func() { f.Close() }, nil
}

// WaitReleased waits until no `sms up` holds the data directory.
func (l Layout) WaitReleased() error {
	f, err := os.Open(l.lock())
	if err != nil {
		return fmt.Errorf("wait for the end of `sms up`: %w", err)
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
}

// checkDisk refuses to start where PostgreSQL could soon not write.
func (l Layout) checkDisk(minMiB uint64) error {
	free, err := l.FreeDisk()
	if err != nil {
		return err
	}
	if free < minMiB {
		return fmt.Errorf("the disk of %s is nearly full: %d MiB are free, %d are needed to start safely; "+
			"free some space, choose another --data-dir, or lower SMS_MIN_FREE_DISK", l.Root, free, minMiB)
	}
	return nil
}

// FreeDisk is the space left for this user where the data directory is, in MiB.
func (l Layout) FreeDisk() (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(l.Root, &fs); err != nil {
		return 0, fmt.Errorf("measure the free space of %s: %w", l.Root, err)
	}
	return fs.Bavail * uint64(fs.Bsize) >> 20, nil
}

// serviceAccount is what the services run under: nil for the account of `sms up` itself, unless that is root.
func serviceAccount(name string) (*postgres.Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := postgres.LookupAccount(name)
	if err != nil {
		return nil, fmt.Errorf("as root, `sms up` runs the services under the account %s, which is not there: make it with "+
			"`useradd --system %s`, or name another with SMS_ACCOUNT", name, name)
	}
	return &account, nil
}

// checkReach makes sure that the accounts of PostgreSQL and of the services can pass through every folder above the data.
func (l Layout) checkReach() error {
	if os.Geteuid() != 0 {
		return nil
	}
	for dir := filepath.Clean(l.Root); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("the data directory cannot be used: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("PostgreSQL and the services run under accounts of their own, which may not pass through %s: "+
				"`chmod o+x %s`, or choose another --data-dir", dir, dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

func (o *Options) checkPrograms() error {
	var missing []string
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(o.BinDir, program)); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s lacks %s: run `make build`, or name the folder with SMS_BIN_DIR", o.BinDir, strings.Join(missing, ", "))
	}
	return nil
}

// checkPorts fails for every port that is taken, and replaces each 0 by a port that is free.
func (o *Options) checkPorts() error {
	var faults []error
	for _, p := range o.ports() {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(*p.value)))
		if err != nil {
			faults = append(faults, fmt.Errorf("port %d for %s is taken by another program: stop it, or choose another port with %s",
				*p.value, p.name, p.setting))
			continue
		}
		defer l.Close() // held until all are chosen, so that none is chosen twice
		*p.value = l.Addr().(*net.TCPAddr).Port
	}
	return errors.Join(faults...)
}

// endLeftovers stops what a killed `sms up` may have left behind. Children die with their parent; this waits until they
// have, and insists. PostgreSQL is found by its own pid file, because it runs under another account.
func (l Layout) endLeftovers(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for asked := false; ; asked = true {
		pids := l.leftovers()
		if len(pids) == 0 {
			return nil
		}
		for pid, ask := range pids {
			switch {
			case time.Since(began) > patience:
				_ = syscall.Kill(pid, syscall.SIGKILL)
			case !asked:
				_ = syscall.Kill(pid, ask)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("processes of an earlier start do not end (pids %v): end them by hand", pids)
		}
	}
}

// leftovers maps the pids of processes of this data directory to the signal that stops them well.
func (l Layout) leftovers() map[int]syscall.Signal {
	found := map[int]syscall.Signal{}
	mark := supervisedBy + "=" + l.Root
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, entry := range entries {
		environ, err := os.ReadFile(entry)
		if err != nil || !strings.Contains("\x00"+string(environ), "\x00"+mark+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry))); err == nil && pid != os.Getpid() {
			found[pid] = syscall.SIGTERM
		}
	}
	for _, cluster := range []string{l.postgres(), l.replica()} {
		pid := postmaster(cluster)
		if pid == 0 {
			continue
		}
		for other := range found { // backends end with their server
			if parentOf(other) == pid {
				delete(found, other)
			}
		}
		found[pid] = syscall.SIGINT // fast shutdown
	}
	return found
}

// postmaster is the pid of the PostgreSQL server that runs on a cluster's folder, or 0.
func postmaster(dir string) int {
	content, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.SplitN(string(content), "\n", 2)[0])
	if err != nil {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), "\x00"+dir+"\x00") {
		return 0 // stale: the number may belong to anybody by now
	}
	return pid
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // after the name, which may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
