package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"go.temporal.io/api/enums/v1"

	"github.com/school-sms/sms/internal/standalone"
)

const (
	// rolloutKills says which cells of the matrix are gone through: all, or 2/5 for every fifth from the second on. Unset: few.
	rolloutKills = "SMS_ROLLOUT_KILLS"
	// killPlatforms share the cells of a long run: most of a cell is waiting.
	killPlatforms = 5
	// reachedWithin is how long a rollout may take to come to the moment at which something is killed.
	reachedWithin = 3 * time.Minute
)

// step is an activity of a rollout, the nth of its name. Those of bad ones are their rollback.
type step struct {
	activity string
	nth      int
	bad      bool
}

// cell is one kill.
type cell struct {
	step
	victim, at string
}

func (c cell) String() string {
	way := "forward"
	if c.bad {
		way = "rollback"
	}
	return fmt.Sprintf("%s\t%s %d\t%s\t%s", way, c.activity, c.nth, c.victim, c.at)
}

// killed are the processes that are killed: of PostgreSQL all.
var killed = []string{"ops-worker", "ops-service", "temporal-server", "postgres", "production/api-gateway", "production/eureka-server", "sms up"}

// matrix is every activity × every process × before, during and after.
func matrix(steps []step) (cells []cell) {
	for _, s := range steps {
		for _, victim := range killed {
			for _, at := range []string{"before", "during", "after"} {
				cells = append(cells, cell{s, victim, at})
			}
		}
	}
	return cells
}

// killing is a platform on which rollouts are disturbed.
type killing struct {
	t *testing.T
	*platform
	*moments
	*releasesToGo
	set      []string // settings of `sms up`
	replicas int
}

// built are the programs that tests of disturbed rollouts need besides the platform's.
type built struct {
	programs string // the folder of the platform's, with a worker that tells of moments
	faulty   string
}

func buildAll(t *testing.T) built {
	t.Helper()
	return built{programsWith(t, build(t, "ops-worker", "./worker")), build(t, "faulty", "./faulty")}
}

// newKilling brings a platform up. Further settings of its workers may be given, once its data directory is there.
func newKilling(t *testing.T, b built, further ...func(dataDir string) string) *killing {
	t.Helper()
	dir := newDataDir(t)
	k := &killing{t: t, moments: hearMoments(t, dir), releasesToGo: newReleases(t, b.faulty)}
	// More probes than by default, so that one second shows what a release is worth.
	settings := []string{"TEST_MOMENTS=" + k.socket, "ROLLOUT_PROBES_PER_SECOND=100"}
	for _, one := range further {
		settings = append(settings, one(dir))
	}
	give(t, dir, settings...)
	k.set = []string{"--no-staging", "SMS_START_TIMEOUT=" + startWithin.String(), "SMS_BIN_DIR=" + b.programs}
	k.platform = up(t, dir, k.set...)
	k.replicas = len(k.instances(rolled))
	return k
}

// recordsEnd is the last RecordOperation. What the others say in between, nobody waits for.
const recordsEnd = "RecordOperation of the end"

