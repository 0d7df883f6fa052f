package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/klauspost/compress/zstd"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/migrations"
)

// dataset is a database of more than 400 MB, of which BENCH_BACKUP_PERCENT makes more or less.
type dataset struct {
	name       string
	migrations fs.FS // nil: none
	fill       func(ctx context.Context, pool *pgxpool.Pool, rows int) error
	rows       int
}

// datasets are a school's year, many narrow rows, and the platform's own database of students, few wide ones.
var datasets = []dataset{{"year", nil, FillYear, 12_000}, {"students", migrations.Student(), FillSchool, 150_000}}

// backupTurns is how often each measurement is taken, by turns; BENCH_BACKUP_TURNS changes it.
const backupTurns = 5

// asBackupWorker makes the test binary the process that a backup or a drill runs in, so that its memory can be told.
const asBackupWorker = "BENCH_BACKUP_WORKER"

func TestMain(m *testing.M) {
	if job := os.Getenv(asBackupWorker); job != "" {
		if err := workOnBackup(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// backupJob is what such a process is to do.
type backupJob struct {
	Tools   backup.Tools
	Source  backup.Source
	Root    string
	ID      string
	Started time.Time
	// Archive is what to prove; empty: make a backup.
	Archive string
}

// backupResult is what it says.
type backupResult struct {
	Manifest                  backup.Manifest
	Differences               []string
	Seconds, Restore, Compare float64
}

func workOnBackup(text string) error {
	var job backupJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	store, err := storage.NewDirectory(job.Root)
	if err != nil {
		return err
	}
	ctx, began := context.Background(), time.Now()
	var result backupResult
	if job.Archive == "" {
		result.Manifest, err = job.Tools.Save(ctx, store, backup.Request{ID: job.ID, Source: job.Source, Started: job.Started}, &backup.Meter{})
	} else {
		result, err = drill(ctx, job, store)
	}
	if err != nil {
		return err
	}
	result.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(result)
}

// drill is all that the drill's activities do.
func drill(ctx context.Context, job backupJob, store storage.Store) (backupResult, error) {
	m, err := backup.ReadManifest(ctx, store, job.Archive)
	if err != nil {
		return backupResult{}, err
	}
	if err := job.Tools.Check(ctx, store, m, &backup.Meter{}); err != nil {
		return backupResult{}, err
	}
	proven, err := job.Tools.Prove(ctx, store, m, job.Source, backup.ScratchName(job.Source.Database, job.ID), &backup.Meter{})
	return backupResult{Manifest: m, Differences: proven.Differences, Restore: proven.Restore.Seconds(), Compare: proven.Compare.Seconds()}, err
}

// school is a filled database, as `sms up` has it, and where its backups go.
type school struct {
	postgres.Cluster
	backupJob
	dir   string
	turns int
}

func startSchool(b *testing.B, d dataset) *school {
	b.Helper()
	rows := d.rows * setting(b, "BENCH_BACKUP_PERCENT", 100) / 100
	s := &school{Cluster: startCluster(b)}
	s.dir = filepath.Dir(s.Dir)
	s.Root = filepath.Join(s.dir, "backups")
	const owner = "student_service"
	var passwords strings.Builder
	s.sql(b, "postgres", "create role "+owner+" login password '"+password+"'",
		"create role sms_backup login in role pg_read_all_data password '"+password+"'",
		"create role "+backup.RestoreRole+" login createdb in role sms_backup, "+owner+" password '"+password+"'", "create database student_db owner "+owner)
	for _, role := range []string{"sms_backup", backup.RestoreRole, postgres.Superuser} {
		fmt.Fprintf(&passwords, "127.0.0.1:%d:*:%s:%s\n", s.Port, role, password)
	}
	check(b, os.WriteFile(filepath.Join(s.dir, "pgpass"), []byte(passwords.String()), 0o600))
	config := s.Config(owner, password, "student_db")
	if d.migrations != nil {
		_, err := postgres.Migrate(b.Context(), config, d.migrations)
		check(b, err)
	}
	pool, err := postgres.Open(b.Context(), config, "bench")
	check(b, err)
	defer pool.Close()
	began := time.Now()
	check(b, d.fill(b.Context(), pool, rows))
	s.sql(b, "student_db", "vacuum analyze", "checkpoint")
	var size int64
	check(b, pool.QueryRow(b.Context(), "select pg_database_size(current_database())").Scan(&size))
	fmt.Printf("%s: %d students, %.0f MB, made in %.0f s\n", d.name, rows, float64(size)/1e6, time.Since(began).Seconds())
	identity, recipient, err := backup.NewKeyPair()
	check(b, err)
	keys := backup.KeyFiles{Recipients: filepath.Join(s.dir, "recipients"), Identities: filepath.Join(s.dir, "identities"), Encryption: "on"}
	check(b, os.WriteFile(keys.Recipients, []byte(recipient), 0o600))
	check(b, os.WriteFile(keys.Identities, []byte(identity), 0o600))
	s.Tools, s.Source = backup.Tools{Bin: s.Bin, Keys: keys}, backup.Source{Database: "student_db", URL: s.Config("sms_backup", "", "student_db").URL}
	return s
}

func (s *school) sql(b *testing.B, database string, statements ...string) {
	b.Helper()
	conn, err := s.Connect(b.Context(), password, database)
	check(b, err)
	defer conn.Close(context.Background())
	for _, statement := range append([]string{"set statement_timeout = 0"}, statements...) {
		if _, err := conn.Exec(b.Context(), statement); err != nil {
			b.Fatalf("%s: %v", statement, err)
		}
	}
}

// environment is what PostgreSQL's programs find their password in.
func (s *school) environment(more ...string) []string {
	return append([]string{"PATH=/usr/bin:/bin", "LC_ALL=C", "PGPASSFILE=" + filepath.Join(s.dir, "pgpass")}, more...)
}

// work runs a job in a process of its own, and returns its result and the highest sum of what it and its children held, in MB.
func (s *school) work(b *testing.B, job backupJob) (backupResult, float64) {
	b.Helper()
	text, err := json.Marshal(job)
	check(b, err)
	self, err := os.Executable()
	check(b, err)
	cmd := exec.Command(self)
	cmd.Env = s.environment(asBackupWorker + "=" + string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, child.Start(cmd, syscall.SIGKILL))
	done, peak := make(chan struct{}), make(chan float64)
	go func() {
		highest := 0.0
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-tick.C:
				highest = max(highest, resident(cmd.Process.Pid))
			case <-done:
				peak <- highest
				return
			}
		}
	}()
	content, err := io.ReadAll(out)
	check(b, err)
	close(done)
	highest := <-peak
	check(b, cmd.Wait())
	var result backupResult
	check(b, json.Unmarshal(content, &result))
	if len(result.Differences) > 0 {
		b.Fatalf("the drill found differences: %v", result.Differences)
	}
	return result, highest
}

// resident is what a process and its children hold, in MB. Looking costs next to nothing.
func resident(pid int) float64 {
	var pages float64
	statm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // gone: nothing
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ = strconv.ParseFloat(fields[1], 64)
	}
	sum := pages * float64(os.Getpagesize()) / 1e6
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(children)) {
			if child, err := strconv.Atoi(field); err == nil {
				sum += resident(child)
			}
		}
	}
	return sum
}

