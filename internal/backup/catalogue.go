package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/school-sms/sms/internal/storage"
)

// Entry is a backup as storage has it, whole or not.
type Entry struct {
	// Base is what the names of its objects begin with.
	Base string
	// Manifest has ID, Database and StartedAt in any case, taken from the objects' names where there is no good manifest.
	Manifest Manifest
	// ManifestSHA256 is that of the manifest as stored; empty where there is none.
	ManifestSHA256 string
	// Fault is why the backup does not count: no archive, or no manifest that fits it (ErrDamaged), or what kept it from
	// being looked at; nil for one that is whole by its looks. Only a drill tells more.
	Fault error
	// Proofs are those of this manifest, in the order in which they were written; so are Disproofs.
	Proofs    []Proof
	Disproofs []Disproof
	// Objects are all that is stored of it, in the order of their names.
	Objects []storage.Object
}

// Verified reports whether the backup counts: it is there, a drill has proven it, and none has disproven it since.
func (e Entry) Verified() bool { return e.Fault == nil && len(e.Proofs) > 0 && !e.Disproven() }

// Disproven reports whether a drill has found the backup to be bad, and none has proven it since.
func (e Entry) Disproven() bool {
	if len(e.Disproofs) == 0 {
		return false
	}
	if len(e.Proofs) == 0 {
		return true
	}
	bad, good := e.Disproofs[len(e.Disproofs)-1], e.Proofs[len(e.Proofs)-1]
	return cmp.Or(cmp.Compare(bad.Number, good.Number), bad.FoundAt.Compare(good.VerifiedAt)) >= 0
}

// Unclear reports whether the backup could not be looked at, so that nothing is known of it: its storage fails.
func (e Entry) Unclear() bool { return e.Fault != nil && !errors.Is(e.Fault, ErrDamaged) }

// HasArchive reports whether there is an archive, good or bad.
func (e Entry) HasArchive() bool {
	return slices.ContainsFunc(e.Objects, func(o storage.Object) bool { return partOf(o.Name) == partArchive })
}

// Order puts the objects in the order in which they are deleted: the archive first, so that there is one moment at which a
// backup stops to be one, and nothing that could be taken for a whole one before or after; the manifest last, so that no
// archive ever lies without it and what is left can say what it was.
func (e Entry) Order() []storage.Object {
	order := map[part]int{partArchive: 1, partGlobals: 2, partOther: 3, partProof: 4, partDisproof: 5, partManifest: 6}
	objects := slices.Clone(e.Objects)
	slices.SortStableFunc(objects, func(a, b storage.Object) int { return order[partOf(a.Name)] - order[partOf(b.Name)] })
	return objects
}

// State is verified, stored or failed.
func (e Entry) State() string {
	switch {
	case e.Verified():
		return StateVerified
	case e.Fault == nil && !e.Disproven():
		return StateStored
	}
	return StateFailed
}

// Bytes is how much of the storage it takes.
func (e Entry) Bytes() int64 {
	var sum int64
	for _, o := range e.Objects {
		sum += o.Bytes
	}
	return sum
}

// Scan reads what a storage holds of a database, or of every one if database is empty: the oldest first. What is wrong
// with a backup is its Fault; an error says that the storage cannot be listed.
func Scan(ctx context.Context, store storage.Store, database string) ([]Entry, error) {
	prefix := ""
	if database != "" {
		prefix = database + "/"
	}
	objects, err := store.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	found := map[string]int{}
	for _, o := range objects {
		name, ok := parseName(o.Name)
		if !ok {
			continue // not ours
		}
		i, known := found[name.base]
		if !known {
			i = len(entries)
			found[name.base] = i
			entries = append(entries, Entry{Base: name.base,
				Manifest: Manifest{ID: name.id, Database: name.database, StartedAt: name.started}})
		}
		entries[i].Objects = append(entries[i].Objects, o)
	}
	for i := range entries {
		entries[i].read(ctx, store)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(a.Manifest.StartedAt.Compare(b.Manifest.StartedAt), strings.Compare(a.Base, b.Base))
	})
	return entries, nil
}

// read fills in the manifest, what is wrong, and the words of drills.
func (e *Entry) read(ctx context.Context, store storage.Store) {
	e.Fault = e.readManifest(ctx, store)
	for _, o := range e.Objects {
		var err error
		switch partOf(o.Name) {
		case partProof:
			var p Proof
			err = readWord(ctx, store, o.Name, &p)
			if err == nil && p.ManifestSHA256 == e.ManifestSHA256 && e.ManifestSHA256 != "" {
				e.Proofs = append(e.Proofs, p)
			}
		case partDisproof:
			var d Disproof
			if err = readWord(ctx, store, o.Name, &d); err == nil {
				e.Disproofs = append(e.Disproofs, d)
			}
		}
		if err != nil && e.Fault == nil {
			e.Fault = err
		}
	}
	sortProofs(e.Proofs)
	sortDisproofs(e.Disproofs)
}

func (e *Entry) readManifest(ctx context.Context, store storage.Store) error {
	manifest := e.Base + manifestSuffix
	if !slices.ContainsFunc(e.Objects, func(o storage.Object) bool { return o.Name == manifest }) {
		return fmt.Errorf("%w: its manifest is missing", ErrDamaged)
	}
	content, err := readSmall(ctx, store, manifest)
	if err != nil {
		return fmt.Errorf("its manifest cannot be read for now: %w", err)
	}
	e.ManifestSHA256 = hashOf(content)
	m, err := decodeManifest(content)
	if err != nil {
		return err
	}
	if name, ok := parseName(m.Archive); !ok || name.base != e.Base || name.part != partArchive || m.ID != e.Manifest.ID || m.Database != e.Manifest.Database {
		return fmt.Errorf("%w: its manifest is that of %s", ErrDamaged, m.Archive)
	}
	e.Manifest = m
	i := slices.IndexFunc(e.Objects, func(o storage.Object) bool { return o.Name == m.Archive })
	if i < 0 {
		return fmt.Errorf("%w: the archive is missing", ErrDamaged)
	}
	if n := e.Objects[i].Bytes; n != m.Bytes {
		return fmt.Errorf("%w: the archive has %d bytes, %d were stored", ErrDamaged, n, m.Bytes)
	}
	return nil
}

// readWord reads what a drill has written. One that is damaged leaves open what the drill has found.
func readWord(ctx context.Context, store storage.Store, name string, word any) error {
	content, err := readSmall(ctx, store, name)
	if err == nil {
		err = json.Unmarshal(content, word)
	}
	if err != nil {
		return fmt.Errorf("what a drill found cannot be read: %s: %w", name, err)
	}
	return nil
}

func partOf(name string) part {
	n, _ := parseName(name)
	return n.part
}
