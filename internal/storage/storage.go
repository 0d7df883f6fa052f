// Package storage keeps backups: objects that are written once, and that nobody sees under their name until they are
// complete. A Directory keeps them in a folder, an S3 in a bucket; both keep the same promises.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// What a store may answer. Every error wraps at most one of these.
var (
	// ErrNotFound says that there is no object of the name.
	ErrNotFound = errors.New("no such object")
	// ErrExists says that an object of the name is there already; objects are never replaced.
	ErrExists = errors.New("an object of this name is there already")
	// ErrFull says that there is no room left: the disk is full, or the quota is used up.
	ErrFull = errors.New("the storage is full")
	// ErrNoBucket says that the bucket does not exist.
	ErrNoBucket = errors.New("no such bucket")
	// ErrDenied says that the credentials are wrong, or may not do this.
	ErrDenied = errors.New("the storage refuses these credentials")
	// ErrUnreachable says that the storage did not answer, or not to the end. It may later.
	ErrUnreachable = errors.New("the storage does not answer")
	// ErrUntrusted says that who answered has not proven to be the storage: its certificate is not one that is trusted.
	ErrUntrusted = errors.New("the storage's certificate is not trusted")
	// ErrCorrupt says that the storage holds, or sent, something else than what was written.
	ErrCorrupt = errors.New("the storage does not hold what was written")
)

// errEnded says that a writer was used after its end.
var errEnded = errors.New("the object has ended")

// Object is one stored object.
type Object struct {
	Name     string    `json:"name"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// Writer takes an object's content.
type Writer interface {
	io.Writer
	// Flush ends the content and makes it last, still unseen. Nothing is written after it.
	Flush(ctx context.Context) error
	// Commit gives the object its name and makes that last, unless ctx has ended. It returns ErrExists.
	Commit(ctx context.Context) error
	// Abort drops the object. After Commit it does nothing. What it cannot drop is left to Sweep.
	Abort()
}

// Store holds objects. Names are paths with slashes.
type Store interface {
	// Create starts an object. Nobody sees it before its Commit. The context is that of all writing.
	Create(ctx context.Context, name string) (Writer, error)
	// Open reads an object. It returns ErrNotFound. Only a whole object ends with io.EOF.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat describes an object. It returns ErrNotFound.
	Stat(ctx context.Context, name string) (Object, error)
	// List returns the objects whose names begin with prefix, in the order of their names.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Remove deletes an object. One that is not there is no error.
	Remove(ctx context.Context, name string) error
	// Sweep removes what writers that have died left of unfinished objects, and returns how many that were. A writer
	// that lives is left alone, unless dead says that nobody may still write the object of the name. dead may be nil.
	Sweep(ctx context.Context, dead func(name string) bool) (int, error)
}

// gauge is a Store that knows how much room it has.
type gauge interface {
	free() (int64, error)
}

// locking is a Store whose objects cannot be deleted for some time after they were written.
type locking interface {
	lock() time.Duration
}

// LockedUntil is how long a store refuses to give an object up; the zero time where it does not.
func LockedUntil(s Store, o Object) time.Time {
	if l, ok := s.(locking); ok && l.lock() > 0 {
		return o.Modified.Add(l.lock())
	}
	return time.Time{}
}

// Free is how many bytes a store still has room for; not known where it has no end that can be asked for, like a bucket.
func Free(_ context.Context, s Store) (bytes int64, known bool, err error) {
	g, ok := s.(gauge)
	if !ok {
		return 0, false, nil
	}
	bytes, err = g.free()
	return bytes, err == nil, err
}

// checkName returns an error for what cannot be an object's name in every store.
func checkName(name string) error {
	if !filepath.IsLocal(name) || unfinished(name) || filepath.Clean(name) != name || name == "." {
		return fmt.Errorf("%q cannot be the name of an object", name)
	}
	return nil
}
