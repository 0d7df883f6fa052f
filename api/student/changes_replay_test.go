package student

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/identity"
)

const kills = 10

// A consumer that is killed anywhere, while many write at once and some transactions end long after they began, ends with what
// the table holds.
func TestReplay(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := newFixture(t)
	server := httptest.NewServer(f.Engine)
	t.Cleanup(server.Close)

	h := &histories{fixture: f, t: t, stop: make(chan struct{}), wrote: make(chan struct{})}
	var writers sync.WaitGroup
	for n := range uint64(3) {
		writers.Go(func() { h.write(rand.New(rand.NewPCG(seed, n))) })
	}
	for n := range uint64(2) {
		writers.Go(func() { h.holdOpen(rand.New(rand.NewPCG(seed, 10+n)), 2020+int(n)) })
	}
	file := filepath.Join(t.TempDir(), "replica.json")
	steps := rand.New(rand.NewPCG(seed, 20))
	for range kills {
		c := startConsumer(t, f, server.URL, file)
		for range 1 + steps.IntN(30) {
			if !c.steps.Scan() {
				t.Errorf("the consumer ended by itself: %s", c.said)
				break
			}
		}
		if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		_ = c.cmd.Wait()
		if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Errorf("the consumer ended with %s instead of being killed: %s", c.cmd.ProcessState, c.said)
		}
	}
	close(h.stop)
	writers.Wait()
	last := startConsumer(t, f, server.URL, file, "TEST_CONSUMER_UNTIL_END=1")
	for last.steps.Scan() {
	}
	if err := last.cmd.Wait(); err != nil {
		t.Fatalf("the last consumer: %v: %s", err, last.said)
	}
	f.checkReplica(t, file)
}

// checkReplica compares what a consumer has with what is there.
func (f fixture) checkReplica(t *testing.T, file string) {
	t.Helper()
	got, err := loadReplica(file)
	if err != nil {
		t.Fatal(err)
	}
	want := replica{Students: map[string]Student{}, Versions: map[string]int64{}}
	rows, _ := f.pool.Query(t.Context(), "select "+recordColumns+" from student where not synthetic")
	records, err := pgx.CollectRows(rows, pgx.RowToStructByName[Record])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		want.Students[r.StudentID], want.Versions[r.StudentID] = present(r, today), r.Version
	}
	rows, _ = f.pool.Query(t.Context(), "select student_id, version from student_erasure")
	var id string
	var version int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		want.Versions[id] = version
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got.Students, want.Students) {
		t.Errorf("the consumer has %d students, the table %d, and not the same", len(got.Students), len(want.Students))
	}
	if !maps.Equal(got.Versions, want.Versions) {
		t.Errorf("the consumer has seen %d students, the table has had %d, or other versions", len(got.Versions), len(want.Versions))
	}
	changes, long := f.count(t, "select count(*) from student_change"), f.count(t, "select count(*) from student_change where changed_by = 'import'")
	t.Logf("%d changes, %d of them in long transactions, %d students, %d erased", changes, long, len(records), len(want.Versions)-len(records))
	if n := f.count(t, "select last from student_feed"); n != changes || f.count(t, "select max(position) from student_change") != changes {
		t.Errorf("%d positions for %d changes", n, changes)
	}
	if long == 0 || len(records) == 0 || len(want.Versions) == len(records) {
		t.Error("the histories are too poor to prove anything")
	}
}

type consumer struct {
	cmd   *exec.Cmd
	steps *bufio.Scanner
	said  *strings.Builder
}

func startConsumer(t *testing.T, f fixture, address, file string, env ...string) consumer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c := consumer{cmd: exec.CommandContext(ctx, os.Args[0]), said: &strings.Builder{}}
	c.cmd.Env = append(append(os.Environ(), "TEST_CONSUME_CHANGES="+address+changesPath, "TEST_CONSUMER_FILE="+file,
		"TEST_CONSUMER_TOKEN="+f.Token(t, identity.Viewer)), env...)
	c.cmd.Stderr = c.said
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.steps = bufio.NewScanner(out)
	if err := child.Start(c.cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return c
}

// histories writes at random.
type histories struct {
	fixture
	t      *testing.T
	stop   chan struct{}
	wrote  chan struct{} // after each write by HTTP, to whoever waits for one
	mobile atomic.Int64

	mu  sync.Mutex
	ids []string
}

// most is how many students there are at once.
const most = 60

func (h *histories) newMobile() string { return fmt.Sprintf("8%09d", h.mobile.Add(1)) }

