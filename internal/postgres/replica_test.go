package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// pair is a primary with a standby, and a database on them.
type pair struct {
	primary, standby *pgtest.Server
	config           postgres.Config
	*postgres.DB
	t testing.TB
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{primary: pgtest.NewServer(t), t: t}
	p.config = p.primary.New(t, oneTable)
	p.standby = p.primary.NewStandby(t)
	p.config.ReplicaURL = p.standby.Config(postgres.Superuser, "", "test").URL
	p.config.ReplicaMaxConns, p.config.ReplicaMaxLag, p.config.ReplicaProbeInterval = 4, 2*time.Second, 20*time.Millisecond
	p.DB = p.open(p.config)
	p.eventually("reads go to the replica", func() bool { return p.onReplica(postgres.Position{}) })
	return p
}

func (p *pair) open(c postgres.Config) *postgres.DB {
	p.t.Helper()
	db, err := postgres.OpenDB(p.t.Context(), c, "test")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(db.Close)
	return db
}

// onReplica says where a request that must see a position would read.
func (p *pair) onReplica(after postgres.Position) bool {
	ctx := p.WithReads(p.t.Context(), after)
	return p.Reader(ctx) != p.Pool
}

func (p *pair) exec(on *pgxpool.Pool, sql string, args ...any) {
	p.t.Helper()
	if _, err := on.Exec(p.t.Context(), sql, args...); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}

// metric reads a value back: name, then names and values of labels by turns.
func metric(t testing.TB, db *postgres.DB, name string, labels ...string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(db)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			matches := family.GetName() == name
			for i := 0; i < len(labels); i += 2 {
				has := false
				for _, label := range m.GetLabel() {
					has = has || label.GetName() == labels[i] && label.GetValue() == labels[i+1]
				}
				matches = matches && has
			}
			if matches {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s%v", name, labels)
	return math.NaN()
}

func (p *pair) reads(target, reason string) float64 {
	p.t.Helper()
	return metric(p.t, p.DB, "sms_database_reads_total", "target", target, "reason", reason)
}

func (p *pair) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("not within a minute: %s; replica: %v", what, p.ReplicaHealth(p.t.Context()))
		}
	}
}

