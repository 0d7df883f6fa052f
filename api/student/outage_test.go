package student

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// positionHeader is the public name.
const positionHeader = "X-SMS-Position"

// listening is a service that listens, on a database whose server is the test's own.
type listening struct {
	*servertest.Service
	db    *postgres.DB
	url   string
	token string
	// next gives each student another mobile number.
	next atomic.Int64
}

func listen(t *testing.T, config postgres.Config) *listening {
	t.Helper()
	db, err := postgres.OpenDB(t.Context(), config, "student-service")
	if err != nil {
		t.Fatal(err)
	}
	service := servertest.New(t, "student-service", server.Config{})
	service.UseDatabase(db)
	Mount(service.Server, NewStore(db), DefaultSchool, time.Now)
	front := httptest.NewServer(service.Engine)
	t.Cleanup(func() { front.Close(); db.Close() })
	return &listening{Service: service, db: db, url: front.URL, token: service.Token(t, identity.Clerk)}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (l *listening) ask(method, path, position string, body any) (reply, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	request, err := http.NewRequest(method, l.url+path, bytes.NewReader(encoded))
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Authorization", "Bearer "+l.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	} else {
		request.Body, request.ContentLength = nil, 0
	}
	if position != "" {
		request.Header.Set(positionHeader, position)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, read}, err
}

// create writes a new student, and returns where it is when that was acknowledged.
func (l *listening) create() (path string, r reply, err error) {
	student := map[string]any{"firstName": "Outage", "lastName": "Test", "dateOfBirth": time.Now().AddDate(-10, 0, 0).Format(time.DateOnly),
		"address": map[string]any{"street": "1 Test Road", "city": "Pune", "state": "Maharashtra", "pinCode": "411001", "country": "India"},
		"mobile":  fmt.Sprintf("9%09d", l.next.Add(1)), "fatherNameOrGuardian": "Outage Guardian", "motherName": "Outage Mother", "caste": "General"}
	if r, err = l.ask(http.MethodPost, collection, "", student); err == nil && r.status == http.StatusCreated {
		path = r.header.Get("Location")
	}
	return path, r, err
}

// load writes and reads from several callers at once until stop.
type load struct {
	stop  chan struct{}
	done  sync.WaitGroup
	since atomic.Int64 // requests that began later must succeed, in nanoseconds of the Unix epoch; 0 means none must

	mu           sync.Mutex
	acknowledged []string
	answered     map[int]int
	faults       []string
	changed      chan struct{} // closed and replaced at each answer
}

func (l *listening) load(writers, readers int) *load {
	run := &load{stop: make(chan struct{}), answered: map[int]int{}, changed: make(chan struct{})}
	known, made, _ := l.create()
	position := made.header.Get(positionHeader)
	worker := func(ask func() (string, reply, error)) {
		for {
			select {
			case <-run.stop:
				return
			default:
			}
			began := time.Now()
			path, r, err := ask()
			run.take(began, path, r, err)
		}
	}
	for range writers {
		run.done.Go(func() { worker(l.create) })
	}
	for i := range readers {
		path := known
		if i%2 == 1 {
			path = collection + "?lastName=Te&size=5"
		}
		run.done.Go(func() {
			worker(func() (string, reply, error) {
				r, err := l.ask(http.MethodGet, path, position, nil)
				return "", r, err
			})
		})
	}
	return run
}

// take counts an answer. Whatever is neither success nor 503 with Retry-After is a fault, and so is a 503 after the outage.
func (run *load) take(began time.Time, path string, r reply, err error) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.answered[r.status]++
	since := run.since.Load()
	ok := r.status == http.StatusOK || r.status == http.StatusCreated
	away := r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "" && strings.Contains(string(r.body), "/problems/unavailable")
	if err != nil || !ok && !away || !ok && since > 0 && began.UnixNano() > since {
		run.faults = append(run.faults, fmt.Sprintf("%d %s %v", r.status, r.body, err))
	}
	if path != "" {
		run.acknowledged = append(run.acknowledged, path)
	}
	close(run.changed)
	run.changed = make(chan struct{})
}

// more waits for so many more answers with a status.
func (run *load) more(t *testing.T, status, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	want := -1
	for {
		run.mu.Lock()
		if want < 0 {
			want = run.answered[status] + n
		}
		reached, changed := run.answered[status] >= want, run.changed
		run.mu.Unlock()
		if reached {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not within a minute: %d more answers with status %d; so far %v", n, status, run.answered)
		}
	}
}

func (run *load) end(t *testing.T) {
	close(run.stop)
	run.done.Wait()
	for i, fault := range run.faults {
		if i == 5 {
			t.Errorf("and %d more", len(run.faults)-i)
			break
		}
		t.Error(fault)
	}
	t.Logf("answers by status: %v", run.answered)
}

