package operations

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/enums/v1"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/backup"
)

const (
	// killTimes says how often each process is killed at each moment. Unset, those are once at the half which no other test ends.
	killTimes = "SMS_BACKUP_KILLS"
	// vanish is the heartbeat time and 10 s.
	vanish = 25 * time.Second
	// cancelled is what a cancelled backup may take to be gone.
	cancelled = 5 * time.Second
	// killStudents make a dump that takes long enough to be killed at a moment of it, manyStudents one that goes on for longer than
	// a worker takes to hear that it is cancelled, and whose pg_dump still runs when nine tenths are stored.
	killStudents, manyStudents = 20_000, 100_000
)

// killing is a platform whose backups are killed.
type killing struct {
	*platform
	port   int            // of the worker's metrics
	server *pgtest.Server // of the database, where that is killed
	bucket *storagetest.Process
	store  storage.Store
	bytes  int64 // of one archive
	count  int   // of backups that are there
}

// victims are killed by end, which reports what is to be brought back.
var victims = []struct {
	name string
	end  func(k *killing) (back func())
}{
	{"pg_dump", func(k *killing) func() {
		for _, dump := range k.dumps() {
			_ = syscall.Kill(dump.pid, syscall.SIGKILL)
		}
		return func() {}
	}},
	{"ops-worker", func(k *killing) func() { k.killWorker(); return k.startWorker }},
	{"PostgreSQL", func(k *killing) func() {
		k.server.End(syscall.SIGKILL)
		return func() { k.server.Start(k.t) }
	}},
	{"postmaster alone", func(k *killing) func() {
		pid, err := os.ReadFile(filepath.Join(k.server.Dir, "postmaster.pid"))
		must(k.t, err)
		postmaster, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(string(pid), "\n", 2)[0]))
		must(k.t, err)
		must(k.t, syscall.Kill(postmaster, syscall.SIGKILL))
		return func() { k.server.End(syscall.SIGKILL); k.server.Start(k.t) }
	}},
	{"storage", func(k *killing) func() {
		k.bucket.Kill()
		k.bucket.Killed()
		return k.bucket.Start
	}},
	{"cancelled", nil},
}

// TestBackupsSurviveKills kills (SIGKILL) what a dump is made by, at moments of the dump. Each time no object has appeared under
// a final name, the dump and its sessions are gone in time, and the next attempt makes exactly one verified backup.
func TestBackupsSurviveKills(t *testing.T) {
	t.Parallel()
	times, moments, chosen := 1, []int{50}, victims[3:5]
	if text := os.Getenv(killTimes); text != "" {
		var err error
		times, err = strconv.Atoi(text)
		must(t, err)
		moments, chosen = []int{10, 50, 90}, victims
	}
	var mu sync.Mutex
	var rows []string
	t.Cleanup(func() {
		slices.Sort(rows)
		var table strings.Builder
		w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "ENDED\tAT\tTIMES\tFOUND AT\tGONE AFTER AT MOST\tTHEN")
		for _, row := range rows {
			_, row, _ = strings.Cut(row, "|")
			fmt.Fprintln(w, row)
		}
		_ = w.Flush()
		t.Logf("\n%s", table.String())
	})
	for i, victim := range chosen {
		for _, percent := range moments {
			if victim.end == nil && percent > 10 {
				continue
			}
			t.Run(fmt.Sprintf("%s at %d percent", victim.name, percent), func(t *testing.T) {
				t.Parallel()
				students := killStudents
				if victim.end == nil || victim.name == "pg_dump" && percent == 90 {
					students = manyStudents
				}
				k := newKilling(t, students, strings.HasPrefix(strings.ToLower(victim.name), "post"), victim.name == "storage")
				least, most, slowest := 100, 0, time.Duration(0)
				for done, missed := 0, 0; done < times; {
					at, gone, struck := k.round(percent, victim.end)
					if !struck {
						if missed++; missed > 3*times {
							t.Fatalf("%d dumps were over before they were killed", missed)
						}
						continue
					}
					done++
					least, most, slowest = min(least, at), max(most, at), max(slowest, gone)
				}
				then := "one verified backup each"
				if victim.end == nil {
					then = "cancelled, nothing left"
				}
				if t.Failed() {
					then = "FAILED"
				}
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, fmt.Sprintf("%d %02d|%s\t%d %%\t%d\t%d to %d %%\t%.1f s\t%s", i, percent, victim.name, percent, times, least, most, slowest.Seconds(), then))
			})
		}
	}
}

