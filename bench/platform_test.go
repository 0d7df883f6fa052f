// Package bench measures the platform. `make bench` prints the figures; RESULTS.md holds the last ones.
package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
)

const runs = 5

// BenchmarkSecondStart measures what `sms up` takes until all is healthy, on a data directory that was used before, and
// what the whole platform then holds in memory.
func BenchmarkSecondStart(b *testing.B) {
	dir, err := os.MkdirTemp("", "sms-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		first, _, _ := start(b, dir)
		b.ReportMetric(first.Seconds(), "first-s")
		var starts, resident, proportional []float64
		for range runs {
			took, rss, pss := start(b, dir)
			starts = append(starts, took.Seconds())
			resident, proportional = append(resident, rss), append(proportional, pss)
		}
		b.ReportMetric(median(starts), "second-s")
		b.ReportMetric(slices.Max(starts), "second-max-s")
		b.ReportMetric(median(resident), "RSS-MB")
		b.ReportMetric(median(proportional), "PSS-MB")
	}
}

// start brings a platform up, lets it rest, measures and stops it.
func start(b *testing.B, dir string) (took time.Duration, rssMB, pssMB float64) {
	b.Helper()
	args := []string{"up", "--data-dir", dir}
	for _, port := range []string{"GATEWAY", "STAGING_GATEWAY", "STUDENT", "CONFIGURATION", "OPS", "WORKER", "REGISTRY", "TEMPORAL", "TEMPORAL_UI", "POSTGRES"} {
		args = append(args, "--set", "SMS_"+port+"_PORT=0")
	}
	cmd := exec.Command("../bin/sms", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := child.Start(cmd, syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "all healthy") {
	}
	took = time.Since(began)
	drained := make(chan struct{})
	go func() {
		for lines.Scan() {
		}
		close(drained)
	}()
	const rest = 15 * time.Second // for garbage collectors and start-up work to settle
	<-time.After(rest)
	for _, pid := range tree(cmd.Process.Pid) {
		rss, pss := memory(pid)
		rssMB, pssMB = rssMB+rss, pssMB+pss
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		b.Fatal(err)
	}
	<-drained
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return took, rssMB, pssMB
}

// tree lists a process and all that descend from it.
func tree(root int) []int {
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parents[pid], _ = strconv.Atoi(fields[1])
	}
	found := []int{root}
	for i := 0; i < len(found); i++ {
		for pid, parent := range parents {
			if parent == found[i] {
				found = append(found, pid)
			}
		}
	}
	return found
}

// memory is what a process holds, in MB: all of it, and with shared pages divided among those who share them.
func memory(pid int) (rss, pss float64) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kB, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Rss:":
			rss = kB / 1000
		case "Pss:":
			pss = kB / 1000
		}
	}
	return rss, pss
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