// write sends requests as clerks do, all on the same students, until it is told to stop.
func (h *histories) write(r *rand.Rand) {
	for {
		select {
		case <-h.stop:
			return
		default:
		}
		h.writeOnce(r)
		select {
		case h.wrote <- struct{}{}:
		default:
		}
	}
}

func (h *histories) writeOnce(r *rand.Rand) {
	id := h.any(r)
	if id == "" || r.IntN(8) == 0 {
		h.createOne(r)
		return
	}
	one := collection + "/" + id
	read := h.Do(h.t, identity.Clerk, http.MethodGet, one, nil)
	var answer = read
	switch etag := read.Header.Get("ETag"); {
	case read.Status != http.StatusOK:
	case r.IntN(12) == 0:
		answer = h.Do(h.t, identity.Admin, http.MethodPost, one+"/erasure", map[string]string{"confirm": id, "reason": "asked for"})
		h.forget(id)
	case r.IntN(6) == 0:
		answer = h.Do(h.t, identity.Clerk, http.MethodDelete, one, nil, "If-Match", etag)
	case r.IntN(4) == 0:
		status := []Status{Active, Inactive}[r.IntN(2)]
		answer = h.Do(h.t, identity.Clerk, http.MethodPatch, one+"/status", map[string]Status{"status": status}, "If-Match", etag)
	default:
		answer = h.Do(h.t, identity.Clerk, http.MethodPatch, one, map[string]string{"caste": fmt.Sprint("c", r.IntN(5))}, "If-Match", etag)
	}
	if !slices.Contains([]int{http.StatusOK, http.StatusNoContent, http.StatusPreconditionFailed, http.StatusGone}, answer.Status) {
		h.t.Errorf("a write answers %d %s", answer.Status, answer.Body)
	}
}

func (h *histories) createOne(r *rand.Rand) {
	in, synthetic := validInput(), fmt.Sprint(r.IntN(5) == 0)
	in.Mobile = h.newMobile()
	var created Student
	answer := h.Do(h.t, identity.Admin, http.MethodPost, collection, in, "X-SMS-Synthetic", synthetic)
	if err := json.Unmarshal(answer.Body, &created); err != nil || answer.Status != http.StatusCreated {
		h.t.Errorf("a create answers %d %s", answer.Status, answer.Body)
		return
	}
	if synthetic == "true" {
		h.Do(h.t, identity.Admin, http.MethodDelete, collection+"/"+created.StudentID, nil, "If-Match", answer.Header.Get("ETag"))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids = append(h.ids, created.StudentID); len(h.ids) > most {
		h.ids = h.ids[1:]
	}
}

func (h *histories) any(r *rand.Rand) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ids) == 0 {
		return ""
	}
	return h.ids[r.IntN(len(h.ids))]
}

func (h *histories) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = slices.DeleteFunc(h.ids, func(other string) bool { return other == id })
}

// holdOpen writes students of a year of its own in transactions that others overtake. Some it gives up.
func (h *histories) holdOpen(r *rand.Rand, year int) {
	for stopped := false; !stopped; {
		tx, err := h.pool.Begin(context.Background())
		if err != nil {
			h.t.Error(err)
			return
		}
		for range 1 + r.IntN(3) {
			record, err := insert(context.Background(), tx, year, h.newMobile())
			if err != nil {
				h.t.Error(err)
				break
			}
			for range r.IntN(3) {
				if record, err = h.updateIn(tx, record); err != nil {
					h.t.Error(err)
					break
				}
				stopped = stopped || h.wait(r.IntN(4))
			}
		}
		stopped = stopped || h.wait(1+r.IntN(8))
		end := tx.Commit
		if r.IntN(5) == 0 {
			end = tx.Rollback
		}
		if err := end(context.Background()); err != nil {
			h.t.Error(err)
		}
	}
}

func (h *histories) updateIn(tx pgx.Tx, current Record) (Record, error) {
	args := current.args()
	args["caste"], args["student_id"], args["version"], args["status"] = current.Caste+"x", current.StudentID, current.Version, current.Status
	args["action"], args["user"], args["request_id"] = Updated, "import", "long"
	rows, _ := tx.Query(context.Background(), updateStudent, args)
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Record])
}

// wait returns once others have written so many times, or true when there is an end of it.
func (h *histories) wait(writes int) (stopped bool) {
	for range writes {
		select {
		case <-h.wrote:
		case <-h.stop:
			return true
		}
	}
	return false
}
