package backup_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
)

// shelf is a storage with backups that no database stands behind.
type shelf struct {
	*storage.Directory
	root string
}

func newShelf(t *testing.T) shelf {
	t.Helper()
	root := t.TempDir()
	store, err := storage.NewDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	return shelf{store, root}
}

// put stores archive, globals and manifest of a backup.
func (s shelf) put(t *testing.T, database, id string, at time.Time) backup.Manifest {
	t.Helper()
	m := backup.Manifest{
		FormatVersion: backup.FormatVersion, ID: id, Database: database, Archive: backup.ArchiveName(backup.Base(database, id, at), true),
		Encryption: backup.Encrypted,
		Bytes:      7, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("archive"))), StartedAt: at, EndedAt: at.Add(time.Minute),
		Contents: backup.Contents{Tables: []backup.Table{{Schema: "public", Name: "student", Rows: 3}}},
	}
	content, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, backup.ManifestName(m.Archive), content)
	s.write(t, m.Archive, []byte("archive"))
	s.write(t, strings.Replace(m.Archive, ".dump.", ".globals.sql.", 1), []byte("globals"))
	return m
}

func (s shelf) write(t *testing.T, name string, content []byte) {
	t.Helper()
	w, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s shelf) prove(t *testing.T, m backup.Manifest, drill string, at time.Time) {
	t.Helper()
	err := backup.WriteProof(t.Context(), s, backup.Proof{BackupID: m.ID, Database: m.Database, Archive: m.Archive,
		DrillID: drill, VerifiedAt: at, RestoreSeconds: 7.5, Tables: 1, Rows: 3})
	if err != nil {
		t.Fatal(err)
	}
}

func (s shelf) disprove(t *testing.T, m backup.Manifest, drill string, at time.Time) {
	t.Helper()
	err := backup.WriteDisproof(t.Context(), s, backup.Disproof{BackupID: m.ID, Database: m.Database, Archive: m.Archive,
		DrillID: drill, FoundAt: at, Reason: "The backup is damaged."})
	if err != nil {
		t.Fatal(err)
	}
}

func (s shelf) scan(t *testing.T, database string) []backup.Entry {
	t.Helper()
	entries, err := backup.Scan(t.Context(), s, database)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestScanTellsWhatStorageHas(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	day := 24 * time.Hour
	second := s.put(t, "student_db", "bbbbbbbbbb", started.Add(day))
	first := s.put(t, "student_db", "aaaaaaaaaa", started)
	s.put(t, "ops_db", "cccccccccc", started.Add(2*day))
	s.prove(t, first, "d000000001", started.Add(time.Hour))
	s.write(t, "student_db/readme.txt", []byte("what somebody has put there"))

	entries := s.scan(t, "")
	if len(entries) != 3 || entries[0].Manifest.ID != first.ID || entries[1].Manifest.ID != second.ID || entries[2].Manifest.Database != "ops_db" {
		t.Fatalf("found %+v, want three backups, the oldest first", entries)
	}
	got := entries[0]
	if !got.Verified() || got.Fault != nil || len(got.Objects) != 4 || got.Bytes() < 14 || !got.Manifest.StartedAt.Equal(started) {
		t.Errorf("the first is %+v, want a verified one of four objects", got)
	}
	if p := got.Proofs[0]; p.BackupID != first.ID || p.RestoreSeconds != 7.5 || p.Number != 1 || p.ManifestSHA256 != got.ManifestSHA256 || p.FormatVersion != backup.ProofVersion {
		t.Errorf("its proof is %+v", p)
	}
	if entries[1].Verified() || entries[1].Fault != nil {
		t.Errorf("the second is %+v, want stored, not proven", entries[1])
	}
	if one := s.scan(t, "ops_db"); len(one) != 1 || one[0].Manifest.Database != "ops_db" {
		t.Errorf("of one database: %+v", one)
	}
	if none := newShelf(t).scan(t, "student_db"); len(none) != 0 {
		t.Errorf("of an empty storage: %+v", none)
	}
}

func TestScanSaysWhyABackupDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm func(t *testing.T, s shelf, m backup.Manifest)
		says string
	}{
		"no archive": {func(t *testing.T, s shelf, m backup.Manifest) { remove(t, s, m.Archive) }, "the archive is missing"},
		"no manifest": {func(t *testing.T, s shelf, m backup.Manifest) {
			remove(t, s, backup.ManifestName(m.Archive))
		}, "manifest is missing"},
		"cut archive": {func(t *testing.T, s shelf, m backup.Manifest) {
			remove(t, s, m.Archive)
			s.write(t, m.Archive, []byte("arch"))
		}, "4 bytes, 7 were stored"},
		"broken manifest": {func(t *testing.T, s shelf, m backup.Manifest) {
			remove(t, s, backup.ManifestName(m.Archive))
			s.write(t, backup.ManifestName(m.Archive), []byte(`{"formatVersion": 1,`))
		}, "manifest cannot be read"},
		"another's manifest": {func(t *testing.T, s shelf, m backup.Manifest) {
			remove(t, s, backup.ManifestName(m.Archive))
			other := m
			other.ID = "zzzzzzzzzz"
			content, _ := other.Encode()
			s.write(t, backup.ManifestName(m.Archive), content)
		}, "that of"},
		"only a proof": {func(t *testing.T, s shelf, m backup.Manifest) {
			for _, o := range s.scan(t, "")[0].Objects {
				if !strings.Contains(o.Name, "proof") {
					remove(t, s, o.Name)
				}
			}
		}, "manifest is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			m := s.put(t, "student_db", "aaaaaaaaaa", started)
			s.prove(t, m, "d000000001", started)
			test.harm(t, s, m)
			entries := s.scan(t, "student_db")
			if len(entries) != 1 {
				t.Fatalf("found %d", len(entries))
			}
			e := entries[0]
			if e.Verified() || !errors.Is(e.Fault, backup.ErrDamaged) || e.Unclear() || !strings.Contains(e.Fault.Error(), test.says) {
				t.Errorf("verified %t, fault %v, want damaged: %s", e.Verified(), e.Fault, test.says)
			}
			if e.Manifest.ID != m.ID || e.Manifest.Database != m.Database || !e.Manifest.StartedAt.Equal(started) {
				t.Errorf("it is called %+v", e.Manifest)
			}
		})
	}
}

