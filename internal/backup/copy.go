package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/school-sms/sms/internal/storage"
)

// Copied is what a copy to another storage has come to.
type Copied struct {
	// Backups are those of which something was copied, also if only a later proof; Objects and Bytes are what was.
	Backups int   `json:"backups"`
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Copy brings what the policy keeps of a database's verified backups from one storage to another, under the same names,
// the newest first: what lacks there, whatever the reason. Of each backup the archive and the globals come first and the
// manifest after them, so that one with a manifest is whole; then the words of drills, those too that were spoken since the
// backup was copied: without them it counts nothing there. Every object is compared with its manifest while it is read, and
// read back. That a drill has found the backup bad is not copied as long as none has found it good again: it was of the first
// storage's bytes. A backup that cannot be copied does not hold up the others; the error tells of all.
func (t Tools) Copy(ctx context.Context, from, to storage.Store, database string, policy Policy, now time.Time, meter *Meter) (Copied, error) {
	entries, err := Scan(ctx, from, database)
	if err != nil {
		return Copied{}, err
	}
	there, err := Scan(ctx, to, database)
	if err != nil {
		return Copied{}, fmt.Errorf("look at the second storage: %w", err)
	}
	c := copying{Tools: t, from: from, to: to, meter: meter, there: map[string]Entry{}}
	for _, e := range there {
		c.there[e.Base] = e
	}
	var faults []error
	for _, e := range keptEntries(entries, policy, now) {
		before := c.done
		if err := c.backup(ctx, e); err != nil {
			faults = append(faults, fmt.Errorf("copy backup %s: %w", e.Manifest.ID, err))
			if ctx.Err() != nil || errors.Is(err, storage.ErrFull) {
				break
			}
			continue
		}
		if c.done != before {
			c.done.Backups++
		}
	}
	return c.done, errors.Join(faults...)
}

// keptEntries are the verified backups that the policy keeps for their own sake, the newest first. What is kept only
// because something uses it, or because its storage has locked it, is not worth a copy that retention would delete again.
func keptEntries(entries []Entry, policy Policy, now time.Time) []Entry {
	candidates := make([]Candidate, len(entries))
	for i, e := range entries {
		candidates[i] = Candidate{Entry: e}
	}
	keep := map[string]bool{}
	for _, v := range policy.Decide(candidates, now) {
		keep[v.Base] = v.Keep
	}
	kept := slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return !e.Verified() || !keep[e.Base] })
	slices.Reverse(kept)
	return kept
}

// copying is one run of Copy.
type copying struct {
	Tools
	from, to storage.Store
	// there is what the second storage has, by base.
	there map[string]Entry
	meter *Meter
	done  Copied
}

// backup copies what lacks of one backup: a later drill's proof, or all of it. Where the second storage has the manifest, what
// that speaks of was read back before; what else is there is of an attempt that died, and is compared now.
func (c *copying) backup(ctx context.Context, e Entry) error {
	copied := c.there[e.Base]
	whole := copied.Fault == nil && copied.ManifestSHA256 == e.ManifestSHA256
	sizes := map[string]int64{}
	for _, o := range copied.Objects {
		sizes[o.Name] = o.Bytes
	}
	known := map[string]string{e.Manifest.Archive: e.Manifest.SHA256, ManifestName(e.Manifest.Archive): e.ManifestSHA256}
	if g := e.Manifest.Globals; g != nil {
		known[g.Object] = g.SHA256
	}
	for _, o := range copyOrder(e.Objects) {
		if bytes, found := sizes[o.Name]; found {
			if bytes == o.Bytes && whole {
				continue
			}
			same, err := c.same(ctx, o, bytes, known[o.Name])
			if err != nil {
				return err
			}
			if same {
				continue
			}
			if err := c.to.Remove(ctx, o.Name); err != nil {
				return err
			}
		}
		if err := c.object(ctx, o, known[o.Name]); err != nil {
			return err
		}
		c.done.Objects++
		c.done.Bytes += o.Bytes
	}
	return nil
}

// copyOrder puts the manifest after what it speaks of, and drills' words after the manifest, the good ones first.
func copyOrder(objects []storage.Object) []storage.Object {
	order := map[part]int{partArchive: 1, partGlobals: 2, partOther: 2, partManifest: 3, partProof: 4, partDisproof: 5}
	return slices.SortedStableFunc(slices.Values(objects), func(a, b storage.Object) int {
		return cmp.Compare(order[partOf(a.Name)], order[partOf(b.Name)])
	})
}

// object copies one object. A known hash is compared before the copy has its name, and the copy's own after it.
func (c *copying) object(ctx context.Context, o storage.Object, known string) error {
	r, err := c.from.Open(ctx, o.Name)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := c.create(ctx, c.to, o.Name)
	if err != nil {
		return err
	}
	defer w.Abort()
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash, c.meter), reader{ctx, r})
	if err != nil {
		return fmt.Errorf("copy %s: %w", o.Name, err)
	}
	read := hex.EncodeToString(hash.Sum(nil))
	if n != o.Bytes || known != "" && read != known {
		return fmt.Errorf("%w: %s is not what was stored", ErrDamaged, o.Name)
	}
	if err := w.Commit(ctx); err != nil {
		return err
	}
	back, err := c.hash(ctx, c.to, o.Name)
	if err == nil && back != read {
		err = fmt.Errorf("%w: the copy of %s has another SHA-256", storage.ErrCorrupt, o.Name)
	}
	if errors.Is(err, storage.ErrCorrupt) {
		err = errors.Join(err, c.to.Remove(ctx, o.Name))
	}
	return err
}

// same reports whether the second storage has the object as the first has it; known is its hash, or empty.
func (c *copying) same(ctx context.Context, o storage.Object, bytes int64, known string) (bool, error) {
	if bytes != o.Bytes {
		return false, nil
	}
	if known == "" {
		hash, err := c.hash(ctx, c.from, o.Name)
		if err != nil {
			return false, err
		}
		known = hash
	}
	hash, err := c.hash(ctx, c.to, o.Name)
	if errors.Is(err, storage.ErrCorrupt) {
		return false, nil
	}
	return hash == known, err
}

func (c *copying) hash(ctx context.Context, store storage.Store, name string) (string, error) {
	r, err := store.Open(ctx, name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(hash, c.meter), reader{ctx, r}); err != nil {
		return "", fmt.Errorf("read %s back: %w", name, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
