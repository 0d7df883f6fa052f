package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/storage/storagetest"
)

var keepAll = backup.Policy{KeepDays: 30, KeepMonths: 12, KeepVerified: 3}

func copyAll(t *testing.T, from, to storage.Store) (backup.Copied, error) {
	t.Helper()
	return backup.Tools{}.Copy(t.Context(), from, to, "student_db", keepAll, started.AddDate(0, 0, 9), &backup.Meter{})
}

// equal demands that the second storage has these backups, verified and byte for byte, and nothing else.
func equal(t *testing.T, from, to storage.Store, ids ...string) {
	t.Helper()
	entries, err := backup.Scan(t.Context(), to, "")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if e.Verified() {
			found = append(found, e.Manifest.ID)
		}
		for _, o := range e.Objects {
			if !bytes.Equal(storagetest.Get(t, from, o.Name), storagetest.Get(t, to, o.Name)) {
				t.Errorf("%s differs", o.Name)
			}
		}
	}
	if !slices.Equal(found, ids) {
		t.Errorf("verified in the second storage: %v, want %v", found, ids)
	}
}

func TestCopiesCatchUpAndAreWhole(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]func(t *testing.T) storage.Store{
		"a folder": func(t *testing.T) storage.Store { return newShelf(t) },
		"a bucket": func(t *testing.T) storage.Store { return storagetest.Serve(t, nil).Store(t, "copies") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newShelf(t), second(t)
			one := from.put(t, "student_db", "aaaaaaaaaa", started)
			from.prove(t, one, "d000000001", started.Add(time.Hour))
			from.put(t, "student_db", "bbbbbbbbbb", started.AddDate(0, 0, 1)) // not proven
			other := from.put(t, "temporal", "cccccccccc", started)
			from.prove(t, other, "d000000002", started.Add(time.Hour))
			if done, err := copyAll(t, from, to); err != nil || done.Backups != 1 || done.Objects < 3 || done.Bytes <= one.Bytes {
				t.Fatalf("copied %+v, %v", done, err)
			}
			equal(t, from, to, "aaaaaaaaaa")
			if done, err := copyAll(t, from, to); err != nil || done != (backup.Copied{}) {
				t.Errorf("a second run copied %+v, %v", done, err)
			}
			for i, id := range []string{"dddddddddd", "eeeeeeeeee"} { // of which two runs knew nothing
				m := from.put(t, "student_db", id, started.AddDate(0, 0, 2+i))
				from.prove(t, m, "d00000000"+string(rune('3'+i)), started.AddDate(0, 0, 2+i))
			}
			from.prove(t, one, "d000000009", started.AddDate(0, 0, 5)) // proven again
			if done, err := copyAll(t, from, to); err != nil || done.Backups != 3 {
				t.Errorf("catching up: %+v, %v", done, err)
			}
			equal(t, from, to, "aaaaaaaaaa", "dddddddddd", "eeeeeeeeee")
		})
	}
}

// TestACopyReplacesWhatDeadAttemptsLeft: an archive without its manifest was not read back yet.
func TestACopyReplacesWhatDeadAttemptsLeft(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]func(whole []byte) []byte{
		"cut":      func(whole []byte) []byte { return whole[:len(whole)/2] },
		"changed":  func(whole []byte) []byte { whole[len(whole)/2] ^= 1; return whole },
		"complete": func(whole []byte) []byte { return whole },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newShelf(t), newShelf(t)
			m := from.put(t, "student_db", "aaaaaaaaaa", started)
			from.prove(t, m, "d000000001", started.Add(time.Hour))
			storagetest.Put(t, to, m.Archive, left(storagetest.Get(t, from, m.Archive)))
			if _, err := copyAll(t, from, to); err != nil {
				t.Fatal(err)
			}
			equal(t, from, to, "aaaaaaaaaa")
		})
	}
}

func TestADamagedBackupIsNotCopiedAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	from, to := newShelf(t), newShelf(t)
	for i, id := range []string{"aaaaaaaaaa", "bbbbbbbbbb"} {
		m := from.put(t, "student_db", id, started.AddDate(0, 0, i))
		from.prove(t, m, "d00000000"+string(rune('1'+i)), started.AddDate(0, 0, i))
		if id == "bbbbbbbbbb" { // the newer one, which is copied first
			content := storagetest.Get(t, from, m.Archive)
			content[0] ^= 1
			remove(t, from, m.Archive)
			storagetest.Put(t, from, m.Archive, content)
		}
	}
	if _, err := copyAll(t, from, to); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("%v, want damaged", err)
	}
	equal(t, from, to, "aaaaaaaaaa")
}

// forgetful gives other bytes back than it was given.
type forgetful struct{ storage.Store }

func (f forgetful) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := f.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	content[0] ^= 1
	return io.NopCloser(bytes.NewReader(content)), err
}

func TestACopyThatComesBackOtherwiseIsRemoved(t *testing.T) {
	t.Parallel()
	from, to := newShelf(t), newShelf(t)
	m := from.put(t, "student_db", "aaaaaaaaaa", started)
	from.prove(t, m, "d000000001", started.Add(time.Hour))
	if _, err := copyAll(t, from, forgetful{to}); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("%v, want corrupt", err)
	}
	if names := storagetest.Names(t, to, ""); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}
