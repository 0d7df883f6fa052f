package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
)

// damages says how many bits are flipped; there is a quarter as many cuts of each kind. Unset: 8.
const damages = "SMS_BACKUP_DAMAGES"

const damagedStudents = 400

// packed is a backup as it lies in storage, and what is in it.
type packed struct {
	fixture
	manifest backup.Manifest
	// stored is encrypted, compressed is not any more, dump is what pg_dump wrote.
	stored, compressed, dump []byte
}

func newPacked(t *testing.T) packed {
	t.Helper()
	f := newFixture(t, damagedStudents) // several chunks of encryption and blocks of compression
	p := packed{fixture: f, manifest: f.save(t, "aaaaaaaaaa")}
	var err error
	if p.stored, err = os.ReadFile(filepath.Join(f.root, filepath.FromSlash(p.manifest.Archive))); err != nil {
		t.Fatal(err)
	}
	compressed, err := open(readKeys(t, f.Keys), p.stored, p.manifest.Recipients)
	if err != nil {
		t.Fatal(err)
	}
	p.compressed = []byte(compressed)
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	if p.dump, err = decoder.DecodeAll(p.compressed, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// encrypted encrypts what somebody who has the keys has doctored; packed has compressed it before.
func (p packed) encrypted(t *testing.T, compressed []byte) []byte {
	t.Helper()
	return seal(t, readKeys(t, p.Keys), string(compressed))
}

func (p packed) packed(t *testing.T, dump []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.encrypted(t, encoder.EncodeAll(dump, nil))
}

// A damage is one backup that is not what it was.
type damage struct {
	kind, where string
	// archive and manifest are what then lies in storage.
	archive, manifest []byte
	// found are the errors of which the drill must return one.
	found []error
	// unchecked leaves out the reading of the archive before the restore, which must find it as well.
	unchecked bool
}

// of makes a damage that the manifest knows nothing of.
func (p packed) of(t *testing.T, kind string, at int, archive []byte, found ...error) damage {
	t.Helper()
	manifest, err := p.manifest.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return damage{kind: kind, where: fmt.Sprintf("%s at %d", kind, at), archive: archive, manifest: manifest, found: found}
}

// fitting makes one whose manifest was made to fit: size and hash are right.
func (p packed) fitting(t *testing.T, kind string, at int, archive []byte, found ...error) damage {
	t.Helper()
	sum := sha256.Sum256(archive)
	p.manifest.Bytes, p.manifest.SHA256 = int64(len(archive)), hex.EncodeToString(sum[:])
	return p.of(t, kind, at, archive, found...)
}

// errDifferent says that a drill has restored a backup and found in it what is not in its manifest.
var errDifferent = errors.New("different")

// verify does with a backup what a drill does, up to the proof. It reports what was found, and whether the backup counts as verified.
func (p packed) verify(ctx context.Context, root string, d damage, id string) (found error, verified bool, err error) {
	store, err := storage.NewDirectory(root)
	if err != nil {
		return nil, false, err
	}
	archive := p.manifest.Archive
	for name, content := range map[string][]byte{archive: d.archive, backup.ManifestName(archive): d.manifest} {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			return nil, false, err
		}
	}
	if found = p.drillOnce(ctx, store, d.unchecked, id); found == nil {
		err = backup.WriteProof(ctx, store, backup.Proof{BackupID: p.manifest.ID, Database: p.Database, Archive: archive, DrillID: id, VerifiedAt: started})
	}
	entries, scanErr := backup.Scan(ctx, store, "")
	if err := errors.Join(err, scanErr, os.RemoveAll(root)); err != nil || len(entries) != 1 {
		return found, false, fmt.Errorf("%d entries: %w", len(entries), err)
	}
	return found, entries[0].Verified(), nil
}

func (p packed) drillOnce(ctx context.Context, store storage.Store, unchecked bool, id string) error {
	m, err := backup.ReadManifest(ctx, store, p.manifest.Archive)
	if err == nil && !unchecked {
		err = p.Check(ctx, store, m, &backup.Meter{})
	}
	if err != nil {
		return err
	}
	scratch := backup.ScratchName(p.Database, id)
	proven, err := p.Prove(ctx, store, m, p.Source, scratch, &backup.Meter{})
	if err == nil && len(proven.Differences) > 0 {
		err = fmt.Errorf("%w: %s", errDifferent, strings.Join(proven.Differences, "; "))
	}
	return errors.Join(err, backup.DropScratch(ctx, p.Source, scratch))
}

// spread picks n of what there is, evenly, the first and the last among them.
func spread(all []int, n int) []int {
	if len(all) <= n {
		return all
	}
	picked := make([]int, n)
	for i := range picked {
		picked[i] = all[i*(len(all)-1)/max(n-1, 1)]
	}
	return picked
}

// places are n places of so many bytes, a half of them boundaries.
func places(bytes, n int, boundaries []int) []int {
	picked := spread(boundaries, n/2)
	return append(picked, spread(numbers(bytes), n-len(picked))...)
}

// chunkBoundaries are where an encrypted file's header, its nonce and its chunks end (age-encryption.org/v1).
func chunkBoundaries(stored []byte) []int {
	const nonce, chunk = 16, 64<<10 + 16
	mac := bytes.Index(stored, []byte("\n--- ")) + 1
	header := mac + bytes.IndexByte(stored[mac:], '\n') + 1
	found := []int{header}
	for at := header + nonce; at < len(stored); at += chunk {
		found = append(found, at)
	}
	return found
}

// blockBoundaries are where a compressed file's header and its blocks end, the last of which a checksum follows (RFC 8878).
func blockBoundaries(t *testing.T, compressed []byte) []int {
	t.Helper()
	var header zstd.Header
	if err := header.Decode(compressed); err != nil {
		t.Fatal(err)
	}
	found := []int{0, header.HeaderSize}
	for at, last := header.HeaderSize, false; !last; {
		word := int(compressed[at]) | int(compressed[at+1])<<8 | int(compressed[at+2])<<16
		last = word&1 == 1
		size := word >> 3
		if word>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		at += 3 + size
		found = append(found, at)
	}
	if end := found[len(found)-1]; end != len(compressed)-4 || len(found) < 4 {
		t.Fatalf("blocks end at %v of %d bytes", found, len(compressed))
	}
	return found
}

// piece is one row of a table as it stands in a dump, its length before it, from and to.
type piece struct{ from, to int }

// pieces finds rows in a dump in pg_dump's custom format, which writes a row as a sign, four bytes of its length, and its text.
func (p packed) pieces(t *testing.T, begins func(id int) string) []piece {
	t.Helper()
	var found []piece
	for id := 1; id <= damagedStudents; id++ {
		const before = 1 + 4
		text, from := []byte(begins(id)), 0
		for { // not the end of a row that ends alike
			at := bytes.Index(p.dump[from:], text)
			if at < 0 {
				t.Fatalf("the dump holds no piece %q", text)
			}
			from += at
			if row := p.dump[from:]; p.dump[from-before] == 0 {
				length := int(binary.LittleEndian.Uint32(p.dump[from-before+1:]))
				if length <= len(row) && bytes.IndexByte(row, '\n') == length-1 {
					found = append(found, piece{from - before, from + length})
					break
				}
			}
			from++
		}
	}
	return found
}

func student(id int) string { return fmt.Sprintf("%d\tstudent %d\t", id, id) }

func event(id int) string {
	return fmt.Sprintf("%d\t%s\n", id, time.Date(2025, 12, 30+id%5, 0, 0, 0, 0, time.UTC).Format(time.DateOnly))
}

func flipped(content []byte, at, bit int) []byte {
	changed := bytes.Clone(content)
	changed[at] ^= 1 << (bit % 8)
	return changed
}

// damages makes flips of bits, and cuts of each kind a quarter as many.
func (p packed) damages(t *testing.T, flips int) (all []damage) {
	t.Helper()
	cuts := flips / 4
	add := func(d ...damage) { all = append(all, d...) }
	damaged, tampered, rejected := backup.ErrDamaged, backup.ErrTampered, backup.ErrRejected
	chunks := chunkBoundaries(p.stored)
	edges := append(spread(numbers(chunks[0]), flips/8), spread(numbers(len(p.stored))[chunks[len(chunks)-1]:], flips/8)...) // header and last chunk
	for i, at := range places(len(p.stored), flips, edges) {
		content := flipped(p.stored, at, i)
		add(p.of(t, "bit flipped in the archive", at, content, damaged),
			p.fitting(t, "bit flipped, hash made to fit", at, content, tampered))
		if i%4 == 0 {
			d := p.fitting(t, "bit flipped, hash made to fit, restored unchecked", at, content, damaged)
			d.unchecked = true
			add(d)
		}
	}
	for _, at := range places(len(p.stored), cuts, chunks) {
		content := p.stored[:at]
		add(p.of(t, "archive cut", at, content, damaged))
		if at > 0 { // a manifest of no bytes is none
			d := p.fitting(t, "archive cut, hash made to fit, restored unchecked", at, content, damaged)
			d.unchecked = true
			add(p.fitting(t, "archive cut, hash made to fit", at, content, tampered), d)
		}
	}
	for _, at := range places(len(p.compressed), cuts, blockBoundaries(t, p.compressed)) {
		add(p.fitting(t, "compressed dump cut, encrypted anew", at, p.encrypted(t, p.compressed[:at]), damaged, rejected))
	}
	students, events := p.pieces(t, student), p.pieces(t, event)
	var ends []int
	for _, row := range students {
		ends = append(ends, row.to)
	}
	for i, at := range spread(ends, cuts) {
		if i%2 == 1 {
			at += 5 // what ends a table's rows, after the last one; else the length of the next row
		}
		add(p.fitting(t, "dump cut at the end of a row, packed anew", at, p.packed(t, p.dump[:at]), damaged, rejected, errDifferent))
	}
	for i := range cuts {
		row := events[i*(len(events)-1)/cuts]
		add(p.fitting(t, "a row taken out of the dump, packed anew", row.from, p.packed(t, slices.Delete(bytes.Clone(p.dump), row.from, row.to)), errDifferent))
		row = students[i*(len(students)-1)/cuts]
		at := row.to - 2 - i%900 // in the note
		add(p.fitting(t, "bit flipped in a row of the dump, packed anew", at, p.packed(t, flipped(p.dump, at, i)), rejected, errDifferent))
	}
	manifest := p.of(t, "", 0, nil).manifest
	for i, at := range spread(numbers(len(manifest)), flips) {
		d := p.of(t, "bit flipped in the manifest", at, p.stored, damaged)
		d.manifest = flipped(manifest, at, i)
		add(d)
	}
	for _, at := range spread(numbers(len(manifest)), cuts) {
		d := p.of(t, "manifest cut", at, p.stored, damaged)
		d.manifest = manifest[:at]
		add(d)
	}
	return all
}

// numbers are 0 to n-1.
func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestDamagesAreFoundAndNeverVerified damages a backup as storage, or somebody who can write there, with the keys or without, could.
func TestDamagesAreFoundAndNeverVerified(t *testing.T) {
	t.Parallel()
	p := newPacked(t)
	whole := p.fitting(t, "nothing but packed anew", 0, p.packed(t, p.dump))
	if found, verified, err := p.verify(t.Context(), filepath.Join(t.TempDir(), "whole"), whole, "d000000000"); !verified || found != nil || err != nil {
		t.Fatalf("what is whole is not verified: %v, %v", found, err)
	}
	all := p.damages(t, numberOf(t, damages, 8))
	results := make([]string, len(all))
	root := t.TempDir()
	var work errgroup.Group
	work.SetLimit(2)
	for i, d := range all {
		work.Go(func() error {
			found, verified, err := p.verify(t.Context(), filepath.Join(root, fmt.Sprint(i)), d, fmt.Sprintf("d%09d", i+1))
			expected := slices.ContainsFunc(d.found, func(want error) bool { return errors.Is(found, want) })
			if err != nil || verified || !expected {
				t.Errorf("%s: found %v, verified %t, %v", d.where, found, verified, err)
				return nil
			}
			results[i] = classOf(found)
			return nil
		})
	}
	_ = work.Wait()
	t.Log("\n" + tableOf(all, results))
}

// classOf names what was found, the more special first.
func classOf(found error) string {
	for _, class := range []struct {
		err  error
		name string
	}{{backup.ErrTampered, "tampered"}, {backup.ErrDamaged, "damaged"}, {backup.ErrRejected, "rejected"}, {errDifferent, "different"}} {
		if errors.Is(found, class.err) {
			return class.name
		}
	}
	return "something else"
}

// tableOf counts damages by kind and by what was found.
func tableOf(all []damage, results []string) string {
	var kinds []string
	injected, found := map[string]int{}, map[string]map[string]int{}
	for i, d := range all {
		if injected[d.kind] == 0 {
			kinds = append(kinds, d.kind)
			found[d.kind] = map[string]int{}
		}
		injected[d.kind]++
		if results[i] != "" {
			found[d.kind][results[i]]++
		}
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "DAMAGE\tTIMES\tFOUND TO BE")
	for _, kind := range kinds {
		var classes []string
		for _, name := range slices.Sorted(maps.Keys(found[kind])) {
			classes = append(classes, fmt.Sprintf("%s %d", name, found[kind][name]))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", kind, injected[kind], strings.Join(classes, ", "))
	}
	_ = w.Flush()
	return text.String()
}
