// Package storage keeps backups: objects that are written once, under a temporary name until they are complete.
package storage

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNotFound says that there is no object of the name.
var ErrNotFound = errors.New("no such object")

// ErrExists says that an object of the name is there already; objects are never replaced.
var ErrExists = errors.New("an object of this name is there already")

// Object is one stored object.
type Object struct {
	Name     string    `json:"name"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// Writer takes an object's content.
type Writer interface {
	io.Writer
	// Flush makes what was written last, still under the temporary name.
	Flush(ctx context.Context) error
	// Commit gives the object its name and makes that last. It returns ErrExists.
	Commit(ctx context.Context) error
	// Abort drops the object. After Commit it does nothing.
	Abort()
}

// Store holds objects. Names are paths with slashes.
type Store interface {
	// Create starts an object. Nobody sees it before its Commit.
	Create(ctx context.Context, name string) (Writer, error)
	// Open reads an object. It returns ErrNotFound.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat describes an object. It returns ErrNotFound.
	Stat(ctx context.Context, name string) (Object, error)
	// List returns the objects whose names begin with prefix, in the order of their names.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Remove deletes an object. One that is not there is no error.
	Remove(ctx context.Context, name string) error
	// Sweep removes what writers that have died left under temporary names, and returns how much that was.
	Sweep(ctx context.Context) (int, error)
}
