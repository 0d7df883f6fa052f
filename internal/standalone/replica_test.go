package standalone

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// said is what the platform says.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) count(words string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.buf.String(), words)
}

// newPostgres is a platform of nothing but its PostgreSQL, which runs.
func newPostgres(t *testing.T, replica bool) (*Platform, *process, *said) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sms-replica-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	out := &said{}
	p := &Platform{layout: Layout{Root: dir}, out: out, began: time.Now(), stop: make(chan struct{}),
		options: Options{Replica: replica, StopTimeout: 10 * time.Second}}
	for _, port := range []*int{&p.options.PostgresPort, &p.options.PostgresReplicaPort} {
		if *port, err = pgtest.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	install, err := postgres.FindInstallation(os.Getenv("SMS_POSTGRES_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	account, err := postgres.ClusterAccount()
	if err != nil {
		t.Fatal(err)
	}
	p.cluster = postgres.Cluster{Installation: install, Account: account, Dir: p.layout.postgres(), Port: p.options.PostgresPort,
		Settings: map[string]string{"fsync": "off", "max_slot_wal_keep_size": maxSlotWAL}}
	super, err := "", p.layout.make()
	if err == nil {
		super, err = p.layout.password(postgres.Superuser)
	}
	if err == nil {
		err = p.cluster.Init(t.Context(), super)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, startPostgres(t, p), out
}

func startPostgres(t *testing.T, p *Platform) *process {
	t.Helper()
	primary := p.postgresProcess()
	primary.start()
	t.Cleanup(func() { end(primary) })
	p.ask(t, func(conn *pgx.Conn) error { return p.prepareReplica(t.Context(), conn) })
	if err := primary.waitReady(t.Context(), func(why string) { t.Error(why) }); err != nil {
		t.Fatal(err)
	}
	return primary
}

func end(process *process) {
	process.askToStop()
	<-process.done
}

// ask connects to the primary as the superuser.
func (p *Platform) ask(t *testing.T, f func(*pgx.Conn) error) {
	t.Helper()
	super, err := p.layout.password(postgres.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.cluster.Connect(t.Context(), super, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := f(conn); err != nil {
		t.Fatal(err)
	}
}

func (p *Platform) exec(t *testing.T, sql string) {
	t.Helper()
	p.ask(t, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	})
}

// holds waits until the replica shows a row that is written now.
func (r *replica) holds(t *testing.T, row int) {
	t.Helper()
	r.platform.exec(t, fmt.Sprintf("create table if not exists t (id int); insert into t values (%d)", row))
	super, err := r.platform.layout.password(postgres.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		there := false
		conn, err := r.cluster.Connect(ctx, super, "postgres")
		if err == nil {
			err = conn.QueryRow(ctx, "select exists (select from t where id = $1)", row).Scan(&there)
			conn.Close(context.Background())
		}
		if there {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(r.platform.layout.log(replicaProcess))
			t.Fatalf("the replica does not show row %d: %v; it is %+v\n%s", row, err, r.process.snapshot(), log)
		}
	}
}

func (p *Platform) startReplica(t *testing.T, primary *process) *replica {
	t.Helper()
	r := p.newReplica(primary)
	r.process.start()
	t.Cleanup(func() { end(r.process) })
	return r
}

func TestReplicaFollows(t *testing.T) {
	t.Parallel()
	p, primary, out := newPostgres(t, true)
	t.Cleanup(func() { close(p.stop) })
	half := p.layout.replica() + ".new"
	if err := os.MkdirAll(filepath.Join(half, "base"), 0o700); err != nil { // a copy that was killed
		t.Fatal(err)
	}
	r := p.startReplica(t, primary)
	r.holds(t, 1)
	const copied = replicaProcess + " is copied from"
	if _, err := os.Stat(half); !os.IsNotExist(err) || out.count(copied) != 1 {
		t.Errorf("a half copy is left (%v), or %d were made", err, out.count(copied))
	}

	for i, victim := range []*process{r.process, primary, r.process} { // a crash of either is no reason for another copy
		_ = syscall.Kill(victim.snapshot().PID, syscall.SIGKILL)
		r.holds(t, 10+i)
	}
	end(r.process)
	r = p.startReplica(t, primary)
	r.holds(t, 20)
	if out.count(copied) != 1 {
		t.Errorf("%d copies were made", out.count(copied))
	}

	end(r.process) // without a slot, the primary keeps nothing for it
	p.options.Replica = false
	p.ask(t, func(conn *pgx.Conn) error { return p.prepareReplica(t.Context(), conn) })
	p.options.Replica = true
	p.ask(t, func(conn *pgx.Conn) error {
		var slots int
		err := conn.QueryRow(t.Context(), "select count(*) from pg_replication_slots").Scan(&slots)
		if slots > 0 {
			t.Error("without a replica, the primary keeps its log for one")
		}
		return err
	})
	r = p.startReplica(t, primary)
	r.holds(t, 30)
	if out.count(copied) != 2 || out.count("is kept in") != 0 {
		t.Errorf("%d copies were made, %d were kept", out.count(copied), out.count("is kept in"))
	}

	end(r.process)
	r = p.newReplica(primary)
	r.patience = 2 * time.Second
	r.process.start()
	t.Cleanup(func() { end(r.process) })
	r.holds(t, 40)
	for dropped := false; !dropped; { // under a replica that runs, which then cannot go on
		p.ask(t, func(conn *pgx.Conn) error {
			_, err := conn.Exec(t.Context(), "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active")
			if err == nil {
				_, err = conn.Exec(t.Context(), "select pg_drop_replication_slot(slot_name) from pg_replication_slots")
			}
			dropped = err == nil
			return nil
		})
	}
	r.holds(t, 41)
	if out.count(copied) != 3 {
		t.Errorf("%d copies were made", out.count(copied))
	}
	for _, path := range []string{p.layout.passwordFile(replicaRole), p.layout.replicaPasswords()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	password, err := p.layout.password(replicaRole)
	if err != nil {
		t.Fatal(err)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.process.snapshot().PID))
	log, logErr := os.ReadFile(p.layout.log(replicaProcess))
	if err != nil || logErr != nil || bytes.Contains(cmdline, []byte(password)) || bytes.Contains(log, []byte(password)) {
		t.Errorf("the password is in the arguments or the log, or they cannot be read: %v %v", err, logErr)
	}
}

// TestReplicaOfRestoredPrimary gives the replica a primary that is not the one it has followed.
func TestReplicaOfRestoredPrimary(t *testing.T) {
	t.Parallel()
	p, primary, out := newPostgres(t, true)
	t.Cleanup(func() { close(p.stop) })
	r := p.startReplica(t, primary)
	r.holds(t, 1)
	end(r.process)
	end(primary)
	if err := os.Rename(p.cluster.Dir, p.cluster.Dir+".lost"); err != nil {
		t.Fatal(err)
	}
	super, err := p.layout.password(postgres.Superuser)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cluster.Init(t.Context(), super); err != nil {
		t.Fatal(err)
	}
	primary = startPostgres(t, p)
	r = p.startReplica(t, primary)
	r.holds(t, 2)
	kept, _ := filepath.Glob(p.layout.replica() + ".2*")
	if len(kept) != 1 || out.count("is kept in "+kept[0]) != 1 {
		t.Errorf("the only copy of the lost primary is gone: %v", kept)
	}
}
