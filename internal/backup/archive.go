package backup

import (
	"cmp"
	"context"
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

// Save makes a backup: archive, globals and manifest under their final names, or none. Called again for a backup that is
// there, it returns that.
func (t Tools) Save(ctx context.Context, store storage.Store, r Request, meter *Meter) (Manifest, error) {
	base := Base(r.Source.Database, r.ID, r.Started)
	switch m, err := saved(ctx, store, base); {
	case err == nil:
		return m, nil
	case !errors.Is(err, storage.ErrNotFound):
		return Manifest{}, err
	}
	keys, err := t.Keys.Read()
	if err != nil {
		return Manifest{}, err
	}
	if err := keys.Ready(); err != nil {
		return Manifest{}, err
	}
	archive, err := t.create(ctx, store, ArchiveName(base, keys.on))
	if err != nil {
		return Manifest{}, err
	}
	defer archive.Abort()
	m, err := t.dump(ctx, r.Source, keys, archive, meter)
	if err != nil {
		return Manifest{}, err
	}
	m.ID, m.Archive = r.ID, ArchiveName(base, keys.on)
	if err := archive.Flush(ctx); err != nil {
		return Manifest{}, err
	}
	if err := t.finish(ctx, store, r.Source, keys, base, archive, &m); err != nil {
		if errors.Is(err, storage.ErrExists) { // another attempt was faster: what lies there is its
			return Manifest{}, err
		}
		return Manifest{}, errors.Join(err, clear(context.WithoutCancel(ctx), store, base))
	}
	return m, nil
}

// finish stores what belongs to an archive, and gives it its name last.
func (t Tools) finish(ctx context.Context, store storage.Store, source Source, keys Keys, base string, archive storage.Writer, m *Manifest) error {
	globals, warnings, err := t.saveGlobals(ctx, store, source, keys, GlobalsName(base, keys.on))
	if err != nil {
		return fmt.Errorf("save roles and grants of %s: %w", source.Database, err)
	}
	m.Globals, m.Warnings = globals, append(m.Warnings, warnings...)
	if err := t.writeManifest(ctx, store, *m); err != nil {
		return err
	}
	return archive.Commit(ctx)
}

// saved reads back a backup that an earlier attempt has finished. What an attempt left that died between the names is
// removed: it is no backup.
func saved(ctx context.Context, store storage.Store, base string) (Manifest, error) {
	for _, encrypted := range []bool{true, false} {
		archive := ArchiveName(base, encrypted)
		_, err := store.Stat(ctx, archive)
		if err == nil {
			_, err = store.Stat(ctx, ManifestName(archive))
		}
		if err == nil {
			return ReadManifest(ctx, store, archive)
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return Manifest{}, err
		}
	}
	if err := clear(ctx, store, base); err != nil {
		return Manifest{}, err
	}
	return Manifest{}, storage.ErrNotFound
}

// clear removes the objects of a backup that was not finished, the archive first: without it the others are nothing.
func clear(ctx context.Context, store storage.Store, base string) error {
	var failed error
	for _, name := range []string{ArchiveName(base, true), ArchiveName(base, false), GlobalsName(base, true), GlobalsName(base, false),
		ManifestName(ArchiveName(base, true))} {
		failed = errors.Join(failed, store.Remove(ctx, name))
	}
	return failed
}

func (t Tools) writeManifest(ctx context.Context, store storage.Store, m Manifest) error {
	content, err := m.Encode()
	if err != nil {
		return err
	}
	w, err := t.create(ctx, store, ManifestName(m.Archive))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return w.Commit(ctx)
}

// ReadManifest reads the manifest of an archive. It returns ErrDamaged when it is not a whole one.
func ReadManifest(ctx context.Context, store storage.Store, archive string) (Manifest, error) {
	content, err := readSmall(ctx, store, ManifestName(archive))
	if errors.Is(err, storage.ErrNotFound) {
		return Manifest{}, fmt.Errorf("%w: its manifest is missing", ErrDamaged)
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := decodeManifest(content)
	if err != nil {
		return Manifest{}, err
	}
	if m.Archive != archive {
		return Manifest{}, fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, m.Archive)
	}
	return m, nil
}

// Check reads an archive and compares size and hash with its manifest, and decrypts it. It returns ErrDamaged when it is not
// what was stored, ErrTampered when only the ciphertext says so, and the errors of the keys.
func (t Tools) Check(ctx context.Context, store storage.Store, m Manifest, meter *Meter) error {
	keys, err := t.Keys.Read()
	if err != nil && m.Encryption == Encrypted {
		return err
	}
	if err := keys.Opens(m.Encryption, m.Recipients); err != nil {
		return err
	}
	r, err := store.Open(ctx, m.Archive)
	if errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("%w: the archive is missing", ErrDamaged)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	source := &noting{Reader: reader{ctx, r}}
	stored := newStamp(meter)
	tee := io.TeeReader(source, stored)
	opened, tampered := keys.Open(tee, m.Encryption, m.Recipients)
	if tampered == nil {
		_, tampered = io.Copy(io.Discard, opened)
	}
	if _, err := io.Copy(io.Discard, tee); err != nil || source.err != nil { // what decryption has left
		return fmt.Errorf("read %s: %w", m.Archive, cmp.Or(source.err, err))
	}
	switch bytes, sum := stored.sum(); {
	case bytes != m.Bytes:
		return fmt.Errorf("%w: the archive has %d bytes, %d were stored", ErrDamaged, bytes, m.Bytes)
	case sum != m.SHA256:
		return fmt.Errorf("%w: the archive's SHA-256 is not the one that was stored", ErrDamaged)
	}
	return tampered
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
