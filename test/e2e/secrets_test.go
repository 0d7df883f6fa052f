package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// secrets are the lines that nobody may see, by the file that holds them: passwords, private keys, tokens.
func (p *platform) secrets() map[string][]byte {
	p.t.Helper()
	found := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(p.dataDir, "secrets", "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		name := filepath.Base(file)
		if err != nil || strings.Contains(name, "public") || strings.HasSuffix(name, ".recipients") {
			continue
		}
		for i, line := range bytes.Split(content, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) >= 16 && !bytes.HasPrefix(line, []byte("#")) && !bytes.HasPrefix(line, []byte("-----")) {
				found[fmt.Sprintf("%s, line %d", name, i+1)] = line
			}
		}
	}
	if len(found) < 7 || found["backup.key, line 1"] == nil && found["backup.key, line 2"] == nil && found["backup.key, line 3"] == nil {
		p.t.Fatalf("only %d secrets were found in %v", len(found), files)
	}
	return found
}

// watchCommandLines looks at every process's arguments again and again, until it is told to stop: no secret may be among them.
func (p *platform) watchCommandLines() (stop func()) {
	secrets := p.secrets()
	ctx, cancel := context.WithCancel(context.Background())
	seen, over := map[string]bool{}, make(chan struct{})
	looks := 0
	go func() {
		defer close(over)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ; ; looks++ {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range files {
				content, _ := os.ReadFile(file)
				for name, secret := range secrets {
					if bytes.Contains(content, secret) {
						seen[name] = true
					}
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-over
		if len(seen) > 0 || looks < 100 {
			p.t.Errorf("in arguments, looked at %d times: %v", looks, seen)
		}
	}
}

// noSecretIn looks for secrets in what is written: logs, settings, what is stored beside the archives, the histories of all
// workflows, ops_db, metrics.
func (p *platform) noSecretIn() {
	p.t.Helper()
	secrets := p.secrets()
	look := func(where string, content []byte) {
		for name, secret := range secrets {
			if bytes.Contains(content, secret) {
				p.t.Errorf("%s is in %s", name, where)
			}
		}
	}
	looked := 0
	for _, folder := range []string{"logs", "settings", "backups"} {
		err := filepath.WalkDir(filepath.Join(p.dataDir, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			look(path, content)
			looked++
			return err
		})
		if err != nil {
			p.t.Error(err)
		}
	}
	histories := p.histories()
	for name, history := range histories {
		look(name, history)
	}
	dump := exec.Command("pg_dump", "--dbname", fmt.Sprintf("postgres://sms_backup@127.0.0.1:%d/ops_db", p.status.Ports["PostgreSQL"]))
	dump.Env = append(os.Environ(), "PGPASSFILE="+p.pgpass())
	records, err := dump.Output()
	if err != nil {
		p.t.Errorf("dump ops_db: %v", err)
	}
	look("ops_db", records)
	for _, ps := range p.status.Processes {
		if metrics, err := send(http.DefaultClient, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/actuator/prometheus", ps.Port), nil); err == nil {
			look("the metrics of "+ps.Name, metrics.Body)
		}
	}
	if looked < 10 || len(histories) < 3 || !bytes.Contains(records, []byte("verified")) {
		p.t.Errorf("there were only %d files and %d histories to look at", looked, len(histories))
	}
}

// histories are those of all workflows.
func (p *platform) histories() map[string][]byte {
	p.t.Helper()
	ctx := context.Background()
	c, err := client.Dial(client.Options{HostPort: fmt.Sprintf("127.0.0.1:%d", p.status.Ports["temporal-server"]), Namespace: "sms"})
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	found := map[string][]byte{}
	request := &workflowservice.ListWorkflowExecutionsRequest{Namespace: "sms", PageSize: 1000}
	listed, err := c.ListWorkflow(ctx, request)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, w := range listed.GetExecutions() {
		id, run := w.GetExecution().GetWorkflowId(), w.GetExecution().GetRunId()
		events := c.GetWorkflowHistory(ctx, id, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		var text bytes.Buffer
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				p.t.Fatal(err)
			}
			text.WriteString(event.String()) // with payloads as they are, where JSON would show them in base64
		}
		found["the history of "+id+" "+run] = text.Bytes()
	}
	return found
}

// pgpass is a file with the password of the role that backs up.
func (p *platform) pgpass() string {
	p.t.Helper()
	password, err := os.ReadFile(filepath.Join(p.dataDir, "secrets", "sms_backup.password"))
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.(*testing.T).TempDir(), "pgpass")
	if err := os.WriteFile(path, []byte("*:*:*:*:"+strings.TrimSpace(string(password))+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}
