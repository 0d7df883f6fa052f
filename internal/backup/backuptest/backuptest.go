// Package backuptest gives tests databases to back up, and the role that may.
package backuptest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// Role is the one that `sms up` makes backups with: no superuser. What restores is backup.RestoreRole.
const Role = "sms_backup"

// Owner owns the databases, as a service's role does under `sms up`.
const Owner = "school_service"

// schema has what a dump must bring back: keys, a sequence, an extension, a partitioned table, a view.
const schema = `
set role ` + Owner + `;
create extension pg_trgm;
create schema archive;
create table student (id bigint generated always as identity primary key, name text not null, note text not null);
create index student_name on student using gin (name gin_trgm_ops);
create table archive.event (student_id bigint references student, at date not null) partition by range (at);
create table archive.event_2025 partition of archive.event for values from ('2025-01-01') to ('2026-01-01');
create table archive.event_2026 partition of archive.event for values from ('2026-01-01') to ('2027-01-01');
create table empty ();
create view names as select name from student;
create unlogged table cache (key text primary key);
`

// seed makes notes that do not compress, so that the archive is about as big as they are.
const seed = `
insert into student (name, note)
select 'student ' || i, (select string_agg(md5(random()::text || i || j), '') from generate_series(1, 32) as j) from generate_series(1, $1::int) as i;
`

// server is where databases are made.
type server struct {
	cluster  postgres.Cluster
	password string
}

// shared is the server of the test binary, which has the roles, set once.
var shared struct {
	sync.Once
	server
	err error
}

// New makes a database of that many students (about 1 kB each) and returns it as the backup role reaches it.
func New(t testing.TB, students int) backup.Source {
	t.Helper()
	shared.Do(func() {
		shared.cluster, shared.password = pgtest.Cluster(t)
		file := filepath.Join(filepath.Dir(shared.cluster.Dir), "backup.pgpass")
		if shared.err = shared.makeRoles(file); shared.err == nil {
			shared.err = os.Setenv("PGPASSFILE", file)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	source := shared.fill(t, students)
	t.Cleanup(func() { Exec(t, "postgres", "drop database if exists "+source.Database+" with (force)") })
	return source
}

// NewOn makes one on a server of the test's own, whose roles have their passwords in the file that is returned.
func NewOn(t testing.TB, own *pgtest.Server, students int) (source backup.Source, passwords string) {
	t.Helper()
	at := server{own.Cluster, own.Password}
	passwords = filepath.Join(t.TempDir(), "backup.pgpass")
	if err := at.makeRoles(passwords); err != nil {
		t.Fatal(err)
	}
	return at.fill(t, students), passwords
}

func (s server) fill(t testing.TB, students int) backup.Source {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()[:12])
	s.exec(t, "postgres", "create database "+name+" owner "+Owner)
	s.exec(t, name, schema)
	s.exec(t, name, seed, students)
	s.exec(t, name, `insert into archive.event select id, date '2025-12-30' + (id % 5)::int from student`)
	return backup.Source{Database: name, URL: s.cluster.Config(Role, "", name).URL}
}

// Exec runs a statement in a database as the superuser.
func Exec(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	shared.exec(t, database, statement, args...)
}

func (s server) exec(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	conn := s.connect(t, database)
	defer conn.Close(context.Background())
	mode := []any{pgx.QueryExecModeSimpleProtocol} // which takes several statements
	if len(args) > 0 {
		mode = nil
	}
	_, err := conn.Exec(context.Background(), "set statement_timeout = 0") // a machine may be busy
	if err == nil {
		_, err = conn.Exec(context.Background(), statement, append(mode, args...)...)
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Number reads one number as the superuser.
func Number(t testing.TB, query string, args ...any) int {
	t.Helper()
	conn := Connect(t, "postgres")
	defer conn.Close(context.Background())
	var n int
	if err := conn.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// Connect opens a session of the superuser.
func Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	return shared.connect(t, database)
}

func (s server) connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := s.cluster.Connect(context.Background(), s.password, database)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// makeRoles makes the roles, and writes a file of the passwords of those that log in, as pgx, pg_dump and pg_restore read it.
func (s server) makeRoles(file string) error {
	ctx := context.Background()
	conn, err := s.cluster.Connect(ctx, s.password, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var lines strings.Builder
	for _, role := range []struct{ name, options string }{
		{Owner, "login"}, {Role, "login in role pg_read_all_data"}, {backup.RestoreRole, "login createdb in role " + Role + ", " + Owner},
	} {
		password := rand.Text()
		if _, err := conn.Exec(ctx, fmt.Sprintf("create role %s %s password '%s'", role.name, role.options, password)); err != nil {
			return err
		}
		fmt.Fprintf(&lines, "127.0.0.1:%d:*:%s:%s\n", s.cluster.Port, role.name, password)
	}
	return os.WriteFile(file, []byte(lines.String()), 0o600)
}

// Keys are one key pair, for the encryption of a test's backups and their drills.
func Keys(t testing.TB) backup.KeyFiles {
	t.Helper()
	identity, recipient, err := backup.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := backup.KeyFiles{Recipients: filepath.Join(dir, "backup.recipients"), Identities: filepath.Join(dir, "backup.key"), Encryption: "on"}
	for path, content := range map[string]string{files.Recipients: recipient, files.Identities: identity} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