// TestReplica takes one replica through what can happen to it.
func TestReplica(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	t.Run("only reads that ask for it leave the primary", func(t *testing.T) {
		if p.Reader(t.Context()) != p.Pool {
			t.Error("a read without WithReads left the primary")
		}
	})
	t.Run("an idle primary's replica does not lag", func(t *testing.T) {
		p.exec(p.Pool, "insert into t values (1)")
		written := time.Now()
		p.eventually("the replica holds all of a time after the last write", func() bool {
			return time.Now().Add(-time.Duration(metric(t, p.DB, "sms_database_replica_lag_seconds") * float64(time.Second))).After(written.Add(100 * time.Millisecond))
		})
	})
	t.Run("a caller reads what it wrote", func(t *testing.T) {
		for i := range 50 {
			p.exec(p.Pool, "insert into t values ($1)", 100+i)
			after := p.Position(t.Context())
			var seen bool
			pool := p.Reader(p.WithReads(t.Context(), after))
			if err := pool.QueryRow(t.Context(), "select exists (select from t where id = $1)", 100+i).Scan(&seen); err != nil || !seen {
				t.Fatalf("the write %d is not seen: %v", i, err)
			}
		}
	})
	t.Run("paused replay", func(t *testing.T) {
		lagging, unreached := p.reads("primary", "lag"), p.reads("primary", "position")
		p.standby.Exec(t, "test", "select pg_wal_replay_pause()")
		p.exec(p.Pool, "insert into t values (2)")
		after := p.Position(t.Context())
		if p.onReplica(after) {
			t.Error("a read went to a replica that has not replayed its position")
		}
		if p.reads("primary", "position")+p.reads("primary", "lag") == unreached+lagging {
			t.Error("no metric says so")
		}
		p.eventually("all reads go to the primary", func() bool { return !p.onReplica(postgres.Position{}) })
		if got := p.reads("primary", "lag"); got == lagging {
			t.Error("no metric says that it lags")
		}
		if up, used := metric(t, p.DB, "sms_database_replica_up"), metric(t, p.DB, "sms_database_replica_used"); up != 1 || used != 0 {
			t.Errorf("up %v, used %v, want 1 and 0", up, used)
		}
		p.standby.Exec(t, "test", "select pg_wal_replay_resume()")
		p.eventually("the position is reached", func() bool { return p.onReplica(after) })
	})
	t.Run("positions that mean nothing here", func(t *testing.T) {
		own := p.Position(t.Context()).String()
		system, lsn, _ := strings.Cut(own, "-")
		for _, sent := range []string{system + "-ffffffffffffffff", "1-" + lsn, "0-0000000000000001"} {
			after, err := postgres.ParsePosition(sent)
			if err != nil {
				t.Fatal(err)
			}
			if p.onReplica(after) {
				t.Errorf("a read after %s went to the replica", sent)
			}
		}
	})
	t.Run("a read in the way of replay is done again on the primary", func(t *testing.T) {
		ctx := p.WithReads(t.Context(), postgres.Position{})
		waits := p.begin(ctx, "select pg_sleep(60) from t")
		p.eventually("the read runs", func() bool { return p.runs(p.standby, "pg_sleep") })
		p.exec(p.Pool, "truncate t")
		err := <-waits
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "40001" {
			t.Errorf("want a conflict with recovery, got %v", err)
		}
		p.again(ctx, err)
	})
	t.Run("killed", func(t *testing.T) {
		gone := p.reads("primary", "away")
		ctx := p.WithReads(t.Context(), postgres.Position{})
		waits := p.begin(ctx, "select pg_sleep(60)")
		p.eventually("the read runs", func() bool { return p.runs(p.standby, "pg_sleep") })
		p.standby.End(syscall.SIGKILL)
		p.eventually("reads go to the primary", func() bool { return !p.onReplica(postgres.Position{}) })
		p.again(ctx, <-waits)
		if up, now := metric(t, p.DB, "sms_database_replica_up"), p.reads("primary", "away"); up != 0 || now == gone {
			t.Errorf("up %v, away %v after %v", up, now, gone)
		}
		p.standby.Start(t)
		p.eventually("reads go to the replica", func() bool { return p.onReplica(postgres.Position{}) })
	})
	t.Run("started anew while nobody looked", func(t *testing.T) {
		blind := *p
		blind.config.ReplicaMaxLag, blind.config.ReplicaProbeInterval = time.Hour, time.Hour
		blind.DB = blind.open(blind.config)
		blind.eventually("reads go to the replica", func() bool { return blind.onReplica(postgres.Position{}) })
		ctx := blind.WithReads(t.Context(), postgres.Position{})
		if _, err := blind.Reader(ctx).Exec(ctx, "select 1"); err != nil {
			t.Error(err)
		}
		p.standby.End(syscall.SIGKILL)
		p.standby.Start(t)
		_, err := blind.Reader(ctx).Exec(ctx, "select 1")
		blind.again(ctx, err)
		p.eventually("reads go to the replica", func() bool { return p.onReplica(postgres.Position{}) })
	})
	t.Run("silent", func(t *testing.T) {
		ctx := p.WithReads(t.Context(), postgres.Position{})
		waits := p.begin(ctx, "select pg_sleep(60)")
		p.eventually("the read runs", func() bool { return p.runs(p.standby, "pg_sleep") })
		thaw := p.standby.Freeze(t)
		p.again(ctx, <-waits) // though the connection is still open
		thaw()
		p.eventually("reads go to the replica", func() bool { return p.onReplica(postgres.Position{}) })
	})
	t.Run("the primary is away", func(t *testing.T) {
		p.primary.End(syscall.SIGINT)
		p.eventually("nobody knows how old the replica's data are", func() bool { return !p.onReplica(postgres.Position{}) })
		if after := p.Position(t.Context()); p.onReplica(after) {
			t.Error("a write whose position is not known was looked for on the replica")
		}
		p.primary.Start(t)
		p.eventually("reads go to the replica", func() bool { return p.onReplica(postgres.Position{}) })
	})
	t.Run("a primary is no replica", func(t *testing.T) {
		wrong := p.config
		wrong.ReplicaURL = p.config.URL
		db := p.open(wrong)
		p.eventually("it is found out", func() bool { return metric(t, db, "sms_database_connections", "pool", "primary", "state", "max") > 0 })
		if db.Reader(db.WithReads(t.Context(), postgres.Position{})) != db.Pool || metric(t, db, "sms_database_replica_up") != 0 {
			t.Error("it is read as a replica")
		}
	})
}

// begin runs a statement that waits, where reads go.
func (p *pair) begin(ctx context.Context, sql string) <-chan error {
	pool := p.Reader(ctx)
	if pool == p.Pool {
		p.t.Fatal("the read goes to the primary")
	}
	ended := make(chan error, 1)
	go func() {
		_, err := pool.Exec(ctx, sql)
		ended <- err
	}()
	return ended
}

