package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// moment is one of an activity of a rollout: before it acts, during it, or after it has acted and before Temporal knows.
type moment struct {
	PID               int
	Run, Activity, ID string
	Attempt           int
	At, Failure       string
	nth               int // of the activities of this name in the run, from 1
	held              net.Conn
}

// moments hears of each from the workers (test/e2e/worker), which wait until they are let go on.
type moments struct {
	socket string
	mu     sync.Mutex
	ids    map[string][]string // of a run and an activity, in the order in which they began
	all    []moment
	trap   func(moment) bool
	caught chan moment
}

// hearMoments listens in a data directory, which need not be up yet.
func hearMoments(t testing.TB, dataDir string) *moments {
	t.Helper()
	m := &moments{socket: filepath.Join(dataDir, "moments"), ids: map[string][]string{}}
	l, err := net.Listen("unix", m.socket)
	if err == nil {
		err = os.Chmod(m.socket, 0o666) // the worker has an account of its own
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go m.hear(conn)
		}
	}()
	return m
}

func (m *moments) hear(conn net.Conn) {
	now := moment{held: conn}
	if json.NewDecoder(conn).Decode(&now) != nil {
		conn.Close()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	of := now.Run + " " + now.Activity
	if !slices.Contains(m.ids[of], now.ID) {
		m.ids[of] = append(m.ids[of], now.ID)
	}
	now.nth = slices.Index(m.ids[of], now.ID) + 1
	m.all = append(m.all, now)
	if m.trap == nil || !m.trap(now) {
		conn.Close()
		return
	}
	m.trap = nil
	m.caught <- now
}

// catch sets a trap for one moment, which then stands still until goOn.
func (m *moments) catch(want func(moment) bool) <-chan moment {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trap, m.caught = want, make(chan moment, 1)
	return m.caught
}

func (m moment) goOn() { m.held.Close() }

// last is the newest moment of an activity.
func (m *moments) last(activity string) (found moment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, now := range m.all {
		if now.Activity == activity {
			found = now
		}
	}
	return found
}

// await waits for what comes on a channel.
func await[T any](t testing.TB, within time.Duration, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(within):
		t.Fatalf("%s: not within %s", what, within)
		panic("unreachable")
	}
}

// build builds a program, such as ./faulty, and returns where it lies.
func build(t testing.TB, name, pkg string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	args := append(append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", path}, flags...), pkg)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
	return path
}

// programsWith is a folder with the programs of the platform, of which ops-worker is another.
func programsWith(t testing.TB, worker string) string {
	t.Helper()
	programs, dir := filepath.Dir(binary(t, "sms")), t.TempDir()
	entries, err := os.ReadDir(programs)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		from := filepath.Join(programs, entry.Name())
		if entry.Name() == "ops-worker" {
			from = worker
		}
		if err := os.Symlink(from, filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// give writes settings of ops-worker, which are in force at its next start.
func give(t testing.TB, dataDir string, settings ...string) {
	t.Helper()
	dir := filepath.Join(dataDir, "settings")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ops-worker.env"), []byte(strings.Join(settings, "\n")+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
