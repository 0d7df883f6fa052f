package smoketest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/settings"
)

func TestSuitesOfOnesOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const checks = "checks: [{name: c, request: {path: /}, expect: {status: 200}}]\n"
	good, other := file("good.yaml", "name: good\n"+checks), file("other.yaml", "name: other\n"+checks)
	twin, builtIn := file("twin.yaml", "name: good\n"+checks), file("platform.yaml", "name: platform\n"+checks)
	faulty := file("faulty.yaml", "name: x\ncheck: []\n")
	load := func(suites string) (Config, error) {
		return settings.From[Config](map[string]string{"SMOKE_GATEWAYS": "production=http://127.0.0.1:1,staging=http://127.0.0.1:2", "SMOKE_SUITES": suites})
	}

	cfg, err := load("production=" + good + ", production=" + other + ",staging=" + twin)
	if err != nil {
		t.Fatal(err)
	}
	for environment, want := range map[string]string{"production": "good other", "staging": "good", "": ""} {
		suites, err := cfg.Suites.Read(environment)
		var names []string
		for _, s := range suites {
			names = append(names, s.Name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s: %v %v, want %s", environment, names, err, want)
		}
	}

	_, err = load("production=" + faulty + ",production=" + good + ",production=" + twin + ",staging=" + builtIn + ",staging=/nowhere.yaml,moon=" + other)
	for _, want := range []string{"faulty.yaml: line 2: check: there is no such key", "faulty.yaml: line 1: checks is missing", "twin.yaml: " + good + " has the name",
		"platform.yaml: the built-in suite has the name", "/nowhere.yaml: no such file", `"moon" has no gateway`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if _, err := load("production=school.yaml,staging"); err == nil || strings.Count(err.Error(), "is not environment=path") != 2 {
		t.Error(err)
	}
}
