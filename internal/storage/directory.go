package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of unfinished files begin and end like this; no object's name does.
const (
	unfinishedPrefix = ".unfinished-"
	unfinishedSuffix = ".tmp"
)

// Directory is a Store in a folder of a local file system. Files are readable by the owner only (0600).
type Directory struct{ root string }

// NewDirectory uses a folder, which is made when first written to.
func NewDirectory(root string) (*Directory, error) {
	if root == "" {
		return nil, errors.New("the folder for backups is not named")
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("folder for backups: %w", err)
	}
	return &Directory{root: abs}, nil
}

// Create implements Store. The unfinished file is locked (flock(2)) for as long as its writer lives.
func (d *Directory) Create(_ context.Context, name string) (Writer, error) {
	final, err := d.path(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", name, classed(err))
	}
	temporary := filepath.Join(filepath.Dir(final), unfinishedPrefix+filepath.Base(final)+"."+rand.Text()[:8]+unfinishedSuffix)
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, classed(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		_ = os.Remove(temporary)
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &file{f: f, temporary: temporary, final: final, name: name}, nil
}

// Open implements Store.
func (d *Directory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, named(name, err)
	}
	return f, nil
}

// Stat implements Store.
func (d *Directory) Stat(_ context.Context, name string) (Object, error) {
	path, err := d.path(name)
	if err != nil {
		return Object{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Object{}, named(name, err)
	}
	return Object{Name: name, Bytes: info.Size(), Modified: info.ModTime()}, nil
}

// List implements Store.
func (d *Directory) List(_ context.Context, prefix string) ([]Object, error) {
	var objects []Object
	err := d.walk(func(path string, entry fs.DirEntry) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, d.root+string(filepath.Separator)))
		if unfinished(path) || !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		objects = append(objects, Object{Name: name, Bytes: info.Size(), Modified: info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the storage: %w", err)
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
	return objects, nil
}

// Remove implements Store.
func (d *Directory) Remove(_ context.Context, name string) error {
	path, err := d.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return syncFolder(filepath.Dir(path))
}

// Sweep implements Store: a file whose lock is free has no writer any more, whatever its name.
func (d *Directory) Sweep(context.Context, func(string) bool) (int, error) {
	removed := 0
	err := d.walk(func(path string, _ fs.DirEntry) error {
		if !unfinished(path) {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil // finished or removed meanwhile
		}
		defer f.Close()
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			return nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		removed++
		return nil
	})
	if err != nil {
		return removed, fmt.Errorf("sweep unfinished files: %w", err)
	}
	return removed, nil
}

func (d *Directory) walk(visit func(path string, entry fs.DirEntry) error) error {
	return filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		return visit(path, entry)
	})
}

func (d *Directory) path(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	return filepath.Join(d.root, filepath.FromSlash(name)), nil
}

func unfinished(path string) bool {
	base := filepath.Base(path)
	return strings.HasPrefix(base, unfinishedPrefix) && strings.HasSuffix(base, unfinishedSuffix)
}

// free implements gauge: what the file system leaves to accounts other than root.
func (d *Directory) free() (int64, error) {
	var fs unix.Statfs_t
	for dir := d.root; ; dir = filepath.Dir(dir) {
		err := unix.Statfs(dir, &fs)
		if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			continue // made when first written to, where the nearest folder above it lies
		}
		if err != nil {
			return 0, fmt.Errorf("free space of %s: %w", d.root, err)
		}
		return int64(fs.Bavail) * fs.Bsize, nil
	}
}

// file is an unfinished object.
type file struct {
	f                      *os.File
	temporary, final, name string
	flushed, done          bool
}

func (w *file) Write(p []byte) (int, error) {
	if w.flushed || w.done {
		return 0, fmt.Errorf("write %s: %w", w.name, errEnded)
	}
	n, err := w.f.Write(p)
	if err != nil {
		err = fmt.Errorf("write %s: %w", w.name, classed(err))
	}
	return n, err
}

func (w *file) Flush(context.Context) error {
	w.flushed = true
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", w.name, classed(err))
	}
	return nil
}

func (w *file) Commit(ctx context.Context) error {
	if err := errors.Join(context.Cause(ctx), w.Flush(ctx)); err != nil {
		return err
	}
	if err := renameNoReplace(w.temporary, w.final); err != nil {
		return fmt.Errorf("finish %s: %w", w.name, classed(err))
	}
	w.done = true
	if err := errors.Join(w.f.Close(), syncFolder(filepath.Dir(w.final))); err != nil {
		return fmt.Errorf("finish %s: %w", w.name, classed(err))
	}
	return nil
}

func (w *file) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = os.Remove(w.temporary)
	_ = w.f.Close()
}

// renameNoReplace renames as rename(2) does, but never over a file that is there. File systems that cannot promise
// that in one step (NFS, for example) look first.
func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrExists
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		if _, err := os.Lstat(to); err == nil {
			return ErrExists
		}
		return os.Rename(from, to)
	}
	return err
}

// syncFolder makes a rename or removal last: the name is the folder's content (fsync(2)).
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// classed adds what a store may answer to an error of the file system.
func classed(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

func named(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return fmt.Errorf("read %s: %w", name, err)
}
