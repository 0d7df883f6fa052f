package operations

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/storage/storagetest"
	"github.com/school-sms/sms/workflows/backup"
)

// canaries are words that nobody may say, by what they are.
type canaries map[string]string

// in names the canaries that a text holds.
func (c canaries) in(text []byte) (found []string) {
	for name, word := range c {
		if bytes.Contains(text, []byte(word)) {
			found = append(found, name)
		}
	}
	return found
}

// absent demands that a text holds none.
func (c canaries) absent(t *testing.T, where string, text []byte) {
	t.Helper()
	for _, name := range c.in(text) {
		t.Errorf("%s shows the %s", where, name)
	}
}

// canariesOf are the secrets of a platform.
func (p *platform) canariesOf(s3 storagetest.Server) canaries {
	p.t.Helper()
	c := canaries{"password of ops_db": p.database.Password}
	passwords, err := os.ReadFile(os.Getenv("PGPASSFILE"))
	must(p.t, err)
	for line := range strings.Lines(string(passwords)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		c["password of "+fields[3]] = fields[4]
	}
	key, err := os.ReadFile(p.keys.Identities)
	must(p.t, err)
	c["secret key"] = strings.TrimSpace(string(key))
	credentials, err := os.ReadFile(s3.CredentialsFile)
	must(p.t, err)
	for line := range strings.Lines(string(credentials)) {
		if name, value, ok := strings.Cut(line, "="); ok && strings.Contains(strings.ToLower(name), "secret") {
			c["secret of the storage"] = strings.TrimSpace(value)
		}
	}
	for name, word := range c {
		if len(word) < 8 {
			p.t.Fatalf("the %s is too short to be looked for: %q", name, word)
		}
	}
	if len(c) != 6 || c["password of "+backuptest.Role] == "" || c["password of "+engine.RestoreRole] == "" {
		p.t.Fatalf("%d canaries", len(c))
	}
	return c
}

// watchProcesses looks again and again, until it is told to stop, at the arguments of every process, and at the environment of
// PostgreSQL's programs, which nobody but its owner may read. It returns how often it has seen which of them.
func (p *platform) watchProcesses(secrets canaries) (stop func() map[string]int) {
	ctx, cancel := context.WithCancel(context.Background())
	programs, faults, done := map[string]int{}, map[string]bool{}, make(chan struct{})
	look := func(dir string) {
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		for _, name := range secrets.in(command) {
			faults["the arguments of a process show the "+name] = true
		}
		path, _, _ := bytes.Cut(command, []byte{0})
		program := filepath.Base(string(path))
		if !strings.HasPrefix(program, "pg_") || !bytes.Contains(command, []byte(p.source.Database)) {
			return
		}
		file := filepath.Join(dir, "environ")
		info, err := os.Stat(file)
		content, _ := os.ReadFile(file)
		if err != nil || !bytes.Contains(content, []byte("PGPASSFILE=")) {
			return // it has ended, or not begun
		}
		if info.Mode().Perm()&0o077 != 0 {
			faults["others may read the environment of "+program] = true
		}
		for _, name := range secrets.in(content) {
			faults["the environment of "+program+" shows the "+name] = true
		}
		programs[program]++
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			dirs, _ := filepath.Glob("/proc/[0-9]*")
			for _, dir := range dirs {
				look(dir)
			}
			<-tick.C
		}
	}()
	return func() map[string]int {
		cancel()
		<-done
		for fault := range faults {
			p.t.Error(fault)
		}
		return programs
	}
}

// histories are all events of all workflows of the platform's namespace, and what is known of their activities, with their payloads.
func (p *platform) histories(workflows ...string) []byte {
	p.t.Helper()
	ctx, service := p.t.Context(), p.client.WorkflowService()
	var listed *workflowservice.ListWorkflowExecutionsResponse
	eventually(p.t, func() bool {
		var err error
		listed, err = service.ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: p.source.Database, PageSize: 1000})
		must(p.t, err)
		text := fmt.Sprint(listed)
		return !slices.ContainsFunc(workflows, func(id string) bool { return !strings.Contains(text, id) })
	}, func() string { return "not all workflows are listed" })
	all := marshal(p.t, listed)
	for _, e := range listed.Executions {
		described, err := p.client.DescribeWorkflowExecution(ctx, e.Execution.WorkflowId, e.Execution.RunId)
		must(p.t, err)
		all = append(all, marshal(p.t, described)...)
		events := p.client.GetWorkflowHistory(ctx, e.Execution.WorkflowId, e.Execution.RunId, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			must(p.t, err)
			all = append(all, marshal(p.t, event)...)
		}
	}
	return all
}

// marshal writes a message with its payloads as they are: JSON, not encoded again.
func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	content, err := proto.Marshal(m)
	must(t, err)
	return content
}

// rows are all rows of ops_db.
func (p *platform) rows() (all []byte) {
	p.t.Helper()
	conn := backuptest.Connect(p.t, p.database.URL[strings.LastIndex(p.database.URL, "/")+1:])
	defer conn.Close(context.Background())
	found, err := conn.Query(p.t.Context(), "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')")
	must(p.t, err)
	tables, err := pgx.CollectRows(found, pgx.RowTo[string])
	must(p.t, err)
	for _, table := range tables {
		var text string
		must(p.t, conn.QueryRow(p.t.Context(), "select coalesce(string_agg(t::text, chr(10)), '') from "+table+" as t").Scan(&text))
		all = append(all, text...)
	}
	return all
}