func newKilling(t *testing.T, students int, ownServer, bucket bool) *killing {
	t.Helper()
	k := &killing{}
	port, err := pgtest.FreePort()
	must(t, err)
	k.port = port
	env := []string{fmt.Sprintf("SERVER_ADDRESS=127.0.0.1:%d", port)}
	if ownServer {
		k.server = pgtest.NewServer(t)
		source, passwords := backuptest.NewOn(t, k.server, students)
		k.platform = newPlatformOf(t, source, temporaltest.Address(t), func(name string) { temporaltest.Namespace(t, name) })
		env = append(env, "PGPASSFILE="+passwords)
	} else {
		k.platform = newPlatform(t, students)
	}
	if bucket {
		k.bucket = storagetest.StartProcess(t)
		credentials := storagetest.CredentialsFile(t)
		place := k.bucket.URL("kills")
		env = append(env, "BACKUP_STORAGE="+place, "BACKUP_S3_CREDENTIALS_FILE="+credentials)
		at, err := storage.ParseLocation(place)
		must(t, err)
		k.store, err = storage.NewS3(*at.S3, storage.S3Options{CredentialsFile: credentials, Stall: 5 * time.Second, Patience: 5 * time.Second})
		must(t, err)
	} else {
		k.store, err = storage.NewDirectory(k.dir)
		must(t, err)
	}
	k.again(env...)
	k.bytes = k.made(k.start()).Manifest.Bytes
	return k
}

// made demands that a backup is verified, and that it is the only one that has been added, with nothing left beside it.
func (k *killing) made(o ops.Operation) engine.Entry {
	k.t.Helper()
	o = k.until(backups+"/"+o.ID, ended)
	entries, err := engine.Scan(context.Background(), k.store, k.source.Database)
	must(k.t, err)
	k.count++
	if o.State != backup.StateVerified || len(entries) != k.count || entries[len(entries)-1].Manifest.ID != o.ID {
		k.t.Fatalf("%s: %s; there are %d backups, want %d", o.State, o.Summary, len(entries), k.count)
	}
	for _, e := range entries {
		if !e.Verified() {
			k.t.Errorf("%s is not verified: %v", e.Base, e.Fault)
		}
	}
	k.nothingLeft()
	return entries[len(entries)-1]
}

// nothingLeft demands that there are neither unfinished objects nor scratch databases.
func (k *killing) nothingLeft() {
	k.t.Helper()
	if unfinished, err := k.store.Sweep(context.Background(), func(string) bool { return true }); unfinished > 0 || err != nil {
		k.t.Errorf("%d unfinished objects are left (%v)", unfinished, err)
	}
	conn := k.connect()
	defer conn.Close(context.Background())
	var scratches int
	must(k.t, conn.QueryRow(context.Background(), "select count(*) from pg_database where starts_with(datname, 'drill_' || $1)", k.source.Database).Scan(&scratches))
	if scratches != 0 {
		k.t.Errorf("%d scratch databases are left", scratches)
	}
}

// round makes one backup that is ended at a moment of its dump; end nil: by cancelling it. It returns the moment at which it was, in
// percent, how long what had made the dump was still there, and whether the dump was not over by then.
func (k *killing) round(percent int, end func(*killing) func()) (at int, gone time.Duration, struck bool) {
	k.t.Helper()
	before := storagetest.Names(k.t, k.store, "")
	o := k.start()
	at, running := k.moment(o, percent)
	if !running {
		k.made(o)
		return at, gone, false
	}
	left := append(k.dumps(), k.sessions()...)
	if end == nil {
		must(k.t, k.client.CancelWorkflow(context.Background(), o.WorkflowID, o.RunID))
		gone = k.vanished(left, cancelled)
		if o = k.until(backups+"/"+o.ID, ended); o.State != operation.Cancelled {
			k.t.Errorf("%s: %s", o.State, o.Summary)
		}
		k.nothingLeft()
		if strings.Contains(string(o.Outcome), `"stored"`) { // it was whole before the worker heard
			k.count++
			return at, gone, false
		}
		k.unchanged(before)
		return at, gone, true
	}
	back := end(k)
	gone = k.vanished(left, vanish)
	if k.bucket != nil {
		back()
		back = func() {}
	}
	k.unchanged(before)
	back()
	k.made(o)
	return at, gone, k.retried(o)
}

