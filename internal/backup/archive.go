package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/school-sms/sms/internal/storage"
)

// Request names a backup before it is made.
type Request struct {
	ID      string
	Source  Source
	Started time.Time
}

// Save makes a backup: archive and manifest under their final names, or neither. Called again for a backup that is
// there, it returns that.
func (t Tools) Save(ctx context.Context, store storage.Store, r Request, meter *Meter) (Manifest, error) {
	name := ArchiveName(r.Source.Database, r.ID, r.Started)
	switch m, err := saved(ctx, store, name); {
	case err == nil:
		return m, nil
	case !errors.Is(err, storage.ErrNotFound):
		return Manifest{}, err
	}
	archive, err := store.Create(ctx, name)
	if err != nil {
		return Manifest{}, err
	}
	defer archive.Abort()
	m, err := t.Dump(ctx, r.Source, archive, meter)
	if err != nil {
		return Manifest{}, err
	}
	m.ID, m.Archive = r.ID, name
	if err := archive.Flush(ctx); err != nil {
		return Manifest{}, err
	}
	if err := writeManifest(ctx, store, m); err != nil {
		return Manifest{}, err
	}
	if err := archive.Commit(ctx); err != nil {
		return Manifest{}, errors.Join(err, store.Remove(ctx, ManifestName(name)))
	}
	return m, nil
}

// saved reads back a backup that an earlier attempt has finished. A manifest without its archive is what an attempt
// left that died between the two: it is removed.
func saved(ctx context.Context, store storage.Store, name string) (Manifest, error) {
	if _, err := store.Stat(ctx, name); err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			err = errors.Join(err, store.Remove(ctx, ManifestName(name)))
		}
		return Manifest{}, err
	}
	return ReadManifest(ctx, store, name)
}

func writeManifest(ctx context.Context, store storage.Store, m Manifest) error {
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	w, err := store.Create(ctx, ManifestName(m.Archive))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(append(content, '\n')); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return w.Commit(ctx)
}

// ReadManifest reads the manifest of an archive. It returns ErrDamaged when it is not a whole one.
func ReadManifest(ctx context.Context, store storage.Store, archive string) (Manifest, error) {
	r, err := store.Open(ctx, ManifestName(archive))
	if errors.Is(err, storage.ErrNotFound) {
		return Manifest{}, fmt.Errorf("%w: its manifest is missing", ErrDamaged)
	}
	if err != nil {
		return Manifest{}, err
	}
	defer r.Close()
	var m Manifest
	if err := json.NewDecoder(r).Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%w: its manifest cannot be read: %w", ErrDamaged, err)
	}
	if err := m.Complete(); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if m.Archive != archive {
		return Manifest{}, fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, m.Archive)
	}
	return m, nil
}

// Check reads an archive and compares size and hash with its manifest. It returns ErrDamaged when they differ.
func Check(ctx context.Context, store storage.Store, m Manifest, meter *Meter) error {
	r, err := store.Open(ctx, m.Archive)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w: the archive is missing", ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(hash, meter), reader{ctx, r})
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Archive, err)
	}
	if n != m.Bytes {
		return fmt.Errorf("%w: the archive has %d bytes, %d were stored", ErrDamaged, n, m.Bytes)
	}
	if hex.EncodeToString(hash.Sum(nil)) != m.SHA256 {
		return fmt.Errorf("%w: the archive's SHA-256 is not the one that was stored", ErrDamaged)
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}
