package standalone

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/school-sms/sms/internal/target"
)

func TestDesiredSurvivesAndRefusesOldFences(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "desired.json")
	d, err := loadDesired(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.install(Production, "student-service", "sha256:a", 2); err != nil {
		t.Fatal(err)
	}
	canary := target.Deployment{Environment: Production, Service: "student-service", Track: target.Canary, Release: "sha256:b", Replicas: 2, Fence: 10}
	if err := d.ensure(canary); err != nil {
		t.Fatal(err)
	}
	late := canary
	late.Release, late.Fence = "sha256:late", 9
	if err := d.ensure(late); !errors.Is(err, target.ErrFenced) {
		t.Errorf("a late write: %v, want ErrFenced", err)
	}
	if err := d.remove(Production, "student-service", target.Canary, 9); !errors.Is(err, target.ErrFenced) {
		t.Errorf("a late removal: %v, want ErrFenced", err)
	}
	if err := d.ensure(canary); err != nil {
		t.Errorf("the same write again: %v", err)
	}
	if err := d.ensure(target.Deployment{Environment: Production, Service: "nobody", Track: target.Canary}); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("an unknown service: %v, want ErrNotFound", err)
	}

	again, err := loadDesired(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d.Services, again.Services); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
}

func TestInstallKeepsWhatARolloutHasPutInPlace(t *testing.T) {
	t.Parallel()
	d, err := loadDesired(filepath.Join(t.TempDir(), "desired.json"))
	if err != nil {
		t.Fatal(err)
	}
	stable := func() string {
		tracks, err := d.tracks(Production, "student-service")
		if err != nil {
			t.Fatal(err)
		}
		return tracks[target.Stable].Release
	}
	for _, step := range []struct{ install, rollout, want string }{
		{install: "sha256:one", want: "sha256:one"},
		{rollout: "sha256:two", want: "sha256:two"},
		{install: "sha256:one", want: "sha256:two"},   // a restart with the same programs
		{install: "sha256:four", want: "sha256:four"}, // new programs were installed
	} {
		if step.install != "" {
			if err := d.install(Production, "student-service", step.install, 1); err != nil {
				t.Fatal(err)
			}
		} else if err := d.ensure(target.Deployment{Environment: Production, Service: "student-service", Track: target.Stable,
			Release: step.rollout, Replicas: 1, Fence: 1}); err != nil {
			t.Fatal(err)
		}
		if got := stable(); got != step.want {
			t.Fatalf("after %+v: stable is %s", step, got)
		}
	}
}

func TestWantedSharesInstancesBetweenTracks(t *testing.T) {
	t.Parallel()
	old := target.Deployment{Release: "old", Replicas: 2}
	next := target.Deployment{Release: "new", Replicas: 3}
	for name, c := range map[string]struct {
		tracks map[string]target.Deployment
		want   map[string]int
	}{
		"both releases":   {map[string]target.Deployment{target.Stable: old, target.Canary: next}, map[string]int{"old": 2, "new": 3}},
		"promoted":        {map[string]target.Deployment{target.Stable: next, target.Canary: next}, map[string]int{"new": 3}},
		"nothing desired": {nil, map[string]int{}},
	} {
		if diff := cmp.Diff(c.want, wanted(c.tracks)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestImportReleaseByContent(t *testing.T) {
	t.Parallel()
	l := Layout{Root: t.TempDir()}
	if err := l.make(); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.importRelease("student-service", program); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("a file that is not executable: %v, want ErrNotFound", err)
	}
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := l.importRelease("student-service", program)
	if err != nil {
		t.Fatal(err)
	}
	// The digest of the SHA-256 of "#!/bin/sh\n", by sha256sum.
	const want = "sha256:a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf"
	if first.Digest != want {
		t.Errorf("digest %s, want %s", first.Digest, want)
	}
	again, err := l.importRelease("student-service", program)
	if err != nil || again != first {
		t.Errorf("the second import: %v, %v", again, err)
	}
	if !l.hasRelease("student-service", first.Digest) {
		t.Error("the release is not there after its import")
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../../../bin/sh", strings.TrimPrefix(want, "sha256:")} {
		if l.hasRelease("student-service", bad) {
			t.Errorf("%q passes for a release", bad)
		}
	}
	leftovers, _ := filepath.Glob(filepath.Join(l.releases(), "student-service", "*import*"))
	if len(leftovers) > 0 {
		t.Errorf("left behind: %v", leftovers)
	}
}