// passwordFile is one in which a role has another password.
func passwordFile(t *testing.T, role, password string) string {
	t.Helper()
	content, err := os.ReadFile(os.Getenv("PGPASSFILE"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "pgpass")
	write(t, path, regexp.MustCompile(`(?m):`+role+`:.*$`).ReplaceAllString(string(content), ":"+role+":"+password))
	return path
}

// TestNoSecretIsInSight looks for passwords and keys wherever somebody may look while a backup, a drill, a copy and a restore
// run, when they have failed because a password is wrong, and in what all of them leave behind.
func TestNoSecretIsInSight(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 500)
	s3 := storagetest.Serve(t, nil)
	secrets := p.canariesOf(s3)
	secrets["wrong password of "+engine.RestoreRole], secrets["wrong password of "+backuptest.Role] = "canary-of-the-restorer", "canary-of-the-dumper"
	secrets["PGPASSWORD"] = "canary-of-the-environment"
	port, err := pgtest.FreePort()
	must(t, err)
	p.again("BACKUP_S3_CREDENTIALS_FILE="+s3.CredentialsFile, "BACKUP_COPY_STORAGE="+s3.URL("copies"), "LOG_LEVEL=debug",
		fmt.Sprintf("SERVER_ADDRESS=127.0.0.1:%d", port))
	stop := p.watchProcesses(secrets)
	var answers []byte
	ran := func(path string, o ops.Operation, state string) {
		t.Helper()
		o = p.until(path+"/"+o.ID, ended)
		if o.State != state {
			t.Errorf("%s: %s: %s, want %s", path, o.State, o.Summary, state)
		}
		if state == operation.Failed {
			contains(t, o.Summary, "password authentication failed")
		}
		_, body := p.call(identity.Admin, http.MethodGet, path+"/"+o.ID, nil, nil)
		answers = append(answers, body+p.details(o)...)
	}
	look := func() { // at metrics, and at what is on its way
		_, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/actuator/prometheus", port))
		contains(t, body, "sms_")
		secrets.absent(t, "a metric", []byte(body))
		secrets.absent(t, "a history", p.histories())
	}

	// All goes well; pg_dump and pg_restore are held for as long as it takes to look.
	release := hold(t, p.source.Database)
	made := p.start()
	dumping(t, p.source.Database)
	look()
	release()
	ran(backups, made, backup.StateVerified)
	restored := p.restore(restoreBody{"backup": made.ID, "into": p.source.Database + "_new"})
	_, release = p.holdRestore(restored, "pg_class", "select true")
	look()
	release()
	ran(restores, restored, operation.Succeeded)

	// A password is wrong: that of the role that restores, that of the one that backs up, and one that overrides both.
	p.again("PGPASSFILE=" + passwordFile(t, engine.RestoreRole, "canary-of-the-restorer"))
	ran(backups, p.begin(backups+"/"+made.ID+"/verify", nil), operation.Failed)
	ran(restores, p.restore(restoreBody{"backup": made.ID, "into": p.source.Database + "_no"}), operation.Failed)
	p.again("PGPASSFILE=" + passwordFile(t, backuptest.Role, "canary-of-the-dumper"))
	failed := p.start()
	ran(backups, failed, operation.Failed)
	watched := stop()
	if watched["pg_dump"] == 0 || watched["pg_restore"] == 0 {
		t.Errorf("seen were %v", watched)
	}
	p.again("PGPASSWORD=canary-of-the-environment") // in the environment of the worker alone: no dump gets as far as to be started
	stop = p.watchProcesses(secrets)
	ran(backups, p.start(), operation.Failed)
	look()
	stop()

	history, rows := p.histories(made.WorkflowID, restored.WorkflowID, failed.WorkflowID), p.rows()
	for where, text := range map[string][]byte{"history": history, "rows of ops_db": rows, "answers": answers} {
		if !bytes.Contains(text, []byte(made.ID)) {
			t.Errorf("the %s say nothing of the backup: the test looks in the wrong place", where)
		}
		secrets.absent(t, where, text)
	}
	p.searchFiles(secrets)
	store := s3.Store(t, "copies")
	for _, name := range storagetest.Names(t, store, "") {
		secrets.absent(t, "the copy "+name, storagetest.Get(t, store, name))
	}
}

// searchFiles looks into the logs of the worker and of PostgreSQL, and into all that backups, drills and restores have stored.
func (p *platform) searchFiles(secrets canaries) {
	p.t.Helper()
	cluster, _ := pgtest.Cluster(p.t)
	files := []string{filepath.Join(filepath.Dir(p.dir), "worker.log"), cluster.Dir + ".log"}
	must(p.t, filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(p.t, err)
		if len(content) == 0 {
			p.t.Errorf("%s is empty: the test looks in the wrong place", file)
		}
		secrets.absent(p.t, filepath.Base(file), content)
	}
	if len(files) < 2+4 {
		p.t.Errorf("only %d files", len(files))
	}
}