func remove(t *testing.T, s storage.Store, name string) {
	t.Helper()
	if err := s.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func TestTheLastWordOfADrillCounts(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	m := s.put(t, "student_db", "aaaaaaaaaa", started)
	s.prove(t, m, "d000000001", started)
	// The clock has gone back a year: what was written later still is the later word.
	s.disprove(t, m, "d000000002", started.AddDate(-1, 0, 0))
	if e := s.scan(t, "")[0]; e.Verified() || !e.Disproven() {
		t.Errorf("after it was disproven: %+v", e)
	}
	s.prove(t, m, "d000000003", started.AddDate(-1, 0, 1))
	if e := s.scan(t, "")[0]; !e.Verified() || e.Disproven() || len(e.Proofs) != 2 || e.Proofs[1].Number != 3 {
		t.Errorf("after it was proven again: %+v", e)
	}
	s.prove(t, m, "d000000003", started.AddDate(1, 0, 0)) // a second attempt of the same activity
	if e := s.scan(t, "")[0]; len(e.Proofs) != 2 || e.Proofs[1].Number != 3 {
		t.Errorf("a repeated proof changed %+v", e.Proofs)
	}
}

func TestAProofIsOfOneManifest(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	m := s.put(t, "student_db", "aaaaaaaaaa", started)
	s.prove(t, m, "d000000001", started)
	path := filepath.Join(s.root, filepath.FromSlash(backup.ManifestName(m.Archive)))
	m.Tables[0].Rows = 2
	doctored, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, doctored, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.scan(t, "")[0]; e.Verified() || len(e.Proofs) != 0 {
		t.Errorf("a doctored manifest is verified by the proof of another: %+v", e)
	}
	for name, p := range map[string]backup.Proof{
		"of no archive":      {BackupID: m.ID, Database: m.Database, Archive: "x", DrillID: "d000000001"},
		"of another backup":  {BackupID: "zzzzzzzzzz", Database: m.Database, Archive: m.Archive, DrillID: "d000000001"},
		"of a drill unnamed": {BackupID: m.ID, Database: m.Database, Archive: m.Archive},
		"with a path":        {BackupID: m.ID, Database: m.Database, Archive: m.Archive, DrillID: "../x"},
	} {
		if err := backup.WriteProof(t.Context(), s, p); err == nil {
			t.Errorf("a proof %s was written", name)
		}
	}
}

// failing cannot open what is named.
type failing struct {
	shelf
	name string
}

func (f failing) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.Contains(name, f.name) {
		return nil, errors.New("input/output error")
	}
	return f.shelf.Open(ctx, name)
}

func TestAStorageThatFailsIsNoDamage(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	m := s.put(t, "student_db", "aaaaaaaaaa", started)
	other := s.put(t, "student_db", "bbbbbbbbbb", started.Add(time.Hour))
	s.prove(t, m, "d000000001", started)
	s.prove(t, other, "d000000002", started)
	for _, object := range []string{"aaaaaaaaaa.manifest", "aaaaaaaaaa.proof"} {
		entries, err := backup.Scan(t.Context(), failing{s, object}, "student_db")
		if err != nil || len(entries) != 2 {
			t.Fatalf("%s: %v, %v", object, entries, err)
		}
		if e := entries[0]; !e.Unclear() || e.Verified() {
			t.Errorf("%s cannot be read: %v, want unclear", object, e.Fault)
		}
		if !entries[1].Verified() {
			t.Errorf("%s cannot be read: the other backup is %+v", object, entries[1])
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backup.Scan(ctx, s, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
