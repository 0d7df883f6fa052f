package registry

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// TestMain lets this binary be a registry too, so that a test can kill one.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_EUREKA_SERVER") != "" {
		server.Run(server.Module("eureka-server"), Module, server.Serve)
	}
	os.Exit(m.Run())
}

var testConfig = Config{
	DefaultLease: 90 * time.Second, MaxLease: 10 * time.Minute, EvictInterval: 100 * time.Millisecond, PreserveGrace: time.Minute,
	MemberLease: 5 * time.Second, DeltaRetention: 3 * time.Minute, DeltaMax: 1000, GzipAge: time.Second,
	Settle: time.Hour, WriteWait: 5 * time.Second, StoreTimeout: 10 * time.Second, StartWait: 5 * time.Second, MaxWait: time.Minute,
}

// running is a registry that listens.
type running struct {
	*servertest.Service
	registry *Registry
	url      string
	stop     func()
}

// start runs a registry on a database until it is stopped or the test ends. It returns when the stored leases are
// loaded, unless the database is away.
func start(t *testing.T, database postgres.Config, away bool) *running {
	t.Helper()
	pool, err := postgres.Open(t.Context(), database, "test")
	if err != nil {
		t.Fatal(err)
	}
	r := New(testConfig, pool, slog.New(slog.NewTextHandler(io.Discard, nil)))
	s := servertest.New(t, "eureka-server", server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", ShutdownTimeout: 5 * time.Second})
	r.Mount(s.Server)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	loaded := make(chan struct{})
	wg.Go(func() { r.Follow(ctx, nil, loaded) })
	wg.Go(func() { r.Run(ctx) })
	if !away {
		<-loaded
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port := s.Addr()
	stop := sync.OnceFunc(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		wg.Wait()
		pool.Close()
	})
	t.Cleanup(stop)
	return &running{Service: s, registry: r, url: "http://" + discovery.Instance{Host: host, Port: port}.Address() + "/eureka", stop: stop}
}

func newRunning(t *testing.T) *running {
	t.Helper()
	return start(t, pgtest.New(t, migrations.Registry()), false)
}

// client speaks to the registry as an operator.
func (r *running) client(t *testing.T, role identity.Role) *discovery.Client {
	cfg := discovery.Config{URL: r.url, Timeout: 5 * time.Second, Wait: 30 * time.Second}
	return discovery.NewClient(cfg).WithToken(func() (string, error) { return r.Token(t, role), nil })
}

// register adds an instance over HTTP.
func (r *running) register(t *testing.T, app, id, more string) {
	t.Helper()
	r.Do(t, "", http.MethodPost, "/eureka/apps/"+app, instanceJSON(app, id, more)).Want(http.StatusNoContent)
}

func instanceJSON(app, id, more string) string {
	return `{"instance":{"instanceId":"` + id + `","hostName":"10.0.0.1","app":"` + strings.ToUpper(app) +
		`","ipAddr":"10.0.0.1","status":"UP","port":{"$":8081,"@enabled":"true"},"vipAddress":"` + app +
		`","dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},` +
		`"leaseInfo":{"durationInSecs":15},"metadata":{"release":"aaa","version":"1.0"}` + more + `}}`
}

// ids lists the instances of an application as the snapshot shows them.
func (r *running) ids(t *testing.T, app string) string {
	t.Helper()
	snapshot, err := r.client(t, identity.Viewer).Snapshot(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, instance := range snapshot.App(app).Instances {
		ids = append(ids, instance.ID)
	}
	return strings.Join(ids, " ")
}

// await waits until something holds of a registry, which changes wake and time does not.
func (r *running) await(t *testing.T, what string, holds func(*Registry) bool) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		r.registry.mu.Lock()
		ok, changed := holds(r.registry), r.registry.changed
		r.registry.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // what is not announced, as being online
		case <-timeout:
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}

func TestRestartKeepsLeasesAndSplits(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	first := start(t, database, false)
	first.register(t, "student-service", "one", "")
	first.register(t, "student-service", "two", "")
	first.register(t, "student-service", "three", "")
	first.Do(t, "", http.MethodDelete, "/eureka/apps/student-service/two", nil).Want(http.StatusOK)
	first.Do(t, "", http.MethodPut, "/eureka/apps/STUDENT-SERVICE/three/status?value=OUT_OF_SERVICE", nil).Want(http.StatusOK)
	split := discovery.Split{"aaa": 90, "bbb": 10}
	if err := first.client(t, identity.Operator).SetSplit(t.Context(), "Student-Service", split, 7); err != nil {
		t.Fatal(err)
	}
	before, err := first.client(t, identity.Viewer).Snapshot(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	first.stop()

	second := start(t, database, false)
	if got := second.ids(t, "student-service"); got != "one three" {
		t.Errorf("after a restart: %q", got)
	}
	after, err := second.client(t, identity.Viewer).Snapshot(t.Context(), before.Revision, time.Minute)
	if err != nil {
		t.Fatalf("who knows the revision of the former run must be answered at once: %v", err)
	}
	app := after.App("student-service")
	if app.Split["aaa"] != 90 || app.Split["bbb"] != 10 {
		t.Errorf("split after a restart: %v", app.Split)
	}
	if status := app.Instances[1].Status; status != discovery.StatusOutOfService {
		t.Errorf("the override was lost: %s", status)
	}
	if after.Revision <= before.Revision || after.Epoch == before.Epoch {
		t.Errorf("revision %d and epoch %d after %d and %d", after.Revision, after.Epoch, before.Revision, before.Epoch)
	}
	second.Do(t, "", http.MethodPut, "/eureka/apps/student-service/one", nil).Want(http.StatusOK)
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	link := newLink(t, database)
	r := start(t, link.config, false)
	r.register(t, "a", "before", "")

	link.cut()
	r.register(t, "a", "during", "")
	r.Do(t, "", http.MethodPut, "/eureka/apps/a/before", nil).Want(http.StatusOK)
	r.Do(t, "", http.MethodDelete, "/eureka/apps/a/before", nil).Want(http.StatusOK)
	if got := r.ids(t, "a"); got != "during" {
		t.Errorf("without the database: %q", got)
	}
	health := r.Do(t, "", http.MethodGet, "/actuator/health/readiness", nil).Want(http.StatusOK)
	if !strings.Contains(string(health.Body), `"database":{"status":"DOWN"}`) {
		t.Errorf("the lost database does not show: %s", health.Body)
	}
	if err := r.client(t, identity.Operator).SetSplit(t.Context(), "a", discovery.Split{"x": 100}, 1); err == nil {
		t.Error("a split that could not be stored was taken")
	}

	link.mend()
	r.await(t, "everything is stored", func(r *Registry) bool { return r.online && len(r.unstored) == 0 })
	r.stop()
	if got := start(t, database, false).ids(t, "a"); got != "during" {
		t.Errorf("stored after the outage: %q", got)
	}
}

func TestStartWithoutDatabase(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	first := start(t, database, false)
	first.register(t, "a", "stored", "")
	first.register(t, "a", "leaves", "")
	first.stop()

	link := newLink(t, database)
	link.cut()
	r := start(t, link.config, true)
	r.register(t, "a", "new", "")
	r.Do(t, "", http.MethodPut, "/eureka/apps/a/stored", nil).Want(http.StatusNotFound)
	snapshot, err := r.client(t, identity.Viewer).Snapshot(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if snapshot.Settled || snapshot.Stored || len(snapshot.App("a").Instances) != 1 {
		t.Errorf("a registry without its store claims to know everybody: %+v", snapshot)
	}
	link.mend()
	for !snapshot.Stored {
		if snapshot, err = r.client(t, identity.Viewer).Snapshot(t.Context(), snapshot.Revision, 30*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.ids(t, "a"); got != "leaves new stored" {
		t.Errorf("after the database came back: %q", got)
	}
}