// TestPostgresRestarted restarts PostgreSQL under load, the orderly way and by a crash.
func TestPostgresRestarted(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			primary := pgtest.NewServer(t)
			l := listen(t, primary.New(t, migrations.Student()))
			run := l.load(4, 6)
			for range 2 {
				run.more(t, http.StatusCreated, 50)
				run.since.Store(0)
				primary.End(signal)
				run.more(t, http.StatusServiceUnavailable, 100)
				primary.Start(t)
				run.since.Store(time.Now().UnixNano())
				run.more(t, http.StatusCreated, 50)
				run.more(t, http.StatusOK, 50)
			}
			run.end(t)
			for _, path := range run.acknowledged {
				if r, err := l.ask(http.MethodGet, path, "", nil); err != nil || r.status != http.StatusOK {
					t.Errorf("an acknowledged write is lost: %s: %d %v", path, r.status, err)
				}
			}
			t.Logf("%d acknowledged writes", len(run.acknowledged))
		})
	}
}

// TestReadsFromReplica writes and reads through a service with a replica, and takes that away.
func TestReadsFromReplica(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewServer(t)
	config := primary.New(t, migrations.Student())
	standby := primary.NewStandby(t)
	config.ReplicaURL, config.ReplicaMaxConns = standby.Config(postgres.Superuser, "", "test").URL, 8
	config.ReplicaMaxLag, config.ReplicaProbeInterval = 2*time.Second, 20*time.Millisecond
	l := listen(t, config)
	l.usesReplica(t, true)

	run := l.load(2, 6)
	run.since.Store(time.Now().UnixNano()) // nothing may fail at all
	for range 3 {
		run.more(t, http.StatusOK, 100)
		standby.End(syscall.SIGKILL)
		run.more(t, http.StatusOK, 100)
		standby.Start(t)
		l.usesReplica(t, true)
	}
	run.end(t)

	standby.Exec(t, "test", "select pg_wal_replay_pause()")
	path, made, err := l.create()
	position := made.header.Get(positionHeader)
	if err != nil || path == "" || position == "" {
		t.Fatalf("%d %s %v, position %q", made.status, made.body, err, position)
	}
	for _, read := range []string{path, path + "/history", collection + "?studentId=" + path[len(collection)+1:]} {
		r, err := l.ask(http.MethodGet, read, position, nil)
		if err != nil || r.status != http.StatusOK || !strings.Contains(string(r.body), "Outage") {
			t.Errorf("%s: the caller does not read its own write: %d %s %v", read, r.status, r.body, err)
		}
		if r.header.Get(positionHeader) != "" {
			t.Error("a read has a position of its own")
		}
	}
	etag := made.header.Get("ETag")
	if r := l.Do(t, identity.Clerk, http.MethodPatch, path, map[string]any{"caste": "OBC"}, "If-Match", etag); r.Status != http.StatusOK ||
		r.Header.Get(positionHeader) == "" {
		t.Errorf("a write read what it changes from the replica: %d %s", r.Status, r.Body)
	}
	l.usesReplica(t, false)
	if r, err := l.ask(http.MethodGet, path, "", nil); err != nil || r.status != http.StatusOK {
		t.Errorf("the replica lags, and is read: %d %v", r.status, err)
	}
	standby.Exec(t, "test", "select pg_wal_replay_resume()")
	l.usesReplica(t, true)

	if faults := l.Do(t, identity.Clerk, http.MethodGet, collection+"?size=0&colour=red", nil, positionHeader, "yesterday").
		Faults(http.StatusUnprocessableEntity, "validation-error"); len(faults) != 3 || faults[positionHeader] != "wrong-format" {
		t.Errorf("faults %v", faults)
	}
	if health := l.Do(t, "", http.MethodGet, "/actuator/health", nil); !strings.Contains(string(health.Body), `"replica":{"status":"UP"}`) {
		t.Errorf("health: %s", health.Body)
	}
	standby.End(syscall.SIGINT)
	l.usesReplica(t, false)
	if _, components := l.Health.Check(t.Context()); components["replica"].Status != server.Down || components["database"].Status != server.Up {
		t.Errorf("health without the replica: %+v", components)
	}
}

// usesReplica waits until the metrics say that reads go to the replica, or that they do not.
func (l *listening) usesReplica(t *testing.T, want bool) {
	t.Helper()
	deadline, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	words := map[bool]string{true: "\nsms_database_replica_used 1\n", false: "\nsms_database_replica_used 0\n"}[want]
	for {
		metrics := l.Do(t, "", http.MethodGet, "/actuator/prometheus", nil)
		if strings.Contains(string(metrics.Body), words) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", words)
		}
	}
}
