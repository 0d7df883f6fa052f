package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
)

// How much is tried of what takes long; `make soak-backups` tries all.
const (
	doctoredCuts = "SMS_BACKUP_CUTS"    // of 50
	writerRuns   = "SMS_BACKUP_WRITERS" // of 100
)

func often(t *testing.T, name string, fallback int) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv(name))
	if os.Getenv(name) == "" {
		return fallback
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// plain is what pg_dump wrote of a backup.
func (f fixture) plain(t *testing.T, m backup.Manifest) []byte {
	t.Helper()
	text, err := os.ReadFile(f.Keys.Identities)
	if err != nil {
		t.Fatal(err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := f.store.Open(t.Context(), m.Archive)
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	opened, err := age.Decrypt(stored, identities...)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := zstd.NewReader(opened)
	if err != nil {
		t.Fatal(err)
	}
	defer unpacked.Close()
	content, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// doctor stores other content in place of what pg_dump wrote, whole and encrypted for the right key, with a manifest whose hash fits.
func (f fixture) doctor(t *testing.T, m backup.Manifest, content []byte) backup.Manifest {
	t.Helper()
	text, err := os.ReadFile(f.Keys.Recipients)
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := age.ParseRecipients(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	sealed, err := age.Encrypt(&archive, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := zstd.NewWriter(sealed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = packed.Write(content)
	for _, end := range []func() error{packed.Close, sealed.Close} {
		if err == nil {
			err = end()
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(f.root, filepath.FromSlash(m.Archive)), archive.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(archive.Bytes())
	m.Bytes, m.SHA256, m.DumpBytes = int64(archive.Len()), hex.EncodeToString(sum[:]), int64(len(content))
	return m
}

// TestDumpsThatWereCutAreNeverVerified: pg_restore takes some of them for whole ones, so only what came back tells.
func TestDumpsThatWereCutAreNeverVerified(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 100)
	m := f.save(t, "aaaaaaaaaa")
	whole := f.plain(t, m)
	if differences, err := f.drill(t, f.doctor(t, m, whole), "whole00001"); err != nil || len(differences) > 0 {
		t.Fatalf("packed again: %v, %v", differences, err)
	}
	const all = 50
	n := often(t, doctoredCuts, 6)
	found := map[string]int{}
	for i := range n {
		at := len(whole) * (i*all/n + 1) / (all + 1)
		if i%2 == 0 { // where a row ends, or a line of a definition
			at = bytes.LastIndexByte(whole[:at], '\n') + 1
		}
		differences, err := f.drill(t, f.doctor(t, m, whole[:at]), fmt.Sprintf("cut%07d", i))
		switch {
		case err != nil:
			found["refused"]++
		case len(differences) > 0:
			found["different"]++
		default:
			t.Errorf("cut at %d of %d bytes, it was verified", at, len(whole))
		}
	}
	t.Logf("of %d dumps that were cut, with right hashes, found: %v", n, found)
}

// TestConcurrentWritersCauseNoFalseFailure: what a backup says that it holds is what it holds, whoever writes meanwhile.
func TestConcurrentWritersCauseNoFalseFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1000)
	backuptest.Exec(t, f.Database, "set role "+backuptest.Owner+"; create sequence number; create table counter (n bigint not null); insert into counter values (0)")
	writing, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for _, statement := range []string{
		`insert into student (name, note) select 'late ' || i, md5(random()::text) from generate_series(1, 20) as i; ` +
			`delete from student where id > 1000 and id < (select max(id) - 500 from student)`,
		`update student set note = md5(note) where id = 1 + (random() * 999)::int; update counter set n = n + 1`,
		`delete from archive.event where student_id in (select id from student order by random() limit 12)`,
		`insert into archive.event select id, date '2025-12-28' + (id % 9)::int from student where id <= 1000 order by random() limit 10`,
		`select nextval('number'), nextval('number'); insert into cache values (gen_random_uuid()::text)`,
		`delete from cache; vacuum student`,
	} {
		writers.Go(func() {
			conn := backuptest.Connect(t, f.Database)
			defer conn.Close(context.Background())
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for ; writing.Err() == nil; <-pace.C {
				for one := range strings.SplitSeq(statement, "; ") {
					if _, err := conn.Exec(context.Background(), one); err != nil {
						t.Errorf("%s: %v", one, err)
						return
					}
				}
			}
		})
	}
	n := often(t, writerRuns, 3)
	rows := map[int64]bool{}
	for i := range n {
		id := fmt.Sprintf("w%09d", i)
		m := f.save(t, id)
		rows[m.Rows()] = true
		scratch := backup.ScratchName(f.Database, id)
		found, err := f.Prove(t.Context(), f.store, m, f.Source, scratch, &backup.Meter{})
		if err != nil || len(found.Differences) > 0 {
			t.Errorf("backup %d: differences %v, %v", i, found.Differences, err)
		}
		if err := backup.DropScratch(t.Context(), f.Source, scratch); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	writers.Wait()
	if len(rows) < n/2 {
		t.Errorf("%d backups held only %d numbers of rows: nobody wrote", n, len(rows))
	}
	t.Logf("%d backups while six others wrote, all as their snapshots were", n)
}
