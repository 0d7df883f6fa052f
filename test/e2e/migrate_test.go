package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	addHouse  = "alter table student add column house text not null default '';"
	dropHouse = "alter table student drop column house;"
)

// TestMigrations rolls out releases of the student service with more migrations than it has, under load: none of it fails a request.
func TestMigrations(t *testing.T) {
	t.Parallel()
	p := up(t, newDataDir(t))
	var made struct{ StudentID string }
	p.call(http.MethodPost, "/api/v1/students", student("9000000004")).into(t, &made)
	built := filepath.Join(t.TempDir(), "migrating")
	if out, err := exec.Command("go", "build", "-o", built, "./migrating").CombinedOutput(); err != nil {
		t.Fatalf("build the migrating service: %v\n%s", err, out)
	}
	program, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	with := func(migrations map[string]string) string {
		own, err := json.Marshal(migrations)
		if err != nil {
			t.Fatal(err)
		}
		return writeRelease(t, "student-service", string(program)+"\n"+string(own))
	}
	rollOut := func(release string, more ...string) (string, int) {
		l := startLoad(p, "/api/v1/students/"+made.StudentID)
		defer l.endWithin(t, 0)
		return p.sms(append([]string{"rollout", "start", "student-service=" + release, "--env", "production", "--unproven", "a test", "--weights", "100", "--soak", "1s", "--wait"}, more...)...)
	}
	version := func() int { return p.sql("student_db", "select version from schema_version") }
	before, stable := version(), p.releases("student-service")

	// 1. Expand: after a verified backup, and before there is an instance of the release.
	expand := with(map[string]string{"007_house.sql": addHouse})
	out, code := rollOut(expand)
	for _, want := range []string{"Expand-only: 007_house.sql", "Back up student_db and verify the backup", "Migrate student_db to version 7", "succeeded"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("expand: exit %d, want %q\n%s", code, want, out)
		}
	}
	if strings.Index(out, "verify the backup") > strings.Index(out, "to version 7") || strings.Index(out, "to version 7") > strings.Index(out, "without traffic") {
		t.Errorf("the steps are not in their order:\n%s", out)
	}
	if got := version(); got != before+1 {
		t.Errorf("version %d, want %d", got, before+1)
	}
	if backups := p.mustSMS("backup", "list"); strings.Count(backups, "student_db ") != 1 || !strings.Contains(backups, "verified") {
		t.Errorf("backups:\n%s", backups)
	}

	// 2. What older releases cannot live with is refused, and changes nothing.
	expanded := p.releases("student-service")
	out, code = rollOut(with(map[string]string{"007_house.sql": addHouse, "008_no_house.sql": dropHouse}))
	if code != 1 || !strings.Contains(out, "008_no_house.sql is neither expand-only nor marked as a contract step: line 1: drops column student.house") || version() != before+1 {
		t.Errorf("a drop: exit %d, version %d\n%s", code, version(), out)
	}
	if now := p.releases("student-service"); !slices.Equal(now, expanded) {
		t.Errorf("%v runs after a refusal, want %v", now, expanded)
	}

	// 3. The release before it lives with the newer schema, by a rollback, and a restart of the platform too.
	l := startLoad(p, "/api/v1/students/"+made.StudentID)
	if out := p.mustSMS("rollout", "rollback", "student-service", "--wait"); !strings.Contains(out, "succeeded") {
		t.Errorf("rollback:\n%s", out)
	}
	l.endWithin(t, 0)
	if now := p.releases("student-service"); !slices.Equal(now, stable) || version() != before+1 {
		t.Errorf("%v runs after the rollback, at version %d", now, version())
	}
	p.stop()
	p = up(t, p.dataDir)

	// 4. A contract step runs once the release runs alone, and bars the way back.
	out, code = rollOut(with(map[string]string{"007_house.sql": addHouse, "008_no_house.sql": "-- contract\n" + dropHouse}))
	if code != 0 || !strings.Contains(out, "Contract steps have run: 008_no_house.sql") || version() != before+2 {
		t.Fatalf("contract: exit %d, version %d\n%s", code, version(), out)
	}
	if strings.LastIndex(out, "to version 8") < strings.Index(out, "Drain ") {
		t.Errorf("the contract step did not wait:\n%s", out)
	}
	contracted := p.releases("student-service")
	if out, code := p.sms("rollout", "rollback", "student-service", "--wait"); code != 1 || !strings.Contains(out, "was a contract step") {
		t.Errorf("a rollback past it: exit %d\n%s", code, out)
	}
	if now := p.releases("student-service"); !slices.Equal(now, contracted) {
		t.Errorf("%v runs, want %v", now, contracted)
	}
	p.recordRollouts("migrations-")
}
