package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// studentService is a student-service process on a PostgreSQL server of its own, both as `sms up` runs them.
type studentService struct {
	postgres.Cluster
	database postgres.Config
	address  string
	token    string // of a clerk
	pid      int
}

// firstStudent is the number of the first of the students that are there; all numbers have six digits.
const (
	firstStudent = 100_001
	students     = 100_000
)

const fillStudents = `
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile, email,
    guardian_name, mother_name, caste, moles, aadhaar_number, created_by, updated_by)
select 'STU-2026-' || n, 'Asha ' || chr(65 + (n % 26)::int), 'Patil', date '2015-01-01' + (n % 1000)::int, n || ' Lake Road', 'Pune', 'Maharashtra', '411001',
    'India', (6000000000 + n)::text, 'asha' || n || '@example.com', 'Ravi Patil', 'Meera Patil', 'General', '', (100000000000 + n)::text, 'bench', 'bench'
from generate_series($1::bigint, $1 + $2 - 1) n`

func startStudentService(b *testing.B) *studentService {
	b.Helper()
	s := &studentService{}
	s.startDatabase(b)
	var end func()
	s.address, s.token, s.pid, end = launch(b, s.database)
	b.Cleanup(end)
	return s
}

const password = "bench" // of the superuser

// startCluster starts a PostgreSQL server for the rest of the bench.
func startCluster(b *testing.B) postgres.Cluster {
	b.Helper()
	dir, err := os.MkdirTemp("", "sms-bench-")
	check(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(b, os.Chmod(dir, 0o711)) // PostgreSQL has an account of its own
	install, err := postgres.FindInstallation(os.Getenv("SMS_POSTGRES_BIN"))
	check(b, err)
	account, err := postgres.ClusterAccount()
	check(b, err)
	port, err := pgtest.FreePort()
	check(b, err)
	cluster := postgres.Cluster{Installation: install, Account: account, Dir: filepath.Join(dir, "postgres"), Port: port}
	check(b, cluster.Init(context.Background(), password))
	server := cluster.Command()
	check(b, child.Start(server, syscall.SIGQUIT))
	b.Cleanup(func() { stop(server, syscall.SIGINT) })
	return cluster
}

// createDatabase makes an empty database.
func createDatabase(b *testing.B, cluster postgres.Cluster, name string) postgres.Config {
	b.Helper()
	conn, err := cluster.Connect(b.Context(), password, "postgres")
	check(b, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(b.Context(), "create database "+name)
	check(b, err)
	return cluster.Config(postgres.Superuser, password, name)
}

func (s *studentService) startDatabase(b *testing.B) {
	b.Helper()
	s.Cluster = startCluster(b)
	s.database = createDatabase(b, s.Cluster, "student_db")
	_, err := postgres.Migrate(b.Context(), s.database, migrations.Student())
	check(b, err)
	s.exec(b, fillStudents, firstStudent, students)
	s.exec(b, "vacuum analyze")
	s.exec(b, "checkpoint")
}

// exec runs a statement as the superuser.
func (s *studentService) exec(b *testing.B, statement string, args ...any) {
	b.Helper()
	ctx := context.Background()
	conn, err := s.Connect(ctx, s.database.Password, "student_db")
	check(b, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "set statement_timeout = 0")
	check(b, err)
	_, err = conn.Exec(ctx, statement, append([]any{pgx.QueryExecModeExec}, args...)...)
	check(b, err)
}

// keys are what services verify tokens with, and a token of a clerk.
type keys struct{ file, token string }

func newKeys(b *testing.B) keys {
	b.Helper()
	private, public, err := identity.NewKeyPair()
	check(b, err)
	signer, err := identity.NewSigner(private)
	check(b, err)
	token, err := signer.Sign("bench", identity.Clerk, time.Hour)
	check(b, err)
	file := filepath.Join(b.TempDir(), "key")
	check(b, os.WriteFile(file, public, 0o600))
	return keys{file, token}
}

// launch starts a student service on a database, with further environment, and waits until it is ready. The token is a clerk's.
func launch(b *testing.B, database postgres.Config, env ...string) (address, token string, pid int, end func()) {
	b.Helper()
	k := newKeys(b)
	address, pid, end = run(b, "../bin/student-service", append(append(databaseEnv(b, database),
		"IDENTITY_PUBLIC_KEY_FILE="+k.file, "DISCOVERY_URL=http://127.0.0.1:1/eureka"), env...)...)
	return address, k.token, pid, end
}

func databaseEnv(b *testing.B, database postgres.Config) []string {
	b.Helper()
	password := filepath.Join(b.TempDir(), "password")
	check(b, os.WriteFile(password, []byte(database.Password), 0o600))
	return []string{"DATABASE_URL=" + database.URL, "DATABASE_PASSWORD_FILE=" + password}
}

// run starts a service and waits until it is ready. The log is a file, as under `sms up`.
func run(b *testing.B, program string, env ...string) (address string, pid int, end func()) {
	b.Helper()
	log, err := os.OpenFile(filepath.Join(b.TempDir(), filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(b, err)
	port, err := pgtest.FreePort()
	check(b, err)
	address = "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.Command(program)
	cmd.Env = append(append(os.Environ(), "SERVER_ADDRESS="+address, "SERVER_DRAIN_DELAY=0s"), env...)
	cmd.Stderr = log
	check(b, child.Start(cmd, syscall.SIGKILL))
	end = func() { stop(cmd, syscall.SIGTERM) }
	awaitAnswer(b, "http://"+address+"/actuator/health/readiness", log.Name())
	return address, cmd.Process.Pid, end
}

// awaitAnswer waits until an address answers 200.
func awaitAnswer(b *testing.B, url, log string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	for {
		answer, err := http.Get(url)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log)
			b.Fatalf("%s does not answer: %s", url, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func stop(cmd *exec.Cmd, signal syscall.Signal) {
	_ = cmd.Process.Signal(signal)
	_ = cmd.Wait()
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// measure is what one run of a load generator gives.
type measure struct {
	name string
	run  func() float64
}

// against prints the service's median and those of the others, taken by turns, and the ratios to them. It returns the medians.
func against(b *testing.B, name, unit string, ours func() float64, others ...measure) []float64 {
	b.Helper()
	all := append([]measure{{"service", ours}}, others...)
	values, medians := make([][]float64, len(all)), make([]float64, len(all))
	for range runs {
		for i, m := range all {
			values[i] = append(values[i], m.run())
		}
	}
	for i, m := range all {
		medians[i] = median(values[i])
		fmt.Printf("%-22s %-26s %9.1f %s", name, m.name, medians[i], unit)
		if i > 0 {
			fmt.Printf(", ratio %.2f", medians[0]/medians[i])
			b.ReportMetric(medians[0]/medians[i], name+"/"+m.name)
		}
		fmt.Println()
	}
	return medians
}

// short is how long one run takes: BENCH_RUN, or three seconds.
func short() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("BENCH_RUN")); err == nil {
		return d
	}
	return 3 * time.Second
}
