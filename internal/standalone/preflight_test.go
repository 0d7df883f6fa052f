package standalone

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/settings"
)

func TestOptionsNameEveryFault(t *testing.T) {
	t.Parallel()
	_, err := settings.From[Options](map[string]string{
		"SMS_GATEWAY_PORT": "99999", "SMS_OPS_PORT": "8081", "SMS_STUDENT_REPLICAS": "0", "SMS_TIMEZONE": "Mars/Olympus", "SMS_STOP_TIMEOUT": "soon",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"SMS_GATEWAY_PORT: 99999", "8081 is also", "SMS_STUDENT_REPLICAS", `"Mars/Olympus"`, "SMS_STOP_TIMEOUT"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
}

func TestTakenPortsAreNamedWithTheirSettings(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := Options{Staging: true, OpsPort: taken.Addr().(*net.TCPAddr).Port}
	err = o.checkPorts()
	if err == nil || !strings.Contains(err.Error(), "SMS_OPS_PORT") || !strings.Contains(err.Error(), strconv.Itoa(o.OpsPort)) {
		t.Errorf("got %v", err)
	}
	seen := map[int]bool{}
	for _, p := range o.Ports() {
		if p.Port == 0 || seen[p.Port] {
			t.Errorf("%s has port %d, not one of its own", p.Name, p.Port)
		}
		seen[p.Port] = true
	}
}

func TestDataDirectoryFaultsSayWhatToDo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range []Layout{{Root: filepath.Join(file, "below")}, {Root: "/tmp/" + strings.Repeat("long/", 30)}} {
		if err := l.make(); err == nil || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("%s: got %v", l.Root, err)
		}
	}
	l := Layout{Root: t.TempDir()}
	if err := l.checkDisk(1 << 40); err == nil || !strings.Contains(err.Error(), "SMS_MIN_FREE_DISK") {
		t.Errorf("got %v", err)
	}
	if err := l.make(); err != nil {
		t.Fatal(err)
	}
	release, err := l.acquire()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.acquire(); err == nil || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("the second lock: %v", err)
	}
	release()
	again, err := l.acquire()
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestSecretsAreMadeOnceAndForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	l := Layout{Root: t.TempDir()}
	if err := l.make(); err != nil {
		t.Fatal(err)
	}
	first, err := l.password("role")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.password("role"); err != nil || again != first {
		t.Errorf("the second read: %q, %v", again, err)
	}
	signer, err := l.signer()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.writeTokens(signer); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(l.secrets(), "*"))
	if err != nil || len(files) < 5 {
		t.Fatalf("secrets: %v, %v", files, err)
	}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(path), info.Mode())
		}
	}
}

func TestLogsAreRotatedUnderTheirWriters(t *testing.T) {
	t.Parallel()
	l := Layout{Root: t.TempDir()}
	path := l.log("production/student-service-1")
	log, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	write := func(s string) {
		if _, err := log.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	write("a long line of old\n")
	if err := l.rotateLogs(4); err != nil {
		t.Fatal(err)
	}
	write("new\n")
	for name, want := range map[string]string{path: "new\n", path + ".1": "a long line of old\n"} {
		if content, err := os.ReadFile(name); err != nil || string(content) != want {
			t.Errorf("%s holds %q, %v", filepath.Base(name), content, err)
		}
	}
	if got := lastWords(path, 1000, false); got != "new" {
		t.Errorf("last words after a rotation: %q", got)
	}
}

// TestFreePortsAreNobodyElses keeps the ports that processes take as they come off those that were picked for others.
func TestFreePortsAreNobodyElses(t *testing.T) {
	t.Parallel()
	var offered []*net.TCPListener // in this order, by a kernel that gives a picked port first
	for range 3 {
		l, err := listenLoopback(0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		offered = append(offered, l)
	}
	o := &Options{TemporalUIPort: portOf(offered[0]), TemporalPort: portOf(offered[1])}
	free := offered[2]
	got, err := o.listenFree(func(int) (*net.TCPListener, error) {
		next := offered[0]
		offered = offered[1:]
		return next, nil
	})
	if err != nil || got != free {
		t.Errorf("port %d was taken, which is Temporal's (%v)", portOf(got), err)
	}
	other, err := o.listenPreferring(portOf(free))
	if err != nil {
		t.Fatalf("a port that is in use: %v", err)
	}
	other.Close()
}
