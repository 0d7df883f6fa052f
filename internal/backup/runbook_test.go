package backup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
)

// runbook is the blocks of commands of docs/runbooks/restore-by-hand.md: those that begin with a comment that names them by
// that name, the others in order under "".
func runbook(t *testing.T) (steps []string, named map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbooks", "restore-by-hand.md"))
	if err != nil {
		t.Fatal(err)
	}
	named = map[string]string{}
	parts := strings.Split(string(text), "\n```\n")
	for i := 1; i < len(parts); i += 2 {
		first, rest, _ := strings.Cut(parts[i], "\n")
		if name, ok := strings.CutPrefix(first, "# "); ok {
			named[name] = rest
		} else {
			steps = append(steps, parts[i])
		}
	}
	if len(steps) != 5 || len(named) != 4 {
		t.Fatalf("the runbook has %d steps and %d named blocks: the test types another", len(steps), len(named))
	}
	return steps, named
}

// desk is an operator's: a server that has never seen the backup, a folder to work in, and the runbook.
type desk struct {
	server *pgtest.Server
	dir    string
	// settings are the runbook's first block, as somebody fills it in.
	settings string
}

func newDesk(t *testing.T, f fixture, m backup.Manifest, key string, named map[string]string) desk {
	t.Helper()
	d := desk{server: pgtest.NewServer(t), dir: t.TempDir()}
	d.settings = fmt.Sprintf("export PGHOST=127.0.0.1 PGPORT=%d PGUSER=postgres PGPASSWORD=%s\nKEY=%s\nBASE=%s\nDATABASE=student_db\nINTO=student_db_by_hand\n",
		d.server.Port, d.server.Password, key, filepath.Join(f.root, strings.TrimSuffix(m.Archive, ".dump.zst.age")))
	for _, must := range []string{"set -euo pipefail", "PGHOST=", "PGPORT=", "PGUSER=", "PGPASSWORD=", "KEY=", "BASE=", "DATABASE=", "INTO="} {
		if !strings.Contains(named["settings"], must) {
			t.Fatalf("the runbook does not set %s", must)
		}
	}
	return d
}

// types runs commands in one shell that holds the settings, with no programs but the machine's and the server's.
func (d desk) types(t *testing.T, blocks ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\n"+d.settings+strings.Join(blocks, "\n"))
	cmd.Dir = d.dir
	cmd.Env = []string{"PATH=" + d.server.Bin + ":/usr/bin:/bin:/usr/sbin:/sbin"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d desk) must(t *testing.T, blocks ...string) string {
	t.Helper()
	said, err := d.types(t, blocks...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return said
}

func (d desk) query(t *testing.T, database, sql string) string {
	t.Helper()
	return strings.TrimSpace(d.must(t, fmt.Sprintf("psql --no-psqlrc --no-align --tuples-only --dbname %s --command %q", database, sql)))
}

// TestTheRunbook types the runbook's commands: stock age, zstd, pg_restore and psql bring a backup back on a server that has
// never seen it, and put it in the place of another database; and the platform's PostgreSQL is started and stopped alone.
func TestTheRunbook(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 300)
	m := f.save(t, "4g8k2m0x7c")
	steps, named := runbook(t)
	d := newDesk(t, f, m, f.Keys.Identities, named)
	d.server.Exec(t, "postgres", "create database student_db")
	d.server.Exec(t, "student_db", "create table lost ()")

	said := d.must(t, steps...)
	for _, want := range []string{".dump.zst.age: OK", "the key fits", "owner " + backuptest.Owner, "as many rows in every table as were backed up"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	rows, owner := d.query(t, "student_db", "select count(*) from student"), d.query(t, "student_db", "select tableowner from pg_tables where tablename = 'student'")
	if rows != "300" || owner != backuptest.Owner {
		t.Errorf("%s rows, owned by %s", rows, owner)
	}
	if d.query(t, "student_db_before_by_hand", "select count(*) from pg_tables where tablename = 'lost'") != "1" {
		t.Error("the database before is not kept")
	}

	d.server.End(syscall.SIGINT)
	if said := d.must(t, d.alone(t, named), named["start"], "psql --no-psqlrc --no-align --tuples-only --dbname student_db --command 'select count(*) from student'", named["stop"]); !strings.Contains(said, "300") {
		t.Errorf("PostgreSQL started alone says %q", said)
	}
	d.server.Start(t) // it was stopped, and well
}

// alone are the settings of the block of that name: the desk's folder is a data directory.
func (d desk) alone(t *testing.T, named map[string]string) string {
	t.Helper()
	for _, must := range []string{"DATA=", "AS=", "PG_BIN="} {
		if !strings.Contains(named["alone"], must) {
			t.Fatalf("the runbook does not set %s", must)
		}
	}
	if err := os.Symlink(d.server.Dir, filepath.Join(d.dir, "postgres")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(d.dir), d.dir} { // the server's account looks in
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	as := ""
	if os.Geteuid() == 0 {
		account, err := postgres.ClusterAccount()
		if err != nil {
			t.Fatal(err)
		}
		as = "runuser --user " + account.Name + " --"
	}
	return fmt.Sprintf("DATA=%s\nAS=%q\nPG_BIN=%s\n", d.dir, as, d.server.Bin)
}

func TestTheRunbookStopsBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 300)
	m := f.save(t, "4g8k2m0x7c")
	steps, named := runbook(t)
	other := backuptest.Keys(t)
	d := newDesk(t, f, m, f.Keys.Identities, named)
	archive := filepath.Join(f.root, filepath.FromSlash(m.Archive))
	stops := func(what, says string) {
		t.Helper()
		said, err := d.types(t, steps...)
		if err == nil || !strings.Contains(said, says) || strings.Contains(said, "the key fits") {
			t.Errorf("%s: %v, says\n%s", what, err, said)
		}
		if made := d.query(t, "postgres", "select count(*) from pg_database where datname like 'student_db%'"); made != "0" {
			t.Errorf("%s: %s databases made", what, made)
		}
	}
	right := d.settings
	d.settings = strings.Replace(right, f.Keys.Identities, other.Identities, 1)
	stops("another key", "no identity matched any of the recipients")
	d.settings = right
	whole, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	whole[len(whole)/2] ^= 1
	if err := os.WriteFile(archive, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	stops("a flipped bit", ".dump.zst.age: FAILED")
}
