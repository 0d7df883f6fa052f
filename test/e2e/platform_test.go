// Package e2e runs the whole platform as its users do, by `sms up`, REST and the command line, and breaks it on purpose.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/standalone"
)

const (
	// startWithin is for a machine that is busy with other tests; bench/ holds what a start takes.
	startWithin = 10 * time.Minute
	stopWithin  = 90 * time.Second
	pollEvery   = 100 * time.Millisecond
)

func binary(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// platform is one `sms up` in a data directory of its own, on free ports.
type platform struct {
	t       testing.TB
	dataDir string
	cmd     *exec.Cmd
	over    chan struct{}
	err     error
	output  *syncBuffer
	status  standalone.Status
}

// syncBuffer keeps what `sms up` prints, and lets a test wait for words in it.
type syncBuffer struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.buf.Write(p)
}

func (b *syncBuffer) read() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String(), b.changed
}

// newDataDir makes a data directory that PostgreSQL's account can reach.
func newDataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sms-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			dumpLogs(t, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// dumpLogs shows the end of every log of a test that failed.
func dumpLogs(t testing.TB, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	more, _ := filepath.Glob(filepath.Join(dir, "logs", "*", "*.log"))
	for _, path := range append(logs, more...) {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const most = 3000
		t.Logf("--- %s\n%s", filepath.Base(path), content[max(0, len(content)-most):])
	}
}

var everyPort = []string{"GATEWAY", "STAGING_GATEWAY", "STUDENT", "CONFIGURATION", "OPS", "WORKER", "REGISTRY", "TEMPORAL", "TEMPORAL_UI", "POSTGRES", "POSTGRES_REPLICA"}

func upCommand(t testing.TB, dataDir string, set ...string) *exec.Cmd {
	args := []string{"up", "--data-dir", dataDir}
	for _, port := range everyPort {
		args = append(args, "--set", "SMS_"+port+"_PORT=0")
	}
	for _, s := range set {
		if !strings.HasPrefix(s, "--") {
			args = append(args, "--set")
		}
		args = append(args, s)
	}
	return exec.Command(binary(t, "sms"), args...)
}

// up starts the platform and waits until it says that all is healthy.
func up(t testing.TB, dataDir string, set ...string) *platform {
	t.Helper()
	p := &platform{t: t, dataDir: dataDir, over: make(chan struct{}), output: &syncBuffer{changed: make(chan struct{})}}
	p.cmd = upCommand(t, dataDir, set...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := child.Start(p.cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.over)
	}()
	t.Cleanup(p.stop)
	deadline := time.After(startWithin)
	for {
		text, changed := p.output.read()
		if strings.Contains(text, "all healthy") {
			break
		}
		select {
		case <-changed:
		case <-p.over:
			text, _ := p.output.read()
			t.Fatalf("sms up ended: %v\n%s", p.err, text)
		case <-deadline:
			t.Fatalf("not healthy in %s:\n%s", startWithin, text)
		}
	}
	p.refresh()
	return p
}

func (p *platform) refresh() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	status, err := p.control().PlatformStatus(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.status = status
}

func (p *platform) control() standalone.Client {
	return standalone.Dial(standalone.Layout{Root: p.dataDir}.Socket())
}

// stop ends the platform as Ctrl-C does, and makes sure that nothing of it is left running.
func (p *platform) stop() {
	select {
	case <-p.over:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.over:
		if p.err != nil {
			text, _ := p.output.read()
			p.t.Errorf("sms up ended with %v:\n%s", p.err, text)
		}
	case <-time.After(stopWithin):
		p.t.Errorf("sms up did not stop in %s", stopWithin)
		_ = p.cmd.Process.Kill()
		<-p.over
	}
	if left := running(p.dataDir); len(left) > 0 {
		p.t.Errorf("left running after the stop: %v", left)
	}
}

// kill ends `sms up` itself without warning.
func (p *platform) kill() {
	_ = p.cmd.Process.Kill()
	<-p.over
}

// running lists the command lines of processes that belong to a data directory.
func running(dataDir string) []string {
	var found []string
	entries, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, entry := range entries {
		environ, err := os.ReadFile(entry)
		if err != nil || !bytes.Contains(environ, []byte("SMS_SUPERVISED_BY="+dataDir+"\x00")) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(entry), "cmdline"))
		found = append(found, strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return found
}

// process returns the first running process whose name, with or without its environment, begins like this.
func (p *platform) process(name string) standalone.ProcessStatus {
	p.t.Helper()
	p.refresh()
	for _, ps := range p.status.Processes {
		if strings.HasPrefix(ps.Name, name) || strings.HasPrefix(filepath.Base(ps.Name), name) {
			return ps
		}
	}
	p.t.Fatalf("no process %s among %+v", name, p.status.Processes)
	return standalone.ProcessStatus{}
}

// eventually polls until ok, as a user would look again.
func eventually(t testing.TB, within time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline, tick := time.After(within), time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, now := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %s; last: %s", what, within, now)
		}
	}
}

func (p *platform) healthy() {
	p.t.Helper()
	eventually(p.t, startWithin, "all healthy", func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		status, err := p.control().PlatformStatus(ctx)
		if err != nil {
			return false, err.Error()
		}
		var unready []string
		for _, ps := range status.Processes {
			if ps.State != standalone.Ready {
				unready = append(unready, fmt.Sprintf("%s %s %s", ps.Name, ps.State, ps.Failure))
			}
		}
		return status.Healthy, strings.Join(unready, "; ")
	})
}

func (p *platform) token() string {
	p.t.Helper()
	token, err := os.ReadFile(standalone.Layout{Root: p.dataDir}.AdminToken())
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

// answer is an HTTP answer, read whole.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, a.Body)
	}
}

// call sends one request to the production gateway. header is name, value, name, value….
func (p *platform) call(method, path string, body any, header ...string) answer {
	p.t.Helper()
	a, err := send(http.DefaultClient, method, p.status.URLs["gateway"]+path, body, append([]string{"Authorization", "Bearer " + p.token()}, header...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func send(client *http.Client, method, url string, body any, header ...string) (answer, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(encoded)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, read}, err
}

// sms runs the command line against the platform and returns what it printed and its exit code.
func (p *platform) sms(args ...string) (out string, code int) {
	p.t.Helper()
	cmd := exec.Command(binary(p.t, "sms"), append(args, "--data-dir", p.dataDir)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dataDir}
	combined, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(combined), exit.ExitCode()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return string(combined), 0
}

// mustSMS is sms for a command that has to succeed.
func (p *platform) mustSMS(args ...string) string {
	p.t.Helper()
	out, code := p.sms(args...)
	if code != 0 {
		p.t.Fatalf("sms %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}
