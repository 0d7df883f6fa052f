package registry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

const appPath = "/eureka/apps/several/"

func instanceOf(id, mark string, lease int) string {
	return fmt.Sprintf(`{"instance":{"instanceId":%q,"hostName":"h","app":"several","leaseInfo":{"durationInSecs":%d},"metadata":{"mark":%q}}}`, id, lease, mark)
}

// TestReadsSeeWritesOfOtherRegistries writes at one registry and reads at another at once.
func TestReadsSeeWritesOfOtherRegistries(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	var nodes []node
	for range 3 {
		nodes = append(nodes, start(t, database, false).node())
	}
	const writers, writes = 4, 80
	var pairs atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			id := fmt.Sprint("i", w)
			for n := range writes {
				at := rand.IntN(len(nodes))
				reader := nodes[(at+1+rand.IntN(len(nodes)-1))%len(nodes)]
				mark := fmt.Sprint(n)
				var status int
				wanted := 200
				switch n % 4 {
				case 0:
					status, _ = nodes[at].call("POST", strings.TrimSuffix(appPath, "/"), instanceOf(id, mark, 600))
				case 1:
					status, _ = nodes[at].call("PUT", appPath+id+"/metadata?mark="+mark, "")
				case 2:
					status, _ = nodes[at].call("PUT", appPath+id+"/status?value=OUT_OF_SERVICE", "")
					mark = "OUT_OF_SERVICE"
				case 3:
					status, _ = nodes[at].call("DELETE", appPath+id, "")
					wanted = 404
				}
				if status != 200 && status != 204 {
					t.Errorf("write %d at %d: status %d", n, at, status)
				}
				got, body := reader.call("GET", appPath+id, "")
				if got != wanted || wanted == 200 && !strings.Contains(string(body), `"`+mark+`"`) {
					t.Errorf("write %d was not read: status %d, %s", n, got, body)
				}
				pairs.Add(1)
			}
		})
	}
	wg.Wait()
	if pairs.Load() != writers*writes {
		t.Errorf("%d pairs", pairs.Load())
	}
}

// TestWritesOfAJoiningRegistryAreSeenByOneThatWasAlone: a registry that is alone does not ask the database, so one that joins
// must not be believed to have written before the other knows of it.
func TestWritesOfAJoiningRegistryAreSeenByOneThatWasAlone(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	old := start(t, database, false)
	for n := range 10 {
		old.await(t, "it is alone", func(r *Registry) bool { return r.alone() })
		joining := start(t, database, false)
		id := fmt.Sprint("i", n)
		joining.register(t, "several", id, "")
		if got := old.Do(t, "", http.MethodGet, appPath+id, nil); got.Status != 200 {
			t.Errorf("round %d: the registration at the one that joins is not read: %d", n, got.Status)
		}
		joining.stop()
	}
}

