package registry

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// TestCutOffRegistryComesBack cuts one of two registries off the database while both take changes.
func TestCutOffRegistryComesBack(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	link := newLink(t, database)
	cut, whole := start(t, link.config, false), start(t, database, false)
	for _, id := range []string{"edited-then-gone", "evicted-but-alive", "gone", "gone-then-back", "stays"} {
		whole.register(t, "a", id, "")
	}
	cut.await(t, "both know everybody", func(r *Registry) bool { return len(r.leases) == 5 })
	link.cut()
	cut.await(t, "it knows that it is cut off", func(r *Registry) bool { return !r.online })

	cut.register(t, "a", "new", "")
	cut.Do(t, "", http.MethodPut, "/eureka/apps/a/stays/metadata?mark=cut", nil).Want(200)
	cut.Do(t, "", http.MethodPut, "/eureka/apps/a/edited-then-gone/metadata?mark=cut", nil).Want(200)
	for _, id := range []string{"edited-then-gone", "gone", "gone-then-back"} {
		whole.Do(t, "", http.MethodDelete, "/eureka/apps/a/"+id, nil).Want(200)
	}
	evict := whole.registry.eviction(whole.registry.leases[key{"a", "evicted-but-alive"}])
	evict.decide = func(*lease, instant) (*lease, verdict) { return nil, removed } // as if its lease were over
	whole.registry.submit(t.Context(), evict)
	later := cut.registry.now() + 50*time.Millisecond // that much the two clocks are told apart
	cut.await(t, "some time has passed", func(r *Registry) bool { return r.now() > later })
	cut.register(t, "a", "gone-then-back", "")
	cut.Do(t, "", http.MethodPut, "/eureka/apps/a/evicted-but-alive", nil).Want(200)
	if got := cut.ids(t, "a"); got != "edited-then-gone evicted-but-alive gone gone-then-back new stays" {
		t.Errorf("cut off: %q", got)
	}

	link.mend()
	const want = "evicted-but-alive gone-then-back new stays"
	cut.await(t, "everything is stored", func(r *Registry) bool { return r.online && len(r.unstored) == 0 && len(r.leases) == 4 })
	for name, r := range map[string]*running{"the one that was cut off": cut, "the other": whole, "a third": start(t, database, false)} {
		if got := r.ids(t, "a"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := whole.registry.find(key{"a", "stays"}).leases[0].document().Metadata["mark"]; got != "cut" {
		t.Errorf("an edit was lost: %q", got)
	}
}

// TestPausedRegistryIsBelievedOnlyAfterItHasJoinedAgain stops a registry process until the other believes to be alone, and has it
// take a registration as soon as it goes on.
func TestPausedRegistryIsBelievedOnlyAfterItHasJoinedAgain(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	env := []string{"REGISTRY_EVICT_INTERVAL=200ms", "REGISTRY_MEMBER_LEASE=800ms"}
	paused, other := newProcess(t, database, env...), newProcess(t, database, env...)
	defer paused.launch()()
	defer other.launch()()
	others := func(n float64) func() bool {
		return func() bool { return other.metric("sms_registry_others") == n }
	}
	for round := range 5 {
		eventually(t, time.Minute, "there are two", others(1))
		paused.signal(syscall.SIGSTOP)
		eventually(t, time.Minute, "the other is alone", others(0))
		id := fmt.Sprint("i", round)
		answered := make(chan int, 1)
		go func() {
			status, _ := paused.call("POST", "/eureka/apps/several", instanceOf(id, "", 600))
			answered <- status
		}()
		paused.signal(syscall.SIGCONT)
		if status := <-answered; status != 204 {
			t.Fatalf("round %d: %d", round, status)
		}
		if status, _ := other.call("GET", appPath+id, ""); status != 200 {
			t.Errorf("round %d: what the paused one wrote is not read: %d", round, status)
		}
	}
}
