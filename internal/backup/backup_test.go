package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/backup/backuptest"
	"github.com/school-sms/sms/internal/storage"
)

var started = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)

type fixture struct {
	backup.Source
	backup.Tools
	store storage.Store
	root  string
}

func newFixture(t *testing.T, students int) fixture {
	t.Helper()
	root := t.TempDir()
	store, err := storage.NewDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	return fixture{Source: backuptest.New(t, students), Tools: backup.Tools{Keys: backuptest.Keys(t)}, store: store, root: root}
}

func (f fixture) save(t *testing.T, id string) backup.Manifest {
	t.Helper()
	m, err := f.Save(t.Context(), f.store, backup.Request{ID: id, Source: f.Source, Started: started}, &backup.Meter{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// drill restores and compares, as the drill's activities do.
func (f fixture) drill(t *testing.T, m backup.Manifest, id string) ([]string, error) {
	t.Helper()
	scratch := backup.ScratchName(f.Database, id)
	t.Cleanup(func() {
		if err := backup.DropScratch(context.Background(), f.Source, scratch); err != nil {
			t.Error(err)
		}
	})
	if err := f.Check(t.Context(), f.store, m, &backup.Meter{}); err != nil {
		return nil, err
	}
	found, err := f.Prove(t.Context(), f.store, m, f.Source, scratch, &backup.Meter{})
	return found.Differences, err
}

func (f fixture) files(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(f.root, f.Database, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, _ := filepath.Glob(filepath.Join(f.root, f.Database, ".*"))
	return append(files, hidden...)
}

func TestABackupIsItsSnapshotWhileOthersWrite(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 2000)
	writing, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for writing.Err() == nil {
			backuptest.Exec(t, f.Database, `insert into student (name, note) select 'late', 'late' from generate_series(1, 50)`)
		}
	})
	m := f.save(t, "aaaaaaaaaa")
	stop()
	wg.Wait()
	if len(m.Tables) != 5 || m.Rows() < 4000 || m.Bytes <= 0 || m.LSN == "" || len(m.Warnings) != 0 {
		t.Errorf("manifest %+v", m)
	}
	differences, err := f.drill(t, m, "d000000001")
	if err != nil || len(differences) != 0 {
		t.Errorf("differences %v, %v", differences, err)
	}
	if again := f.save(t, "aaaaaaaaaa"); again.SHA256 != m.SHA256 {
		t.Error("a second attempt did not take the backup that is there")
	}
	if files := f.files(t); len(files) != 3 {
		t.Errorf("files %v, want archive, globals and manifest", files)
	}
}

func TestDamagedBackupsDoNotVerify(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 300)
	m := f.save(t, "aaaaaaaaaa")
	path := filepath.Join(f.root, filepath.FromSlash(m.Archive))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Check(t.Context(), f.store, m, &backup.Meter{}); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v, want damaged", name, err)
		}
	}
	for i := range 50 {
		damage("cut at "+strconv.Itoa(i), whole[:len(whole)*i/50])
	}
	for i := range 200 {
		flipped := bytes.Clone(whole)
		flipped[len(whole)*i/200] ^= 1 << (i % 8)
		damage("flipped at "+strconv.Itoa(i), flipped)
	}
	damage("longer", append(bytes.Clone(whole), 0))

	// Even with a hash that fits, a cut archive does not restore.
	if err := os.WriteFile(path, whole[:len(whole)*2/3], 0o600); err != nil {
		t.Fatal(err)
	}
	scratch := backup.ScratchName(f.Database, "d000000001")
	if err := func() error {
		_, err := f.Prove(t.Context(), f.store, m, f.Source, scratch, &backup.Meter{})
		return err
	}(); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("restore of a cut archive: %v, want damaged", err)
	}
	if err := backup.DropScratch(t.Context(), f.Source, scratch); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.Check(t.Context(), f.store, m, &backup.Meter{}); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("without an archive: %v, want damaged", err)
	}
}

func TestAnArchiveThatLacksARowIsFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 100)
	full := f.save(t, "aaaaaaaaaa")
	backuptest.Exec(t, f.Database, `delete from archive.event where student_id = 7`)
	doctored := f.save(t, "bbbbbbbbbb") // its hash is right
	doctored.Contents = full.Contents
	differences, err := f.drill(t, doctored, "d000000001")
	if err != nil || len(differences) != 1 || !strings.Contains(differences[0], "archive.event_202") {
		t.Errorf("differences %q (%v), want the table that lacks a row", differences, err)
	}
}

func TestWhatIsNoArchiveIsRejected(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 10)
	m := f.save(t, "aaaaaaaaaa")
	other := newFixture(t, 10)
	w, err := f.store.Create(t.Context(), "x/not-an-archive.dump.zst")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x05, 0x29, 0x00, 0x00, 'h', 'e', 'l', 'l', 'o', 0xb6, 0x6a, 0x5a, 0xcf})
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Archive, m.Encryption = "x/not-an-archive.dump.zst", backup.Unencrypted
	scratch := backup.ScratchName(other.Database, "d000000001")
	err = func() error {
		_, err := f.Prove(t.Context(), f.store, m, other.Source, scratch, &backup.Meter{})
		return err
	}()
	if !errors.Is(err, backup.ErrRejected) && !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("%v, want rejected or damaged", err)
	}
	if err := backup.DropScratch(t.Context(), other.Source, scratch); err != nil {
		t.Error(err)
	}
}

func TestAKilledDumpLeavesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 8000) // far more than pipes and sockets hold
	kills := map[string]func(){
		"pg_dump":    func() { killDump(t, f.Database) },
		"its server": func() { killBackends(t, f.Database) },
	}
	for name, kill := range kills {
		gate := &gatedStore{Store: f.store, reached: make(chan struct{}), open: make(chan struct{})}
		saved := make(chan error, 1)
		go func() {
			_, err := f.Save(t.Context(), gate, backup.Request{ID: "cccccccccc", Source: f.Source, Started: started}, &backup.Meter{})
			saved <- err
		}()
		gate.wait(t, saved)
		kill()
		close(gate.open)
		if err := <-saved; err == nil {
			t.Errorf("killed %s: the dump succeeded all the same", name)
		}
		if files := f.files(t); len(files) != 0 {
			t.Errorf("killed %s: left %v", name, files)
		}
	}
	m := f.save(t, "cccccccccc")
	if differences, err := f.drill(t, m, "d000000001"); err != nil || len(differences) != 0 {
		t.Errorf("the attempt after: %v, %v", differences, err)
	}
}

func TestACancelledDumpEndsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 4000)
	gate := &gatedStore{Store: f.store, reached: make(chan struct{}), open: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	saved := make(chan error, 1)
	go func() {
		_, err := f.Save(ctx, gate, backup.Request{ID: "cccccccccc", Source: f.Source, Started: started}, &backup.Meter{})
		saved <- err
	}()
	gate.wait(t, saved)
	defer close(gate.open)
	cancel()
	if err := <-saved; err == nil { // though the storage still hangs
		t.Error("the dump succeeded all the same")
	}
	if files, pids := f.files(t), dumps(t, f.Database); len(files) != 0 || len(pids) != 0 {
		t.Errorf("left files %v, processes %v", files, pids)
	}
}

func TestAManifestWithoutArchiveIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 10)
	m := f.save(t, "aaaaaaaaaa")
	if err := f.store.Remove(t.Context(), m.Archive); err != nil { // as when an attempt died between the two names
		t.Fatal(err)
	}
	if again := f.save(t, "aaaaaaaaaa"); !again.EndedAt.After(m.EndedAt) {
		t.Error("no new backup was made")
	}
}

func TestScratchesAreThoseOfTheirDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	longer := backup.Source{Database: f.Database + "_x", URL: f.URL}
	for _, scratch := range []string{backup.ScratchName(f.Database, "d000000001"), backup.ScratchName(longer.Database, "d000000002")} {
		backuptest.Exec(t, "postgres", "create database "+scratch+" owner "+backuptest.Role)
	}
	if ids, err := backup.Scratches(t.Context(), f.Source); err != nil || len(ids) != 1 || ids[0] != "d000000001" {
		t.Errorf("scratches %v, %v", ids, err)
	}
	if err := backup.DropScratch(t.Context(), f.Source, f.Database); err == nil {
		t.Error("the database itself was dropped as a scratch database")
	}
	if err := backup.DropScratch(t.Context(), f.Source, backup.ScratchName(longer.Database, "d000000002")); err == nil {
		t.Error("another database's scratch was dropped")
	}
	if err := errors.Join(backup.DropScratch(t.Context(), f.Source, backup.ScratchName(f.Database, "d000000001")),
		backup.DropScratch(t.Context(), longer, backup.ScratchName(longer.Database, "d000000002"))); err != nil {
		t.Error(err)
	}
}

func TestRefusalsAreForGood(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 1)
	missing := backup.Source{Database: "missing", URL: strings.Replace(f.URL, f.Database, "no_such_database", 1)}
	_, err := f.Save(t.Context(), f.store, backup.Request{ID: "aaaaaaaaaa", Source: missing, Started: started}, &backup.Meter{})
	if !backup.Refused(err) {
		t.Errorf("no such database: %v, want refused", err)
	}
	_, err = backup.Tools{Bin: t.TempDir(), Keys: f.Keys}.Save(t.Context(), f.store, backup.Request{ID: "aaaaaaaaaa", Source: f.Source, Started: started}, &backup.Meter{})
	if !errors.Is(err, backup.ErrToolMissing) {
		t.Errorf("no pg_dump: %v, want missing", err)
	}
}

// gatedStore holds up the first write of rows until it is opened: the header of the encryption is written before the dump begins.
type gatedStore struct {
	storage.Store
	reached, open chan struct{}
	once          sync.Once
}

func (s *gatedStore) Create(ctx context.Context, name string) (storage.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	return gatedWriter{w, s}, err
}

type gatedWriter struct {
	storage.Writer
	s *gatedStore
}

// wait waits for the gate to be reached.
func (s *gatedStore) wait(t *testing.T, saved <-chan error) {
	t.Helper()
	select {
	case <-s.reached:
	case err := <-saved:
		t.Fatalf("ended before anything was written: %v", err)
	}
}

func (w gatedWriter) Write(p []byte) (int, error) {
	if len(p) >= 1<<10 {
		w.s.once.Do(func() {
			close(w.s.reached)
			<-w.s.open
		})
	}
	return w.Writer.Write(p)
}

// dumps are the processes that dump a database.
func dumps(t *testing.T, database string) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, dir := range dirs {
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if bytes.Contains(command, []byte("pg_dump")) && bytes.Contains(command, []byte("/"+database)) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

func killDump(t *testing.T, database string) {
	t.Helper()
	pids := dumps(t, database)
	if len(pids) == 0 {
		t.Error("no pg_dump runs")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func killBackends(t *testing.T, database string) {
	t.Helper()
	n := backuptest.Number(t, `select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where datname = $1 and usename = $2`,
		database, backuptest.Role)
	if n == 0 {
		t.Error("no backend serves the dump")
	}
}
