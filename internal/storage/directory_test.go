package storage_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/school-sms/sms/internal/storage"
)

func write(t *testing.T, s storage.Store, name, content string) storage.Writer {
	t.Helper()
	w, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAnObjectIsSeenWhenItIsComplete(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "backups")
	s, err := storage.NewDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	w := write(t, s, "student_db/one", "content")
	if list, err := s.List(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("before commit: %v, %v", list, err)
	}
	if _, err := s.Open(ctx, "student_db/one"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("open before commit: %v, want not found", err)
	}
	if n, err := s.Sweep(ctx, nil); n != 0 || err != nil {
		t.Errorf("swept %d files of a living writer (%v)", n, err)
	}
	if err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	w.Abort() // as a deferred one does
	info, err := os.Stat(filepath.Join(root, "student_db/one"))
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 7 {
		t.Errorf("%v, %v, want 7 bytes for the owner only", info, err)
	}
	if err := write(t, s, "student_db/one", "other").Commit(ctx); !errors.Is(err, storage.ErrExists) {
		t.Errorf("a second object of the name: %v, want refused", err)
	}
	r, err := s.Open(ctx, "student_db/one")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if content, err := io.ReadAll(r); err != nil || string(content) != "content" {
		t.Errorf("read %q, %v", content, err)
	}
	if list, err := s.List(ctx, "student_db/"); err != nil || len(list) != 1 || list[0].Bytes != 7 {
		t.Errorf("list: %v, %v", list, err)
	}
	if err := errors.Join(s.Remove(ctx, "student_db/one"), s.Remove(ctx, "student_db/one")); err != nil {
		t.Error(err)
	}
}

func TestSweepTakesWhatDeadWritersLeft(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s, err := storage.NewDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, ".unfinished-one.ABCDEFGH.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(context.Background(), nil); n != 1 || err != nil {
		t.Errorf("swept %d, %v, want 1", n, err)
	}
	aborted := write(t, s, "two", "half")
	aborted.Abort()
	if left, _ := filepath.Glob(filepath.Join(root, ".*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNamesStayInTheFolder(t *testing.T) {
	t.Parallel()
	s, err := storage.NewDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "/etc/x", "", "a/../../x", "a/.unfinished-x.tmp"} {
		if _, err := s.Create(context.Background(), name); err == nil {
			t.Errorf("%q was accepted as a name", name)
		}
	}
}
