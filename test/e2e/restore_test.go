package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres"
)

// TestRestore does what docs/operations.md says under "Restore": it brings a backup back beside and in place of the database
// that serves, after ops_db was lost, and from a folder and a key that lay elsewhere.
func TestRestore(t *testing.T) {
	t.Parallel()
	p := up(t, newDataDir(t))
	again := func() { // which lasts until the whole test ends
		part := p.t
		p.stop()
		*p = *up(t, p.dataDir)
		p.t = part
	}
	stopWatching := p.watchCommandLines()
	kept, erased := p.enrol("9876543210"), p.enrol("9876543211")
	p.mustSMS("backup", "run", "student_db", "--wait")
	backup := p.listed("backups", "verified")[0]
	p.mustSMS("student", "erase", erased, "--reason", "letter 17", "--confirm", erased)
	late := p.enrol("9876543212")

	p.run(t, "into a new database", func(t *testing.T, p *platform) {
		out := p.mustSMS("restore", "start", backup[:6], "--into", "student_db_monday", "--wait")
		if !strings.Contains(out, "student_db_monday is student_db as of") {
			t.Error(out)
		}
		if n := p.sql("student_db_monday", "select count(*) from student where student_id in ('"+kept+"', '"+erased+"')"); n != 2 {
			t.Errorf("%d of 2 students are in the new database", n)
		}
		p.has(http.StatusOK, late) // nobody's database was touched
		p.has(http.StatusGone, erased)
	})
	p.run(t, "in place", func(t *testing.T, p *platform) {
		if out, code := p.sms("restore", "start", backup, "--in-place", "--confirm", "student_db_staging"); code != 1 || !strings.Contains(out, "student_db") {
			t.Errorf("another name was typed: exit %d\n%s", code, out)
		}
		p.replaced(p.mustSMS("restore", "start", backup, "--in-place", "--confirm", "student_db", "--wait"), erased)
		p.has(http.StatusNotFound, late)
		if next := p.enrol("9876543213"); next <= late {
			t.Errorf("%s was given after %s had been", next, late)
		}
		p.mustSMS("student", "erase", erased, "--reason", "letter 17", "--confirm", erased)
		if out := p.mustSMS("restore", "list"); strings.Count(out, "succeeded") != 2 {
			t.Error(out)
		}
		if out := p.mustSMS("restore", "show", p.listed("restores", "succeeded")[0]); !strings.Contains(out, "drop database student_db_before_") {
			t.Error(out)
		}
		if safety := p.listed("backups", "verified"); len(safety) != 2 {
			t.Errorf("with the safety backup there are %v", safety)
		}
	})
	p.run(t, "ops_db was lost", func(t *testing.T, p *platform) {
		p.sql("postgres", "drop database ops_db with (force)")
		again()
		eventually(t, time.Minute, "the list of backups is there again", func() (bool, string) {
			ids := p.listed("backups", "verified")
			return len(ids) == 2 && slices.Contains(ids, backup), strings.Join(ids, " ")
		})
		p.mustSMS("restore", "start", backup, "--into", "student_db_tuesday", "--wait")
	})
	p.run(t, "ops_db and backups were lost", func(t *testing.T, p *platform) {
		elsewhere := newDataDir(t)
		for _, command := range [][]string{{"mv", filepath.Join(p.dataDir, "backups", "student_db"), elsewhere}, {"cp", "-a", filepath.Join(p.dataDir, "secrets", "backup.key"), elsewhere}} {
			if said, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
		}
		p.sql("postgres", "drop database ops_db with (force)")
		again()
		if out, code := p.sms("restore", "start", backup, "--into", "student_db_wednesday"); code != 1 || !strings.Contains(out, "--from") {
			t.Errorf("a backup that nobody knows: exit %d\n%s", code, out)
		}
		start := []string{"restore", "start", backup, "--from", elsewhere, "--key", filepath.Join(elsewhere, "backup.key"), "--in-place", "--confirm", "student_db", "--wait"}
		if out, code := p.sms(start...); code != 1 || !strings.Contains(out, elsewhere+": permission denied (the services' account must be able to reach it)") {
			t.Errorf("a folder that only its owner may list: exit %d\n%s", code, out)
		}
		if err := os.Chmod(elsewhere, 0o755); err != nil {
			t.Fatal(err)
		}
		out := p.mustSMS(start...)
		p.replaced(out, erased)
		p.has(http.StatusOK, kept)
	})
	p.run(t, "no secret is in sight", func(_ *testing.T, p *platform) { p.noSecretIn(); stopWatching() })
}

// enrol makes a student, and returns the id.
func (p *platform) enrol(mobile string) string {
	p.t.Helper()
	var made struct{ StudentID string }
	created := p.call(http.MethodPost, "/api/v1/students", student(mobile))
	if created.Status != http.StatusCreated {
		p.t.Fatalf("%d %s", created.Status, created.Body)
	}
	created.into(p.t, &made)
	return made.StudentID
}

// has looks a student up.
func (p *platform) has(want int, id string) {
	p.t.Helper()
	if a := p.call(http.MethodGet, "/api/v1/students/"+id, nil); a.Status != want {
		p.t.Errorf("%s: %d, want %d: %s", id, a.Status, want, a.Body)
	}
}

// replaced checks that an erased student is back, and that an operator was told so.
func (p *platform) replaced(said, erased string) {
	p.t.Helper()
	for _, want := range []string{"student_db is student_db as of", "1 students who had been erased are back: " + erased, "drop database student_db_before_"} {
		if !strings.Contains(said, want) {
			p.t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	p.has(http.StatusOK, erased)
}

// listed are the ids of the operations in a state, the newest first.
func (p *platform) listed(kind, state string) (ids []string) {
	p.t.Helper()
	var page struct{ Content []struct{ ID, State string } }
	p.call(http.MethodGet, "/api/v1/ops/"+kind, nil).into(p.t, &page)
	for _, o := range page.Content {
		if o.State == state {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

// sql runs a statement as the superuser, and returns the number that it answers, if it does.
func (p *platform) sql(database, statement string) (n int) {
	p.t.Helper()
	password, err := os.ReadFile(filepath.Join(p.dataDir, "secrets", postgres.Superuser+".password"))
	if err != nil {
		p.t.Fatal(err)
	}
	conn, err := postgres.Cluster{Port: p.status.Ports["PostgreSQL"]}.Connect(context.Background(), strings.TrimSpace(string(password)), database)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), statement)
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&n)
	}
	rows.Close()
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		p.t.Fatalf("%s: %v", statement, err)
	}
	return n
}