// again checks that a read that failed so is answered by the primary.
func (p *pair) again(ctx context.Context, err error) {
	p.t.Helper()
	if !postgres.ReadAgain(ctx, err) {
		p.t.Errorf("not to be read again: %v", err)
	}
	if postgres.ReadAgain(ctx, err) {
		p.t.Error("to be read again for ever")
	}
	failed := p.reads("primary", "failed")
	if p.Reader(ctx) != p.Pool || p.reads("primary", "failed") != failed+1 {
		p.t.Error("the request does not go on with the primary")
	}
}

func (p *pair) runs(on *pgtest.Server, words string) bool {
	conn, err := on.Connect(p.t.Context(), on.Password, "test")
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var n int
	err = conn.QueryRow(p.t.Context(), "select count(*) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid() and query like $1",
		"%"+words+"%").Scan(&n)
	if err != nil {
		p.t.Fatal(err)
	}
	return n > 0
}

// TestReplicaOfAnotherHistory restores the primary from an older copy of its files: what the replica has got since then was
// never written, and nobody may read it.
func TestReplicaOfAnotherHistory(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.primary.End(syscall.SIGINT)
	backup := p.primary.Dir + ".backup"
	t.Cleanup(func() { _ = os.RemoveAll(backup) })
	copyFiles := func(from, to string) {
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copyFiles(p.primary.Dir, backup)
	p.primary.Start(t)
	p.exec(p.Pool, "insert into t select generate_series(1, 10000)")
	after := p.Position(t.Context())
	p.eventually("the replica has it", func() bool { return p.onReplica(after) })

	p.primary.End(syscall.SIGINT)
	if err := os.RemoveAll(p.primary.Dir); err != nil {
		t.Fatal(err)
	}
	copyFiles(backup, p.primary.Dir)
	p.primary.Start(t)
	p.eventually("it is found out", func() bool {
		err := p.ReplicaHealth(t.Context())
		return metric(t, p.DB, "sms_database_replica_up") == 0 && err != nil && strings.Contains(err.Error(), "away")
	})
	if p.onReplica(after) {
		t.Error("a position of the lost history is looked for on the replica")
	}
	for range 3 { // now the primary's log is longer than the replica's
		p.primary.Exec(t, "test", "create table if not exists more as select generate_series(1, 20000)")
		p.primary.Exec(t, "test", "select pg_switch_wal()")
	}
	overtaken := time.Now()
	p.eventually("the prober has asked since", func() bool {
		var asked bool
		err := p.QueryRow(t.Context(), "select exists (select from pg_stat_activity where application_name = 'test prober' and query_start > $1)",
			overtaken.Add(100*time.Millisecond)).Scan(&asked)
		return err == nil && asked
	})
	if p.onReplica(postgres.Position{}) {
		t.Error("reads go to a replica with rows that never were")
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "-", "0", "zz-1", "1-", "-1", "1-1-1", "A-1", "+1-1", "1-00000000000000000", "0x1-1", " 1-1", "1_0-1"} {
		if p, err := postgres.ParsePosition(s); err == nil {
			t.Errorf("%q was read as %s", s, p)
		}
	}
	p, err := postgres.ParsePosition("6a5f-3a1b2c8")
	if err != nil || p.String() != "6a5f-3a1b2c8" {
		t.Errorf("%v %v", p, err)
	}
	if fmt.Sprint(postgres.Position{}) != "0-0" {
		t.Error("the zero position")
	}
}

func TestReplicaOfADatabaseThatIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.primary.Exec(t, "postgres", "create database restored template template0")
	p.primary.Exec(t, "restored", "create table only_here ()")
	// As a restore swaps: the sessions in the old database end on the primary, but stay on the replica.
	p.primary.Exec(t, "postgres", `
alter database test allow_connections false;
select pg_terminate_backend(pid) from pg_stat_activity where datname = 'test';
begin;
alter database test rename to test_before;
alter database restored rename to test;
commit`)
	p.eventually("reads go to the replica of the new database", func() bool {
		if !p.onReplica(postgres.Position{}) {
			return false
		}
		var there bool
		err := p.Reader(p.WithReads(t.Context(), postgres.Position{})).QueryRow(t.Context(), "select to_regclass('only_here') is not null").Scan(&there)
		return err == nil && there
	})
	for range 50 {
		var there bool
		err := p.Reader(p.WithReads(t.Context(), postgres.Position{})).QueryRow(t.Context(), "select to_regclass('only_here') is not null").Scan(&there)
		if err != nil || !there {
			t.Errorf("a read of the old database: %v %v", there, err)
		}
	}
}