// unchanged demands that no object has been added.
func (k *killing) unchanged(before []string) {
	k.t.Helper()
	if now := storagetest.Names(k.t, k.store, ""); !slices.Equal(now, before) {
		k.t.Errorf("objects were added: %v, before %v", now, before)
	}
}

// moment waits until so much of a dump has been stored, and returns how much it is, both in percent. It reports false when the
// backup was over before anybody saw that.
func (k *killing) moment(o ops.Operation, percent int) (at int, running bool) {
	k.t.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d", k.port)
	name := fmt.Sprintf(`sms_backup_running_bytes{database="%s",step="DumpDatabase"}`, k.source.Database)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		bytes, _ := strconv.ParseFloat(metric(k.t, url, name), 64)
		if at = int(bytes * 100 / float64(max(k.bytes, 1))); at >= percent {
			return at, true
		}
		if looks%100 == 0 {
			if k.call(identity.Viewer, http.MethodGet, backups+"/"+o.ID, nil, &o); o.EndedAt != nil {
				return at, false
			}
		}
		<-tick.C
	}
}

// process tells one process from a later one of the same number.
type process struct {
	pid   int
	began string
}

// look finds a process, which may be a zombie.
func look(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if err != nil || !ok || len(fields) < 20 {
		return process{}, false
	}
	return process{pid, fields[19]}, true
}

// dumps are the worker's pg_dumps.
func (k *killing) dumps() (found []process) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", k.worker.Process.Pid))
	for _, list := range lists {
		content, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(content)) {
			pid, _ := strconv.Atoi(field)
			name, _ := os.ReadFile(filepath.Join("/proc", field, "comm"))
			if p, ok := look(pid); ok && strings.TrimSpace(string(name)) == "pg_dump" {
				found = append(found, p)
			}
		}
	}
	return found
}

// sessions are the server's processes that serve the backup, and hold its locks.
func (k *killing) sessions() (found []process) {
	k.t.Helper()
	conn := k.connect()
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), "select pid from pg_stat_activity where datname = $1 and usename = $2", k.source.Database, backuptest.Role)
	must(k.t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	must(k.t, err)
	for _, pid := range pids {
		if p, ok := look(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// connect opens a session of the superuser on the database's server.
func (k *killing) connect() *pgx.Conn {
	k.t.Helper()
	if k.server == nil {
		return backuptest.Connect(k.t, "postgres")
	}
	conn, err := k.server.Connect(context.Background(), k.server.Password, "postgres")
	must(k.t, err)
	return conn
}

// vanished waits until processes are gone, zombies too, and returns how long that took.
func (k *killing) vanished(all []process, within time.Duration) time.Duration {
	k.t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		all = slices.DeleteFunc(all, func(p process) bool { now, there := look(p.pid); return !there || now != p })
		if len(all) == 0 {
			return time.Since(began)
		}
		if time.Since(began) > within {
			k.t.Fatalf("after %s there are still %v", within, all)
		}
		<-tick.C
	}
}

// retried reports whether the dump needed more than one attempt.
func (k *killing) retried(o ops.Operation) bool {
	k.t.Helper()
	events := k.client.GetWorkflowHistory(context.Background(), o.WorkflowID, o.RunID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	dumps := map[int64]bool{}
	for events.HasNext() {
		e, err := events.Next()
		must(k.t, err)
		if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == "DumpDatabase" {
			dumps[e.GetEventId()] = true
		}
		if a := e.GetActivityTaskStartedEventAttributes(); dumps[a.GetScheduledEventId()] && a.GetAttempt() > 1 {
			return true
		}
	}
	return false
}
