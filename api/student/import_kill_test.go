package student

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// TestServiceForImports is a student service when another test asks for one, to kill it.
func TestServiceForImports(*testing.T) {
	if os.Getenv("TEST_STUDENT_SERVICE") != "" {
		server.Run(server.Module("student-service"), server.Database("student-service", migrations.Student()), Module, server.Serve)
	}
}

// fleet is student services on one database, each a process of its own.
type fleet struct {
	csvFixture
	database postgres.Config
	dir      string
	token    string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{database: pgtest.New(t, migrations.Student()), dir: t.TempDir()}
	private, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	if f.token, err = signer.Sign("clerk", identity.Clerk, time.Hour); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"password": []byte(f.database.Password), "key": public} {
		if err := os.WriteFile(filepath.Join(f.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f.pool, err = postgres.Open(t.Context(), f.database, "test"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.pool.Close)
	f.files = NewCSV(NewStore(postgres.NewDB(f.pool)), testCSV, DefaultSchool, time.Now, slog.New(slog.DiscardHandler))
	return f
}

// member is one student service of a fleet.
type member struct {
	*fleet
	cmd  *exec.Cmd
	host string
}

// launch starts a service and waits until it is ready.
func (f *fleet) launch(t *testing.T) *member {
	t.Helper()
	port, err := pgtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{fleet: f, host: "127.0.0.1:" + strconv.Itoa(port), cmd: exec.Command(os.Args[0], "-test.run=^TestServiceForImports$")}
	m.cmd.Env = append(os.Environ(), "TEST_STUDENT_SERVICE=1", "SERVER_ADDRESS="+m.host, "SERVER_DRAIN_DELAY=1ms", "SERVER_SHUTDOWN_TIMEOUT=1s",
		"DATABASE_URL="+f.database.URL, "DATABASE_PASSWORD_FILE="+filepath.Join(f.dir, "password"),
		"IDENTITY_PUBLIC_KEY_FILE="+filepath.Join(f.dir, "key"), "STUDENT_IMPORT_LEASE=1s", "DISCOVERY_URL=http://127.0.0.1:1/eureka", "SCHOOL_SETTINGS_START_WAIT=1ms", "STUDENT_IMPORT_WAIT=1ms", "LOG_LEVEL=error")
	m.cmd.Stderr = os.Stderr
	if err := child.Start(m.cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
	await(t, "the service is ready", func() bool {
		answer, err := http.Get("http://" + m.host + "/actuator/health/readiness")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return m
}

// kill ends the service with a signal that it cannot see.
func (m *member) kill() { _ = m.cmd.Process.Kill(); _ = m.cmd.Wait() }

// request calls the service.
func (m *member) request(t *testing.T, method, path string, body io.Reader) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+m.host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+m.token)
	request.Header.Set("Content-Type", "text/csv")
	return http.DefaultClient.Do(request)
}

func (m *member) read(t *testing.T, path string, v any) {
	t.Helper()
	answer, err := m.request(t, http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(v); err != nil {
		t.Fatal(err)
	}
}

// ended waits for an import's end.
func (m *member) ended(t *testing.T, path string) (report ImportReport) {
	t.Helper()
	await(t, "the import ends", func() bool {
		m.read(t, path, &report)
		return report.State != Running
	})
	return report
}

// await looks again and again until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 60*time.Second, errors.New(what))
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); !so(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never is so that %v", context.Cause(ctx))
		}
	}
}

// blocked waits until a statement of an import waits for a lock.
func (f csvFixture) blocked(t *testing.T, statement string) {
	t.Helper()
	await(t, statement+" waits for a lock", func() bool {
		return f.count(t, `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
			and query like '%' || $1 || '%' and pid <> pg_backend_pid()`, statement) > 0
	})
}

// begin opens a transaction that the test holds.
func begin(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
	return tx
}

func rollback(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// insertTaken is a student with a mobile number, as one who is just being registered.
const insertTaken = `insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
	guardian_name, mother_name, caste, created_by, updated_by)
	values ($1, 'Asha', 'Patil', '2016-06-30', 'a', 'b', 'c', '411001', 'd', $2, 'e', 'f', 'g', 'test', 'test')`

// TestKilledImport kills whoever carries out an import, at every point at which it can be held still: the import is carried out once.
func TestKilledImport(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	const rows = 3000
	var file strings.Builder
	file.WriteString(fullHeader + "\n")
	for n := range rows {
		file.WriteString(fullRow(n) + "\n")
	}
	if _, err := f.pool.Exec(t.Context(), insertTaken, "STU-2025-00001", "9000000007"); err != nil {
		t.Fatal(err)
	}
	checking := begin(t, f.pool, "select pg_advisory_xact_lock($1)", int64(applying))
	planning := begin(t, f.pool, "select 1 from student for update")
	writing := begin(t, f.pool, insertTaken, "STU-2025-00002", "9000002000")

	service := f.launch(t)
	answer, err := service.request(t, http.MethodPost, imports, strings.NewReader(file.String()))
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("%v %v", answer, err)
	}
	var taken ImportReport
	if err := json.NewDecoder(answer.Body).Decode(&taken); err != nil || taken.State != Running || taken.RowsRead != rows {
		t.Fatalf("%+v %v", taken, err)
	}
	location := answer.Header.Get("Location")
	for _, point := range []struct {
		statement string
		hold      pgx.Tx
		signal    syscall.Signal
	}{
		{"pg_advisory_xact_lock", checking, syscall.SIGKILL}, {"insert into import_plan", planning, syscall.SIGKILL},
		{"insert into student", nil, syscall.SIGKILL}, {"insert into student", writing, syscall.SIGTERM},
	} {
		f.blocked(t, point.statement)
		if err := service.cmd.Process.Signal(point.signal); err != nil {
			t.Fatal(err)
		}
		if err := service.cmd.Wait(); point.signal == syscall.SIGTERM && err != nil {
			t.Errorf("told to stop: %v", err)
		}
		await(t, "nothing is left of the process", func() bool {
			return f.count(t, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'student-service'") == 0
		})
		if n := f.count(t, "select count(*) from student"); n != 1 {
			t.Fatalf("%d students after a kill in %s", n, point.statement)
		}
		if point.hold != nil {
			rollback(t, point.hold)
		}
		service = f.launch(t)
	}
	report := service.ended(t, location)
	if got, want := report.summary(), fmt.Sprintf("SUCCEEDED read %d created %d updated 1 unchanged 0 rejected 0 deactivated 0: ", rows, rows-1); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := f.count(t, "select count(*) from student"); n != rows {
		t.Errorf("%d students", n)
	}
	if n := f.count(t, "select count(*) from student_audit where changed_by = 'clerk'"); n != rows {
		t.Errorf("%d audit rows", n)
	}
	await(t, "the staged rows are gone", func() bool { return f.count(t, "select count(*) from student_import_row") == 0 })
}

// TestKilledUpload kills a service while a file comes: nothing is written, and the report says why.
func TestKilledUpload(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	service, other := f.launch(t), f.launch(t)
	body, sender := io.Pipe()
	defer sender.Close()
	sent := make(chan error, 1)
	go func() {
		answer, err := service.request(t, http.MethodPost, imports, body)
		if err == nil {
			answer.Body.Close()
		}
		sent <- err
	}()
	if _, err := sender.Write([]byte(fullHeader + "\n")); err != nil {
		t.Fatal(err)
	}
	for n := range 2000 {
		if _, err := io.Copy(sender, bytes.NewReader([]byte(fullRow(n)+"\n"))); err != nil {
			t.Fatal(err)
		}
	}
	var list Imports
	await(t, "others see the upload", func() bool {
		other.read(t, imports, &list)
		return len(list.Content) == 1 && list.Content[0].Progress.Rows > 0
	})
	if list.Content[0].Progress.Phase != Uploading || list.Content[0].State != Running {
		t.Errorf("%+v", list.Content[0])
	}
	service.kill()
	_ = sender.Close()
	if err := <-sent; err == nil {
		t.Error("a killed service answered")
	}
	report := other.ended(t, importPath(list.Content[0].ImportID))
	if report.State != Failed || len(report.Errors) != 1 || report.Errors[0].Code != "upload-incomplete" {
		t.Errorf("%+v", report)
	}
	if n := f.count(t, "select count(*) from student"); n != 0 {
		t.Errorf("%d students of half a file", n)
	}
}