// save makes one more backup.
func (s *school) save(b *testing.B) (backupResult, float64) {
	b.Helper()
	s.turns++
	job := s.backupJob
	job.ID, job.Started = fmt.Sprintf("b%09d", s.turns), time.Date(2026, 11, 1, 2, 0, s.turns, 0, time.UTC)
	return s.work(b, job)
}

// BenchmarkBackup compares backups with `pg_dump | gzip`, in time and size.
func BenchmarkBackup(b *testing.B) {
	for _, d := range datasets {
		b.Run(d.name, func(b *testing.B) {
			s := startSchool(b, d)
			for b.Loop() {
				s.compareBackup(b)
			}
		})
	}
}

func (s *school) compareBackup(b *testing.B) {
	var ours, theirs, memory []float64
	var oursBytes, theirsBytes int64
	for range setting(b, "BENCH_BACKUP_TURNS", backupTurns) {
		settle()
		file := filepath.Join(s.dir, "plain.sql.gz")
		began := time.Now()
		s.shell(b, `"$BIN/pg_dump" --dbname="$URL" | gzip >"$FILE"`, "URL="+s.Source.URL, "FILE="+file)
		theirs = append(theirs, time.Since(began).Seconds())
		info, err := os.Stat(file)
		check(b, err)
		theirsBytes = info.Size()
		settle()
		saved, peak := s.save(b)
		fmt.Printf("backup %.2f s, pg_dump | gzip %.2f s\n", saved.Seconds, theirs[len(theirs)-1])
		ours, memory, oursBytes = append(ours, saved.Seconds), append(memory, peak), saved.Manifest.Bytes
	}
	fmt.Printf("backup %.2f s, %.1f MB, highest %.1f MB resident; pg_dump | gzip %.2f s, %.1f MB; ratios %.2f and %.2f\nall: %.2f against %.2f\n",
		median(ours), float64(oursBytes)/1e6, median(memory), median(theirs), float64(theirsBytes)/1e6, median(ours)/median(theirs), float64(oursBytes)/float64(theirsBytes), ours, theirs)
	b.ReportMetric(median(ours)/median(theirs), "time-ratio")
	b.ReportMetric(float64(oursBytes)/float64(theirsBytes), "size-ratio")
	b.ReportMetric(median(memory), "MB-resident")
}

