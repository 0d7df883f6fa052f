package postgres_test

import (
	"context"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/settings"
)

// TestDefaultsAreInForce asks the server itself what holds for a connection of a pool.
func TestDefaultsAreInForce(t *testing.T) {
	t.Parallel()
	made := pgtest.New(t, oneTable)
	config, err := settings.From[postgres.Config](map[string]string{"DATABASE_URL": made.URL})
	if err != nil {
		t.Fatal(err)
	}
	config.Password = made.Password
	pool, err := postgres.Open(t.Context(), config, "in-force")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for setting, want := range map[string]string{"statement_timeout": "15000", "lock_timeout": "5000",
		"idle_in_transaction_session_timeout": "60000", "application_name": "in-force", "TimeZone": "UTC"} {
		var got string
		if err := pool.QueryRow(t.Context(), "select setting from pg_settings where name = $1", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", setting, got, want, err)
		}
	}
	var shown int
	err = pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = 'in-force'").Scan(&shown)
	if err != nil || shown < 1 || shown > int(config.MaxConns) {
		t.Errorf("%d connections are shown (%v)", shown, err)
	}
	if c := pool.Config(); c.MaxConns != 8 || c.MinConns != 1 || c.MaxConnIdleTime != 10*time.Second || c.MaxConnLifetime != 30*time.Minute ||
		c.ConnConfig.ConnectTimeout != 5*time.Second || c.PingTimeout != 5*time.Second {
		t.Errorf("the pool is not sized as configured: %+v", c)
	}
	for range config.MaxConns {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		checkSocket(t, conn, config)
	}
	full, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := pool.Acquire(full); err == nil {
		t.Error("the pool gives more connections than its most")
	}
}

func checkSocket(t *testing.T, conn *pgxpool.Conn, config postgres.Config) {
	t.Helper()
	raw, err := socket(conn.Conn().PgConn()).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if want := int(config.StatementTimeout.Milliseconds()); err != nil || got != want {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, want %d (%v)", got, want, err)
		}
	})
}

func TestTimeoutsAreUnavailability(t *testing.T) {
	t.Parallel()
	config := pgtest.New(t, oneTable)
	config.StatementTimeout, config.LockTimeout, config.IdleInTransactionTimeout = 20*time.Second, 50*time.Millisecond, 50*time.Millisecond
	pool, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	config.IdleInTransactionTimeout, config.StatementTimeout = 0, 50*time.Millisecond
	other, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)

	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "lock table t"); err != nil {
		t.Fatal(err)
	}
	_, err = pool.Exec(t.Context(), "insert into t values (1)")
	unavailable(t, "lock_timeout", "55P03", err)
	_ = tx.Rollback(t.Context())

	_, err = other.Exec(t.Context(), "select pg_sleep(60)")
	unavailable(t, "statement_timeout", "57014", err)

	idle, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Rollback(context.Background()) }()
	for err == nil { // until the server has ended it
		if !idle.Conn().IsClosed() {
			err = closedByServer(t, idle.Conn().PgConn())
		}
	}
	_, err = idle.Exec(t.Context(), "select 1")
	unavailable(t, "idle_in_transaction_session_timeout", "25P03", err)

	reading, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reading.Rollback(context.Background()) }()
	if _, err = reading.Exec(t.Context(), "set transaction read only; insert into t values (1)"); err == nil {
		t.Fatal("written in a transaction that only reads")
	}
	unavailable(t, "a server that only reads", "25006", err)
}

// socket is what lies below the pool's own kind of connection.
func socket(conn *pgconn.PgConn) syscall.Conn {
	return reflect.ValueOf(conn.Conn()).Field(0).Interface().(syscall.Conn)
}

// closedByServer waits until the server says something unasked.
func closedByServer(t *testing.T, conn *pgconn.PgConn) error {
	t.Helper()
	raw, err := socket(conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return net.ErrClosed
}

func unavailable(t *testing.T, what, code string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), code) {
		t.Errorf("%s: want %s, got %v", what, code, err)
	}
	if !postgres.Unavailable(err) {
		t.Errorf("%s is not taken for unavailability: %v", what, err)
	}
}

// TestConnectTimeout connects to somebody who takes connections and says nothing.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://x@" + silent.Addr().String() + "/x", MaxConns: 1,
		ConnectTimeout: 50 * time.Millisecond}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(t.Context()); !postgres.Unavailable(err) {
		t.Errorf("want unavailable, got %v", err)
	}
}

// TestTooManyConnections takes all that a role may have.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	config := pgtest.New(t, oneTable)
	admin, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), "create role few login connection limit 1 password 'x'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec(context.Background(), "drop role few"); err != nil {
			t.Error(err)
		}
		admin.Close()
	})
	config.URL = strings.Replace(config.URL, postgres.Superuser+"@", "few@", 1)
	config.Password, config.MaxConns = "x", 2
	pool, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	first, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	_, err = pool.Acquire(t.Context())
	unavailable(t, "too many connections", "53300", err)
}

// TestRestartLeavesNoStaleConnection restarts a server under a pool full of idle connections: none of them is used again.
func TestRestartLeavesNoStaleConnection(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	config := server.New(t, oneTable)
	config.MaxConns = 8
	pool, err := postgres.Open(t.Context(), config, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		var conns []*pgxpool.Conn
		for range config.MaxConns {
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Release()
		}
		server.End(signal)
		server.Start(t)
		for range 3 * config.MaxConns {
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("after %s: %v", signal, err)
			}
		}
	}
}

func TestFaultsOfTheConfigurationAreNamedTogether(t *testing.T) {
	t.Parallel()
	_, err := settings.From[postgres.Config](map[string]string{"DATABASE_URL": "postgres://x@y/z", "DATABASE_MAX_CONNS": "0",
		"DATABASE_LOCK_TIMEOUT": "0s", "DATABASE_REPLICA_MAX_LAG": "-1s", "DATABASE_REPLICA_MAX_CONNS": "0"})
	for _, setting := range []string{"DATABASE_MAX_CONNS", "DATABASE_MIN_CONNS", "DATABASE_LOCK_TIMEOUT", "DATABASE_REPLICA_MAX_LAG", "DATABASE_REPLICA_MAX_CONNS"} {
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%s is not named: %v", setting, err)
		}
	}
}
