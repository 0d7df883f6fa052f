package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadme types what README.md says under "First steps", word for word but for the port of the gateway.
func TestReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "## First steps")
	_, after, opened := strings.Cut(after, "```\n")
	script, _, closed := strings.Cut(after, "\n```")
	if !found || !opened || !closed || !strings.Contains(script, "sms rollout start") {
		t.Fatal("README.md has no block of commands under First steps")
	}
	p := up(t, newDataDir(t))
	script = strings.ReplaceAll(script, "http://127.0.0.1:8080", p.status.URLs["gateway"])

	cmd := exec.Command("bash", "-e", "-o", "pipefail", "-x", "-c", script)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dataDir, "SMS_DATA_DIR=" + p.dataDir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{`"studentId":"STU-`, `"totalElements":1`, `"rowsUnchanged":1`, "succeeded", "verified", "backup-student_db-nightly", "stopped"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %s:\n%s", want, out)
		}
	}
	<-p.over
}