// steps are the activities of a rollout that has ended, by its history: of a bad one those after the failure that it is rolled back
// for.
func (k *killing) steps(end operationRecord, bad bool) (steps []step) {
	k.platform.t.Helper()
	events := k.temporal().GetWorkflowHistory(context.Background(), end.WorkflowID, end.RunID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	count, failed := map[string]int{}, !bad
	for events.HasNext() {
		e, err := events.Next()
		if err != nil {
			k.platform.t.Fatal(err)
		}
		failed = failed || e.GetEventType() == enums.EVENT_TYPE_ACTIVITY_TASK_FAILED
		name := e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName()
		if name == "" {
			continue
		}
		count[name]++
		if failed && name != "RecordOperation" {
			steps = append(steps, step{name, count[name], bad})
		}
	}
	return append(steps, step{recordsEnd, 1, bad})
}

// undisturbed does a rollout, and returns its steps.
func (k *killing) undisturbed(bad bool) []step {
	k.platform.t.Helper()
	r := k.ask(bad)
	end := k.ended("rollouts", k.start(r))
	k.wholly(r, end, k.replicas)
	if (end.State == "succeeded") == bad {
		k.platform.t.Fatalf("bad %v: %s: %s", bad, end.State, end.Summary)
	}
	k.took(end, bad)
	return k.steps(end, bad)
}

// kill does the rollout of a cell, and returns how it has ended and how long it took.
func (k *killing) kill(c cell) (end operationRecord, took time.Duration) {
	t := k.platform.t
	k.healthy()
	k.refresh()
	r := k.ask(c.bad)
	caught := k.catch(func(m moment) bool {
		return m.Activity == c.activity && m.nth == c.nth && m.At == c.at && m.Attempt == 1
	})
	began, gateway, token := time.Now(), k.status.URLs["gateway"], k.token()
	asking, reached := context.WithCancel(t.Context())
	defer reached()
	go func() { // what the cell before has killed may still refuse it, and what is killed now may never answer: it is asked again below
		for _, err := r.once(gateway, token); err != nil; _, err = r.once(gateway, token) {
			select {
			case <-asking.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	now := await(t, reachedWithin, c.String(), caught)
	reached()
	k.end(c.victim)
	now.goOn()
	end = k.ended("rollouts", k.start(r))
	took = time.Since(began)
	k.wholly(r, end, k.replicas)
	if c.bad && end.State == "succeeded" {
		t.Errorf("a bad release was taken for good: %s", end.Summary)
	}
	k.took(end, c.bad)
	return end, took
}

// end kills a process, and starts `sms up` again when it was that.
func (k *killing) end(victim string) {
	t := k.platform.t
	if victim == "sms up" {
		k.platform.kill()
		k.platform = up(k.t, k.dataDir, k.set...)
		k.platform.t = t
		return
	}
	i := slices.IndexFunc(k.status.Processes, func(ps standalone.ProcessStatus) bool { return strings.HasPrefix(ps.Name, victim) })
	pid := k.status.Processes[i].PID
	if pid == 0 { // which would be this test
		t.Fatalf("%s does not run", victim)
	}
	pids := []int{pid}
	if victim == "postgres" {
		pids = append(pids, children(pid)...)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Fatalf("kill %s: %v", victim, err)
		}
	}
}

// children are the processes that a process has begun.
func children(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		content, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(content)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// TestRolloutsSurviveKills kills (SIGKILL) each process before, during and after each activity of a rollout that goes well and of one
// that is rolled back. Each ends wholly with the new or wholly with the stable release, and one record says which.
func TestRolloutsSurviveKills(t *testing.T) {
	t.Parallel()
	first, every, platforms := 0, 0, 1
	if text := os.Getenv(rolloutKills); text == "all" {
		every, platforms = 1, killPlatforms
	} else if text != "" {
		if _, err := fmt.Sscanf(text, "%d/%d", &first, &every); err != nil || every < 1 {
			t.Fatalf("%s=%s: want all, or 2/5 for every fifth cell from the second on", rolloutKills, text)
		}
		first, platforms = first-1, killPlatforms
	}
	b := buildAll(t)
	var mu sync.Mutex
	rows := map[int]string{}
	total := 0
	t.Cleanup(func() { t.Logf("%d of %d cells\n%s", len(rows), total, tableOf(rows)) })
	for shard := range platforms {
		t.Run(fmt.Sprintf("platform %d", shard+1), func(t *testing.T) {
			t.Parallel()
			k := newKilling(t, b)
			ways := []bool{false, true}
			if every == 0 { // another day, the other way
				ways = ways[time.Now().YearDay()%2:][:1]
			}
			var cells []cell
			for _, bad := range ways {
				cells = append(cells, matrix(k.undisturbed(bad))...)
			}
			chosen := func(n int) bool { return n >= first && (n-first)%every == 0 && (n-first)/every%platforms == shard }
			if every == 0 {
				chosen = few(cells)
			}
			for n, c := range cells {
				if !chosen(n) {
					continue
				}
				row := c.String() + "\tFAILED\t"
				t.Run(strings.ReplaceAll(c.String(), "\t", " "), func(t *testing.T) {
					defer func() {
						mu.Lock()
						defer mu.Unlock()
						rows[n], total = row, len(cells)
					}()
					k.platform.t = t
					end, took := k.kill(c)
					if !t.Failed() {
						row = fmt.Sprintf("%s\t%s\t%.0f", c, end.State, took.Seconds())
						t.Log(row) // a long run may be broken off
					}
				})
				k.platform.t = t
			}
		})
	}
}

// few picks two cells that are quickly over, another pair each day.
func few(cells []cell) func(n int) bool {
	var pool []int
	for n, c := range cells {
		if c.victim != "ops-worker" && c.victim != "sms up" {
			pool = append(pool, n)
		}
	}
	day := time.Now().YearDay()
	picked := []int{pool[day*7%len(pool)], pool[(day*7+len(pool)/2)%len(pool)]}
	return func(n int) bool { return slices.Contains(picked, n) }
}

func tableOf(rows map[int]string) string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "WAY\tACTIVITY\tKILLED\tAT\tENDED AS\tSECONDS")
	for _, n := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintln(w, rows[n])
	}
	_ = w.Flush()
	return table.String()
}
