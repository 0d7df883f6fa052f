package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres"
)

// pgbench is one run of PostgreSQL's own load generator with prepared statements, over TCP as a service would connect.
type pgbench struct {
	database postgres.Config
	bin      string // folder of the program
	script   string
	clients  int
	threads  int
	duration time.Duration
	// rate, in transactions a second, schedules them as a Poisson process; 0 means as fast as they go.
	rate int
	// variables of the script.
	variables map[string]int
}

var pgbenchTPS = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// run returns the transactions a second and, when there is a rate, the 99th percentile of the time from when a transaction was
// due to when it was answered.
func (p pgbench) run(t testing.TB) load {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "script.sql")
	if err := os.WriteFile(script, []byte(p.script), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--no-vacuum", "--protocol=prepared", "--file=" + script, "--client=" + strconv.Itoa(p.clients),
		"--jobs=" + strconv.Itoa(p.threads), "--time=" + strconv.Itoa(int(p.duration.Seconds()))}
	if p.rate > 0 {
		args = append(args, "--rate="+strconv.Itoa(p.rate), "--log", "--log-prefix="+filepath.Join(dir, "log"))
	}
	for name, value := range p.variables {
		args = append(args, fmt.Sprintf("--define=%s=%d", name, value))
	}
	cmd := exec.Command(filepath.Join(p.bin, "pgbench"), append(args, p.database.URL)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PGPASSWORD="+p.database.Password)
	out, err := cmd.CombinedOutput()
	found := pgbenchTPS.FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("pgbench: %v: %s", err, out)
	}
	tps, _ := strconv.ParseFloat(string(found[1]), 64)
	l := load{perSecond: tps}
	if p.rate > 0 {
		l.p99 = percentile(pgbenchLatencies(t, dir), 99)
	}
	return l
}

// pgbenchLatencies reads the logs of a run: client, transaction, time in µs, script, and when it ended in seconds and µs. It leaves
// the start out, when transactions wait for pgbench's other connections.
func pgbenchLatencies(t testing.TB, dir string) []time.Duration {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "log.*"))
	var latencies []time.Duration
	var first time.Time
	for _, path := range logs {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var client, transaction, took, script, seconds, µs int64
			if _, err := fmt.Sscan(lines.Text(), &client, &transaction, &took, &script, &seconds, &µs); err != nil {
				t.Fatalf("pgbench's log: %q", lines.Text())
			}
			ended := time.Unix(seconds, µs*1000)
			if first.IsZero() {
				first = ended
			}
			if ended.Sub(first) > warmUp {
				latencies = append(latencies, time.Duration(took)*time.Microsecond)
			}
		}
	}
	return latencies
}

// warmUp is left out where times are measured.
const warmUp = time.Second

// load is what a load generator measured.
type load struct {
	perSecond float64
	// p99 is measured at a given rate only, from when a request was due.
	p99 time.Duration
}

func percentile(latencies []time.Duration, percent int) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	return latencies[(len(latencies)-1)*percent/100]
}
