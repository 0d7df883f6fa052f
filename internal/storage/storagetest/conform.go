package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/school-sms/sms/internal/storage"
)

// Part is the size of the parts in which a bucket's store sends: sizes around it are where it may go wrong.
const Part = 8 << 20

// Conform tries that a store keeps the promises of storage.Store. Open returns an empty one.
func Conform(t *testing.T, open func(t *testing.T) storage.Store) {
	t.Run("an object is seen when it is complete", func(t *testing.T) { t.Parallel(); seenWhenComplete(t, open(t)) })
	t.Run("an object is written once", func(t *testing.T) { t.Parallel(); writtenOnce(t, open(t)) })
	t.Run("contents of every size come back", func(t *testing.T) { t.Parallel(); sizes(t, open(t)) })
	t.Run("a backup's order of writing", func(t *testing.T) { t.Parallel(); orderOfBackup(t, open(t)) })
	t.Run("what was aborted leaves nothing", func(t *testing.T) { t.Parallel(); aborted(t, open(t)) })
	t.Run("a cancelled writer leaves nothing", func(t *testing.T) { t.Parallel(); cancelled(t, open(t)) })
	t.Run("lists are in order and by prefix", func(t *testing.T) { t.Parallel(); lists(t, open(t)) })
	t.Run("names stay in their place", func(t *testing.T) { t.Parallel(); names(t, open(t)) })
}

// Content makes bytes that do not compress, the same for the same size.
func Content(size int) []byte {
	content := make([]byte, size)
	source := rand.NewChaCha8(sha256.Sum256([]byte{byte(size), byte(size >> 8), byte(size >> 16)}))
	_, _ = source.Read(content)
	return content
}

// Create writes content and leaves the object unfinished.
func Create(t testing.TB, s storage.Store, name string, content []byte) storage.Writer {
	t.Helper()
	w, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Abort)
	if _, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	return w
}

// Put writes an object.
func Put(t testing.TB, s storage.Store, name string, content []byte) {
	t.Helper()
	if err := Create(t, s, name, content).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Get reads an object.
func Get(t testing.TB, s storage.Store, name string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Names are those of all objects.
func Names(t testing.TB, s storage.Store, prefix string) []string {
	t.Helper()
	objects, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, o := range objects {
		names = append(names, o.Name)
	}
	return names
}

func unseen(t *testing.T, s storage.Store, name string) {
	t.Helper()
	if _, err := s.Open(t.Context(), name); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("open: %v, want not found", err)
	}
	if _, err := s.Stat(t.Context(), name); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("stat: %v, want not found", err)
	}
	if n := Names(t, s, ""); slices.Contains(n, name) {
		t.Errorf("the list %v has it", n)
	}
}