// BenchmarkDrill compares drills with plain `pg_restore -j2` of the same archive.
func BenchmarkDrill(b *testing.B) {
	for _, d := range datasets {
		b.Run(d.name, func(b *testing.B) {
			s := startSchool(b, d)
			for b.Loop() {
				s.compareDrill(b)
			}
		})
	}
}

func (s *school) compareDrill(b *testing.B) {
	saved, _ := s.save(b)
	plain := s.decrypted(b, saved.Manifest.Archive)
	var ours, theirs, restores, compares, memory []float64
	for turn := range setting(b, "BENCH_BACKUP_TURNS", backupTurns) {
		settle()
		name := fmt.Sprintf("plain_%d", turn)
		s.sql(b, "postgres", "create database "+name+" owner student_service template template0")
		began := time.Now()
		s.shell(b, `"$BIN/pg_restore" --exit-on-error -j2 --dbname="$URL" "$FILE"`, "URL="+s.Config(postgres.Superuser, "", name).URL, "FILE="+plain)
		theirs = append(theirs, time.Since(began).Seconds())
		s.sql(b, "postgres", "drop database "+name)
		settle()
		job := s.backupJob
		job.ID, job.Archive = fmt.Sprintf("d%09d", turn), saved.Manifest.Archive
		proven, peak := s.work(b, job)
		fmt.Printf("drill %.2f s (restore %.2f, compare %.2f more), pg_restore -j2 %.2f s\n", proven.Seconds, proven.Restore, proven.Compare, theirs[len(theirs)-1])
		ours, restores, compares, memory = append(ours, proven.Seconds), append(restores, proven.Restore), append(compares, proven.Compare), append(memory, peak)
		s.sql(b, "postgres", "drop database "+backup.ScratchName(s.Source.Database, job.ID))
	}
	fmt.Printf("drill %.2f s (restore %.2f, compare %.2f more), highest %.1f MB resident; pg_restore -j2 %.2f s; ratio %.2f\nall: %.2f against %.2f\n",
		median(ours), median(restores), median(compares), median(memory), median(theirs), median(ours)/median(theirs), ours, theirs)
	b.ReportMetric(median(ours)/median(theirs), "time-ratio")
}

// setting is a number of the environment.
func setting(b *testing.B, name string, fallback int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	check(b, err)
	return n
}

// settle writes out what earlier work has left to be written.
func settle() { syscall.Sync() }

func (s *school) shell(b *testing.B, command string, env ...string) {
	b.Helper()
	cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
	cmd.Env = s.environment(append(env, "BIN="+s.Bin)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v: %s", command, err, out)
	}
}

// decrypted is the archive as pg_restore reads it.
func (s *school) decrypted(b *testing.B, archive string) string {
	b.Helper()
	content, err := os.ReadFile(s.Tools.Keys.Identities)
	check(b, err)
	identities, err := age.ParseIdentities(strings.NewReader(string(content)))
	check(b, err)
	stored, err := os.Open(filepath.Join(s.Root, archive))
	check(b, err)
	defer stored.Close()
	opened, err := age.Decrypt(stored, identities...)
	check(b, err)
	unpacked, err := zstd.NewReader(opened)
	check(b, err)
	defer unpacked.Close()
	path := filepath.Join(s.dir, "plain.dump")
	plain, err := os.Create(path)
	check(b, err)
	_, err = io.Copy(plain, unpacked)
	check(b, err)
	check(b, plain.Close())
	return path
}
