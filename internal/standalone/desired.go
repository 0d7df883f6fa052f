package standalone

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/school-sms/sms/internal/target"
)

// desired is what should run of every service that rollouts act on. It is one file, replaced in one step, so that a
// crash leaves the old or the new state.
type desired struct {
	path string

	mu       sync.Mutex
	Services map[string]*desiredService `json:"services"` // by environment/service
}

type desiredService struct {
	// Installed is the digest of the program that `make build` had put in place when it was last taken as stable.
	Installed string                       `json:"installed"`
	Fence     int64                        `json:"fence"`
	Tracks    map[string]target.Deployment `json:"tracks"`
}

func serviceKey(environment, service string) string { return environment + "/" + service }

func loadDesired(path string) (*desired, error) {
	d := &desired{path: path, Services: map[string]*desiredService{}}
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what should run: %w", err)
	}
	if err := json.Unmarshal(content, d); err != nil {
		return nil, fmt.Errorf("read what should run: %s: %w", path, err)
	}
	return d, nil
}

// save is called with mu held.
func (d *desired) save() error {
	content, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("encode what should run: %w", err)
	}
	if err := renameio.WriteFile(d.path, content, 0o600); err != nil {
		return fmt.Errorf("write what should run: %w", err)
	}
	return nil
}

// install makes the program on disk the stable release, unless it was so already: what a rollout has put in its place
// since stays, until another program is installed.
func (d *desired) install(environment, service, digest string, replicas int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := serviceKey(environment, service)
	s := d.Services[key]
	if s == nil {
		s = &desiredService{Tracks: map[string]target.Deployment{}}
		d.Services[key] = s
	}
	stable := s.Tracks[target.Stable]
	if s.Installed == digest && stable.Replicas > 0 {
		return nil
	}
	s.Installed = digest
	s.Tracks[target.Stable] = target.Deployment{Environment: environment, Service: service, Track: target.Stable,
		Release: digest, Replicas: replicas, Fence: s.Fence}
	return d.save()
}

// ensure takes a deployment in, or refuses it.
func (d *desired) ensure(dep target.Deployment) error {
	return d.write(dep.Environment, dep.Service, dep.Fence, func(s *desiredService) { s.Tracks[dep.Track] = dep })
}

// remove ends a track.
func (d *desired) remove(environment, service, track string, fence int64) error {
	return d.write(environment, service, fence, func(s *desiredService) { delete(s.Tracks, track) })
}

func (d *desired) write(environment, service string, fence int64, change func(*desiredService)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.Services[serviceKey(environment, service)]
	if s == nil {
		return fmt.Errorf("%w: service %s in environment %s", target.ErrNotFound, service, environment)
	}
	if fence < s.Fence {
		return target.ErrFenced
	}
	before := desiredService{Fence: s.Fence, Tracks: maps.Clone(s.Tracks)}
	s.Fence = fence
	change(s)
	if err := d.save(); err != nil {
		s.Fence, s.Tracks = before.Fence, before.Tracks
		return err
	}
	return nil
}

func (d *desired) tracks(environment, service string) (map[string]target.Deployment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.Services[serviceKey(environment, service)]
	if s == nil {
		return nil, fmt.Errorf("%w: service %s in environment %s", target.ErrNotFound, service, environment)
	}
	return maps.Clone(s.Tracks), nil
}

// wanted counts the instances that each release should have. Where two tracks have one release, as at the end of a
// rollout, they share its instances, so that moving a release from one track to another starts and stops nothing.
func wanted(tracks map[string]target.Deployment) map[string]int {
	want := map[string]int{}
	for _, dep := range tracks {
		want[dep.Release] = max(want[dep.Release], dep.Replicas)
	}
	return want
}

// uses reports whether a release should run anywhere.
func (d *desired) uses(service, digest string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, s := range d.Services {
		for _, dep := range s.Tracks {
			if dep.Release == digest && strings.HasSuffix(key, "/"+service) {
				return true
			}
		}
	}
	return false
}

// keptReleases is how many releases of a service are kept besides those in use, newest first.
const keptReleases = 3

// sweepReleases removes old releases that are not in use, and what an import that was cut off has left.
func (l Layout) sweepReleases(inUse func(service, digest string) bool) error {
	for _, service := range programs {
		entries, err := os.ReadDir(filepath.Join(l.releases(), service))
		if err != nil {
			return fmt.Errorf("look for old releases: %w", err)
		}
		var unused []os.FileInfo
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil || entry.IsDir() && inUse(service, digestPrefix+entry.Name()) {
				continue
			}
			if !entry.IsDir() {
				_ = os.Remove(filepath.Join(l.releases(), service, entry.Name())) // a later sweep tries again
				continue
			}
			unused = append(unused, info)
		}
		slices.SortFunc(unused, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
		for _, old := range unused[min(keptReleases, len(unused)):] {
			if err := os.RemoveAll(filepath.Join(l.releases(), service, old.Name())); err != nil {
				return fmt.Errorf("remove an old release: %w", err)
			}
		}
	}
	return nil
}

const digestPrefix = "sha256:"

// releaseProgram is where a release's program lies.
func (l Layout) releaseProgram(service, digest string) string {
	return filepath.Join(l.releases(), service, strings.TrimPrefix(digest, digestPrefix), service)
}

// hasRelease reports whether a release was imported. A digest that is none names no file.
func (l Layout) hasRelease(service, digest string) bool {
	hash, ok := strings.CutPrefix(digest, digestPrefix)
	if _, err := hex.DecodeString(hash); !ok || err != nil || len(hash) != 2*sha256.Size {
		return false
	}
	_, err := os.Stat(l.releaseProgram(service, digest))
	return err == nil
}

// importRelease copies a program into the data directory under its digest.
func (l Layout) importRelease(service, path string) (target.Release, error) {
	src, err := os.Open(path)
	if err != nil {
		return target.Release{}, fmt.Errorf("%w: %w", target.ErrNotFound, err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return target.Release{}, fmt.Errorf("read the release: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return target.Release{}, fmt.Errorf("%w: %s is not an executable file", target.ErrNotFound, path)
	}
	dir := filepath.Join(l.releases(), service)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	copied, err := renameio.NewPendingFile(filepath.Join(dir, "import"), renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o555))
	if err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	defer copied.Cleanup()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(copied, hash), src); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	digest := digestPrefix + hex.EncodeToString(hash.Sum(nil))
	release := target.Release{Digest: digest}
	if l.hasRelease(service, digest) {
		return release, nil
	}
	final := l.releaseProgram(service, digest)
	if err := os.MkdirAll(filepath.Dir(final), 0o711); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	if err := copied.Sync(); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	if err := copied.Close(); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	if err := os.Rename(copied.Name(), final); err != nil {
		return target.Release{}, fmt.Errorf("import the release: %w", err)
	}
	return release, nil
}