func seenWhenComplete(t *testing.T, s storage.Store) {
	ctx, content := t.Context(), Content(Part+1000)
	w := Create(t, s, "student_db/one", content)
	unseen(t, s, "student_db/one")
	if err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	unseen(t, s, "student_db/one")
	if n, err := s.Sweep(ctx, nil); n != 0 || err != nil {
		t.Errorf("swept %d objects of a living writer (%v)", n, err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("more was written after the end")
	}
	if err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	w.Abort() // as a deferred one does
	if o, err := s.Stat(ctx, "student_db/one"); err != nil || o.Bytes != int64(len(content)) || o.Name != "student_db/one" || o.Modified.IsZero() {
		t.Errorf("stat %+v, %v", o, err)
	}
	if !bytes.Equal(Get(t, s, "student_db/one"), content) {
		t.Error("the content is not what was written")
	}
	if err := errors.Join(s.Remove(ctx, "student_db/one"), s.Remove(ctx, "student_db/one")); err != nil {
		t.Error(err)
	}
	unseen(t, s, "student_db/one")
}

func writtenOnce(t *testing.T, s storage.Store) {
	for name, content := range map[string][]byte{"small": []byte("first"), "big": Content(Part + 1)} {
		early := Create(t, s, name, append([]byte("early "), content...))
		Put(t, s, name, content)
		if err := early.Commit(t.Context()); !errors.Is(err, storage.ErrExists) {
			t.Errorf("%s: a second object, begun before: %v, want refused", name, err)
		}
		early.Abort()
		if err := Create(t, s, name, append([]byte("late "), content...)).Commit(t.Context()); !errors.Is(err, storage.ErrExists) {
			t.Errorf("%s: a second object, begun after: %v, want refused", name, err)
		}
		if !bytes.Equal(Get(t, s, name), content) {
			t.Errorf("%s: the first object was changed", name)
		}
	}
}

func sizes(t *testing.T, s storage.Store) {
	for i, size := range []int{0, 1, 70_000, Part - 1, Part, Part + 1, 2 * Part, 2*Part + 12_345} {
		content, name := Content(size), "sizes/"+string(rune('a'+i))
		w, err := s.Create(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for rest := content; len(rest) > 0; { // pieces that match nothing
			n := min(len(rest), 99_991)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := errors.Join(w.Flush(t.Context()), w.Commit(t.Context())); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(Get(t, s, name), content) {
			t.Errorf("%d bytes did not come back as they were", size)
		}
	}
}

func orderOfBackup(t *testing.T, s storage.Store) {
	archive := Create(t, s, "db/x.dump", Content(Part+5))
	if err := archive.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	Put(t, s, "db/x.manifest.json", []byte("{}"))
	if n := Names(t, s, "db/"); !slices.Equal(n, []string{"db/x.manifest.json"}) {
		t.Errorf("before the archive's commit: %v", n)
	}
	if err := archive.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := Names(t, s, "db/"); !slices.Equal(n, []string{"db/x.dump", "db/x.manifest.json"}) {
		t.Errorf("after it: %v", n)
	}
}

func aborted(t *testing.T, s storage.Store) {
	for _, size := range []int{10, Part + 10} {
		w := Create(t, s, "gone", Content(size))
		if size > Part {
			if err := w.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.Abort()
		w.Abort()
		if err := w.Commit(t.Context()); err == nil {
			t.Error("what was aborted was committed")
		}
	}
	unseen(t, s, "gone")
	if n, err := s.Sweep(t.Context(), func(string) bool { return true }); n != 0 || err != nil {
		t.Errorf("%d were left (%v)", n, err)
	}
}

func cancelled(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	w, err := s.Create(ctx, "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(Content(Part + 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v, want cancelled", err)
	}
	w.Abort()
	unseen(t, s, "gone")
	if n, err := s.Sweep(t.Context(), func(string) bool { return true }); n != 0 || err != nil {
		t.Errorf("%d were left (%v)", n, err)
	}
}

func lists(t *testing.T, s storage.Store) {
	for _, name := range []string{"b/2", "a/1", "b/10", "b.c", "a/b/c", "b/1"} {
		Put(t, s, name, []byte(name))
	}
	for prefix, want := range map[string][]string{
		"": {"a/1", "a/b/c", "b.c", "b/1", "b/10", "b/2"}, "b/": {"b/1", "b/10", "b/2"}, "b/1": {"b/1", "b/10"}, "b": {"b.c", "b/1", "b/10", "b/2"}, "c": {},
	} {
		if got := Names(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", prefix, got, want)
		}
	}
}

func names(t *testing.T, s storage.Store) {
	for _, name := range []string{"../x", "/etc/x", "", ".", "a/../../x", "a/../x", "a//b", "a/", "a/.unfinished-x.tmp"} {
		_, createErr := s.Create(t.Context(), name)
		_, openErr := s.Open(t.Context(), name)
		_, statErr := s.Stat(t.Context(), name)
		if createErr == nil || openErr == nil || statErr == nil || s.Remove(t.Context(), name) == nil {
			t.Errorf("%q was accepted as a name", name)
		}
	}
}