// TestRegistriesAgree has clients write to three registry processes while registries and the database are killed. After that all
// know the same, and that is what the clients wrote last.
func TestRegistriesAgree(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	database := server.New(t, migrations.Registry())
	var nodes []*process
	var kills []func()
	for range 3 {
		p := newProcess(t, database, "REGISTRY_EVICT_INTERVAL=200ms", "SERVER_DRAIN_DELAY=0s")
		nodes = append(nodes, p)
		kills = append(kills, p.launch())
	}
	defer func() {
		for _, kill := range kills {
			kill()
		}
	}()
	ready := func() {
		t.Helper()
		for _, n := range nodes {
			eventually(t, time.Minute, "every registry is with the database", func() bool {
				return n.metric("sms_registry_database_up") == 1 && n.metric("sms_registry_unstored") == 0
			})
		}
	}
	ready()
	const writers = 6
	models := make([]map[string]string, writers)
	for w := range models {
		models[w] = map[string]string{}
	}
	// Each round some fault happens while the clients write.
	for round, fault := range []func(){
		func() { kills[0](); kills[0] = nodes[0].launch() },
		func() { server.End(syscall.SIGKILL); server.Start(t) },
		func() { kills[1](); kills[2](); kills[1], kills[2] = nodes[1].launch(), nodes[2].launch() },
		func() { server.End(syscall.SIGINT); server.Start(t) },
	} {
		over := make(chan struct{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				at := rand.IntN(len(nodes))
				for n := 0; n < 15 || !closed(over); n++ {
					// A registry that is away loses its clients to the next. While the database is away they stay, as clients do.
					at = write(t, nodes, at, fmt.Sprintf("w%d-%d", w, rand.IntN(5)), fmt.Sprintf("r%d-%d", round, n), models[w])
					if round%2 == 0 {
						at = rand.IntN(len(nodes))
					}
				}
			})
		}
		fault()
		close(over)
		wg.Wait()
		ready()
		want := map[string]string{}
		for _, model := range models {
			for id, is := range model {
				want[id] = is
			}
		}
		for i, n := range nodes {
			if got := n.everybody(); got != listed(want) {
				t.Fatalf("round %d: registry %d knows %s\nwant %s", round, i, got, listed(want))
			}
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// write makes one random change of an instance, at the next registry when one does not answer, and notes it.
func write(t *testing.T, nodes []*process, at int, id, mark string, model map[string]string) int {
	const tries = 3000
	kind := rand.IntN(4)
	is, here := model[id]
	if !here {
		kind = 0
	}
	parts := strings.Split(is, " ")
	for range tries {
		var status int
		switch kind {
		case 0:
			status, _ = nodes[at].call("POST", strings.TrimSuffix(appPath, "/"), instanceOf(id, mark, 600))
		case 1:
			status, _ = nodes[at].call("PUT", appPath+id+"/metadata?mark="+mark, "")
		case 2:
			status, _ = nodes[at].call("PUT", appPath+id+"/status?value=OUT_OF_SERVICE", "")
		case 3:
			status, _ = nodes[at].call("DELETE", appPath+id, "")
		}
		if status == 0 || status == 503 {
			at = (at + 1) % len(nodes)
			continue
		}
		switch {
		case status != 200 && status != 204 && (kind != 3 || status != 404): // a farewell that was sent twice
			t.Errorf("change %d of %s: status %d", kind, id, status)
		case kind == 3:
			delete(model, id)
		case kind == 0 && !here:
			model[id] = "UP UNKNOWN " + mark
		case kind == 0 || kind == 1:
			model[id] = parts[0] + " " + parts[1] + " " + mark
		case kind == 2:
			model[id] = "OUT_OF_SERVICE OUT_OF_SERVICE " + parts[2]
		}
		return at
	}
	t.Errorf("no registry answers")
	return at
}

// TestDeadInstanceGoesEverywhere kills instances, and the registry that some of them spoke to.
func TestDeadInstanceGoesEverywhere(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	var nodes []*process
	var kills []func()
	for range 3 {
		p := newProcess(t, database)
		nodes = append(nodes, p)
		kills = append(kills, p.launch())
	}
	defer func() {
		for _, kill := range kills {
			kill()
		}
	}()
	for _, n := range nodes {
		eventually(t, time.Minute, "the registry is there", func() bool { return n.metric("sms_registry_others") == 2 })
	}
	const lease = 4 * time.Second
	living := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		id := fmt.Sprint("living-", i)
		nodes[0].call("POST", strings.TrimSuffix(appPath, "/"), instanceOf(id, "", int(lease.Seconds())))
		wg.Go(func() { // speaks to another registry each time
			beat := time.NewTicker(lease / 4)
			defer beat.Stop()
			for at := i; ; at++ {
				select {
				case <-living:
					return
				case <-beat.C:
					for n := range nodes {
						if status, _ := nodes[(at+n)%len(nodes)].call("PUT", appPath+id, ""); status == 404 {
							t.Errorf("%s was evicted", id)
						} else if status == 200 {
							break
						}
					}
				}
			}
		})
	}
	nodes[1].call("POST", strings.TrimSuffix(appPath, "/"), instanceOf("dead-1", "", int(lease.Seconds())))
	nodes[2].call("POST", strings.TrimSuffix(appPath, "/"), instanceOf("dead-2", "", int(lease.Seconds())))
	for _, dead := range []string{"dead-1", "dead-2"} {
		if status, _ := nodes[2].call("PUT", appPath+dead, ""); status != 200 {
			t.Fatalf("%s cannot renew at another registry: %d", dead, status)
		}
	}
	died := time.Now()
	kills[2]() // with the renewals that it alone knows
	for _, n := range nodes[:2] {
		eventually(t, lease+5*time.Second-time.Since(died), "the dead are gone", func() bool {
			for _, dead := range []string{"dead-1", "dead-2"} {
				if status, _ := n.call("GET", appPath+dead, ""); status != 404 {
					return false
				}
			}
			return true
		})
		if got := n.everybody(); !strings.HasPrefix(got, "8 instances") {
			t.Errorf("of 8 living: %s", got)
		}
	}
	t.Logf("gone after %s", time.Since(died))
	close(living)
	wg.Wait()
}

// TestSilenceOfMostEvictsNobody stops all heartbeats at three registries for several leases, and then one instance for good.
func TestSilenceOfMostEvictsNobody(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	registries := []*running{start(t, database, false), start(t, database, false), start(t, database, false)}
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i, id := range ids {
		registries[i%3].Do(t, "", "POST", strings.TrimSuffix(appPath, "/"), instanceOf(id, "", 2)).Want(204)
	}
	for _, r := range registries {
		r.await(t, "the silence is noticed", func(r *Registry) bool { return r.preserving })
		r.await(t, "three leases have passed", func(r *Registry) bool {
			for _, l := range r.leases {
				if l.age(r.now()) < 6*time.Second {
					return false
				}
			}
			return true
		})
		if got := r.ids(t, "several"); got != strings.Join(ids, " ") {
			t.Fatalf("after the silence: %q", got)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i, id := range ids[1:] { // a is dead
		n := registries[i%3].node()
		wg.Go(func() {
			beat := time.NewTicker(300 * time.Millisecond)
			defer beat.Stop()
			for {
				if status, _ := n.call("PUT", appPath+id, ""); status != 200 {
					t.Errorf("%s was evicted: %d", id, status)
				}
				select {
				case <-done:
					return
				case <-beat.C:
				}
			}
		})
	}
	for _, r := range registries {
		r.await(t, "the dead one is gone", func(r *Registry) bool { return r.leases[key{"several", "a"}] == nil })
	}
	close(done)
	wg.Wait()
	for _, r := range registries {
		if got := r.ids(t, "several"); got != strings.Join(ids[1:], " ") {
			t.Errorf("at last: %q", got)
		}
	}
}

// TestSplitReachesWatchersOfOtherRegistries sets a split at one registry and waits for it at the others.
func TestSplitReachesWatchersOfOtherRegistries(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	registries := []*running{start(t, database, false), start(t, database, false)}
	before, err := registries[1].client(t, identity.Viewer).Snapshot(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/api/v1/registry/splits/student-service"
	set := func(body string) {
		t.Helper()
		registries[0].Do(t, identity.Operator, "PUT", path, body).Want(200)
	}
	set(`{"split":{"x":90,"y":10},"sticky":true,"fence":3}`)
	changed := time.Now()
	var app discovery.Application
	for len(app.Split) == 0 {
		if before, err = registries[1].client(t, identity.Viewer).Snapshot(t.Context(), before.Revision, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		app = before.App("student-service")
	}
	if took := time.Since(changed); took > time.Second || app.Split["y"] != 10 || !app.Sticky {
		t.Errorf("%+v after %s", app, took)
	}
	set(`{"split":{"x":50,"y":50},"fence":4}`) // which says nothing of stickiness
	third := start(t, database, false)
	for _, r := range append(slices.Clone(registries), third) {
		var state discovery.SplitState
		r.Do(t, identity.Viewer, "GET", path, nil).Want(200).Decode(&state)
		if !state.Sticky || state.Split["y"] != 50 || state.Fence != 4 {
			t.Errorf("read at another registry: %+v", state)
		}
	}
	set(`{"split":{"x":50,"y":50},"sticky":false,"fence":4}`)
	if state, err := third.client(t, identity.Viewer).SplitState(t.Context(), "student-service"); err != nil || state.Sticky {
		t.Errorf("%+v, %v", state, err)
	}
	if err := third.client(t, identity.Operator).SetSplit(t.Context(), "student-service", discovery.Split{"x": 100}, 3); !errors.Is(err, discovery.ErrFenced) {
		t.Errorf("a lower fence at another registry: %v", err)
	}
}
