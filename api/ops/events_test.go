package ops

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/worker"

	operationacts "github.com/school-sms/sms/activities/operation"
	rolloutacts "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/notice"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/migrations"
	flow "github.com/school-sms/sms/workflows/rollout"
)

// desk is an ops-service with a worker that imports releases and waits at gates, and has no target.
type desk struct {
	t      *testing.T
	server *server.Server
	store  *operation.Store
	signer *identity.Signer
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	private, public, err := identity.NewKeyPair()
	must(err)
	signer, err := identity.NewSigner(private)
	must(err)
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	must(err)
	pool, err := postgres.Open(t.Context(), pgtest.New(t, migrations.Ops()), "test")
	must(err)
	t.Cleanup(pool.Close)
	temporal, err := temporalclient.New(temporalclient.Config{Address: temporaltest.Address(t), Namespace: temporaltest.Namespace(t, rand.Text())}, log)
	must(err)
	t.Cleanup(temporal.Close)
	store := operation.NewStore(pool)

	w := worker.New(temporal, temporalclient.TaskQueue, worker.Options{})
	w.RegisterWorkflow(flow.RolloutPlan)
	w.RegisterActivity(&rolloutacts.Activities{})
	w.RegisterActivity(&operationacts.Activities{Store: store, Liveness: temporalclient.Liveness{Client: temporal}})
	must(w.Start())
	t.Cleanup(w.Stop)

	srv := server.New(server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1", MaxBodyBytes: 1 << 20, BodyIdleTimeout: time.Minute, ShutdownTimeout: 20 * time.Second},
		server.Info{Service: "ops-service"}, verifier, log)
	notices, err := notice.NewDeliverer(pool, notice.Config{}, log)
	must(err)
	New(temporal, store, notices, Config{TargetSocket: "none"}, log).Mount(srv)
	must(srv.Start(t.Context()))
	return &desk{t: t, server: srv, store: store, signer: signer}
}

// call makes a request whose answer the caller reads.
func (d *desk) call(role identity.Role, method, path, body, last string) *http.Response {
	d.t.Helper()
	token, err := d.signer.Sign("meera", role, time.Minute)
	if err != nil {
		d.t.Fatal(err)
	}
	host, port := d.server.Addr()
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+host+":"+strconv.Itoa(port)+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Last-Event-Id": {last}}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// gated starts a plan that waits for an approval.
func (d *desk) gated() Operation {
	d.t.Helper()
	res := d.call(identity.Operator, http.MethodPost, rollouts.path,
		`{"environments": ["production"], "gate": true, "services": [{"service": "student-service", "release": "sha256:`+strings.Repeat("a", 64)+`"}]}`, "")
	var o Operation
	if err := json.NewDecoder(res.Body).Decode(&o); err != nil || res.StatusCode != http.StatusAccepted {
		d.t.Fatalf("%s, %v", res.Status, err)
	}
	return o
}

// heard is one event.
type heard struct {
	name, id, data string
}

// listen follows a rollout. The channel is closed with the stream.
func (d *desk) listen(id, last string) <-chan heard {
	d.t.Helper()
	res := d.call(identity.Viewer, http.MethodGet, rollouts.path+"/"+id+"/events", "", last)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		problem, _ := io.ReadAll(res.Body)
		d.t.Fatalf("%s, %v: %s", res.Status, res.Header, problem)
	}
	events := make(chan heard, 100)
	go func() {
		defer close(events)
		var e heard
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.name != "" {
					events <- e
				}
				e = heard{}
			}
		}
	}()
	return events
}

// until returns the first event that is as wanted; without one it fails.
func until(t *testing.T, events <-chan heard, wanted func(Operation) bool) (heard, Operation) {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		select {
		case e, more := <-events:
			var o Operation
			if !more || e.name != "rollout" || json.Unmarshal([]byte(e.data), &o) != nil {
				t.Fatalf("heard %+v, stream open: %t", e, more)
			}
			if wanted(o) {
				return e, o
			}
		case <-patience:
			t.Fatal("not heard in time")
		}
	}
}

func waits(o Operation) bool { return strings.HasPrefix(o.Summary, "Waits until") }

func TestFollowARolloutToItsEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	o := d.gated()
	events := d.listen(o.ID[:5], "")
	waiting, _ := until(t, events, waits)
	again := d.listen(o.ID, waiting.id)
	if res := d.call(identity.Operator, http.MethodPost, rollouts.path+"/"+o.ID+"/abort", `{"reason": "wrong build"}`, ""); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if first := <-again; strings.Contains(first.data, `"Waits until`) && !strings.Contains(first.data, "wrong build") {
		t.Errorf("what was known was sent again: %+v", first)
	}
	last, ended := until(t, events, func(o Operation) bool { return o.EndedAt != nil })
	if ended.State != flow.Aborted || !strings.Contains(ended.Summary, "wrong build") || ended.Activity != nil {
		t.Errorf("ended %s: %s, while it does %+v", ended.State, ended.Summary, ended.Activity)
	}
	if end, more := <-events; !more || end.name != "end" || end.data != flow.Aborted {
		t.Errorf("heard %+v, want the end", end)
	}
	if e, more := <-events; more {
		t.Errorf("heard %+v after the end", e)
	}
	if end := <-d.listen(o.ID, last.id); end.name != "end" {
		t.Errorf("heard %+v\nafter %+v, want only the end", end, last)
	}
	for _, refused := range []struct {
		role   identity.Role
		id     string
		status int
	}{{identity.Clerk, o.ID, http.StatusForbidden}, {identity.Viewer, "zzz", http.StatusNotFound}} {
		if res := d.call(refused.role, http.MethodGet, rollouts.path+"/"+refused.id+"/events", "", ""); res.StatusCode != refused.status {
			t.Errorf("%s gets %s for %s, want %d", refused.role, res.Status, refused.id, refused.status)
		}
	}
}

func TestStreamsAreLimitedAndEndWhenTheServiceDrains(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	o := d.gated()
	path := rollouts.path + "/" + o.ID + "/events"
	var open []*http.Response
	for range maxStreams - 1 {
		open = append(open, d.call(identity.Viewer, http.MethodGet, path, "", ""))
	}
	events := d.listen(o.ID, "")
	if res := d.call(identity.Viewer, http.MethodGet, path, "", ""); res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("one too many gets %s", res.Status)
	}
	_ = open[0].Body.Close()
	for deadline := time.Now().Add(time.Minute); ; { // each try takes a look at the database
		if res := d.call(identity.Viewer, http.MethodGet, path, "", ""); res.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a caller who has gone is not free")
		}
	}
	until(t, events, waits)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := d.server.Stop(ctx); err != nil {
		t.Error(err)
	}
	for e := range events {
		if e.name == "end" {
			t.Error("the rollout was said to have ended")
		}
	}
}
