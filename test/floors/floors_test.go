// Package floors keeps the structure of the house: a package imports only what stands below it (docs/architecture.md).
package floors

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/school-sms/sms/"

// floors, lowest first. A package belongs to the floor with the longest matching prefix.
var floors = []struct {
	prefix string
	level  int
	// sideways says that packages of this floor may import one another. Go itself refuses circles.
	sideways bool
}{
	{"migrations", 1, false},
	{"internal", 2, true},
	{"activities", 3, false},
	{"workflows", 4, true},
	{"api/server", 5, true},
	{"api", 6, false},
	{"workers", 6, false},
	{"cmd", 7, false},
	{"test", 8, true},
	{"bench", 8, true},
}

// effects are packages that a workflow, whose code must be deterministic, may not import.
var effects = []string{"net", "net/http", "os", "os/exec", "database/sql", "math/rand", "math/rand/v2", "crypto/rand", "github.com/jackc/",
	"k8s.io/", "github.com/moby/", module + "internal/postgres", module + "internal/standalone", module + "internal/storage"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestFloors(t *testing.T) {
	t.Parallel()
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("only %d packages listed: the test looks in the wrong place", len(packages))
	}
	for _, p := range packages {
		from, ok := floorOf(p.ImportPath)
		if !ok {
			t.Errorf("%s is on no floor: add it to docs/architecture.md and to this test", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := floorOf(imported)
			switch {
			case !ours:
			case floors[to].level > floors[from].level:
				t.Errorf("an arrow runs up: %s imports %s", p.ImportPath, imported)
			case floors[to].level == floors[from].level && (to != from || !floors[from].sideways):
				t.Errorf("an arrow runs sideways: %s imports %s", p.ImportPath, imported)
			}
		}
		if strings.HasPrefix(p.ImportPath, module+"workflows/") {
			for _, imported := range p.Imports {
				if isEffect(imported) {
					t.Errorf("a workflow has a side effect at hand: %s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
}

func TestFxStaysInModules(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("grep", "-rl", "--include=*.go", "--exclude=*_test.go", `"go.uber.org/fx`, "../../internal", "../../activities", "../../workflows",
		"../../api", "../../workers").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 1 || err != nil && !ok {
		t.Fatal(err)
	}
	for _, file := range strings.Fields(string(out)) {
		if base := file[strings.LastIndex(file, "/")+1:]; base != "module.go" && file != "../../api/server/run.go" && file != "../../api/server/register.go" {
			t.Errorf("%s uses fx: only module.go files and cmd/ wire", file)
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func floorOf(path string) (index int, ok bool) {
	rest, ours := strings.CutPrefix(path, module)
	if !ours {
		return 0, false
	}
	longest := -1
	for i, f := range floors {
		if (rest == f.prefix || strings.HasPrefix(rest, f.prefix+"/")) && len(f.prefix) > longest {
			index, longest = i, len(f.prefix)
		}
	}
	return index, longest >= 0
}

func isEffect(path string) bool {
	for _, e := range effects {
		if path == e || strings.HasSuffix(e, "/") && strings.HasPrefix(path, e) {
			return true
		}
	}
	return false
}
