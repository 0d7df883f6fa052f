package registry

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// deltaClient keeps a copy as Eureka clients do (com.netflix.discovery.DiscoveryClient#updateDelta).
type deltaClient struct {
	copy map[string]document
	full int
}

func (d *deltaClient) fetch(t *testing.T, r *running) {
	d.copy = map[string]document{}
	d.full++
	for _, app := range readJSON(t, r.Do(t, "", "GET", "/eureka/apps", nil, "Accept", "application/json").Want(200).Body).Apps {
		for _, i := range app.Instances {
			d.copy[app.Name+"/"+string(i.InstanceID)] = i
		}
	}
}

// poll applies a delta and fetches everything when the copy's hash is not the registry's.
func (d *deltaClient) poll(t *testing.T, r *running) {
	delta := readJSON(t, r.Do(t, "", "GET", "/eureka/apps/delta", nil, "Accept", "application/json").Want(200).Body)
	for _, app := range delta.Apps {
		for _, i := range app.Instances {
			switch i.ActionType {
			case "ADDED", "MODIFIED":
				d.copy[app.Name+"/"+string(i.InstanceID)] = i
			case "DELETED":
				delete(d.copy, app.Name+"/"+string(i.InstanceID))
			default:
				t.Fatalf("action %q", i.ActionType)
			}
		}
	}
	states := map[string]int{}
	for _, i := range d.copy {
		states[string(i.Status)]++
	}
	if hash(states) != delta.Hash {
		d.fetch(t, r)
	}
}

// timeless is a copy without what a renewal moves.
func (d *deltaClient) timeless() map[string]document {
	all := map[string]document{}
	for k, i := range d.copy {
		i.Lease.LastRenewal = 0
		all[k] = i
	}
	return all
}

// TestDeltasLeadToTheFullState lets clients poll deltas at two registries at random moments of random histories.
func TestDeltasLeadToTheFullState(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	registries := []*running{start(t, database, false), start(t, database, false)}
	random := rand.New(rand.NewPCG(4, 13))
	clients := []*deltaClient{{}, {}, {}}
	for _, c := range clients {
		c.fetch(t, registries[0])
	}
	for step := range 400 {
		r := registries[random.IntN(2)]
		app, id := fmt.Sprint("app", random.IntN(3)), fmt.Sprint("i", random.IntN(6))
		path := "/eureka/apps/" + app + "/" + id
		switch random.IntN(6) {
		case 0, 1:
			r.register(t, app, id, fmt.Sprintf(`,"asgName":"s%d"`, step))
		case 2:
			r.Do(t, "", "DELETE", path, nil)
		case 3:
			r.Do(t, "", "PUT", path+"/status?value="+[]string{"OUT_OF_SERVICE", "UP", "DOWN"}[random.IntN(3)], nil)
		case 4:
			r.Do(t, "", "PUT", path+fmt.Sprintf("/metadata?step=%d", step), nil)
		case 5:
			r.Do(t, "", "DELETE", path+"/status", nil)
		}
		if random.IntN(4) > 0 {
			continue
		}
		c := clients[random.IntN(len(clients))]
		at := registries[random.IntN(2)] // clients change registries too
		c.poll(t, at)
		whole := &deltaClient{}
		whole.fetch(t, at)
		if !reflect.DeepEqual(c.timeless(), whole.timeless()) {
			t.Fatalf("step %d: after the delta %v\nin full %v", step, c.timeless(), whole.timeless())
		}
	}
	for i, c := range clients {
		if c.full > 1 {
			t.Errorf("client %d had to fetch everything %d times", i, c.full)
		}
	}
}

// TestRestartTellsWhatHappenedBefore: a client that polled the former run learns from the next one's delta.
func TestRestartTellsWhatHappenedBefore(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Registry())
	first := start(t, database, false)
	first.register(t, "a", "leaves", "")
	c := &deltaClient{}
	c.fetch(t, first)
	first.Do(t, "", "DELETE", "/eureka/apps/a/leaves", nil).Want(200)
	first.register(t, "a", "comes", "") // which leaves the hash as it was
	first.stop()
	second := start(t, database, false)
	c.poll(t, second)
	if _, gone := c.copy["A/leaves"]; gone || len(c.copy) != 1 || c.full != 1 {
		t.Errorf("%v, %d full fetches", c.copy, c.full)
	}
}

func TestDeltaIsBounded(t *testing.T) {
	t.Parallel()
	r := newRecent(Config{DeltaRetention: time.Minute, DeltaMax: 10})
	at := instant(0)
	add := func(id string) {
		at += time.Second
		r.add(at, &lease{key: key{"a", id}})
	}
	for i := range 8 {
		add(fmt.Sprint(i))
	}
	for range 1000 { // one that changes all the time
		at -= time.Second
		add("busy")
	}
	if leases, whole := r.list(at); len(leases) != 9 || !whole || len(r.events) > 200 {
		t.Errorf("%d leases, whole %t, %d events", len(leases), whole, len(r.events))
	}
	for i := range 5 {
		add(fmt.Sprint("more", i))
	}
	if leases, whole := r.list(at); len(leases) != 10 || whole {
		t.Errorf("%d leases, whole %t: a client would not know that a change is missing", len(leases), whole)
	}
	if leases, whole := r.list(at + 2*time.Minute); len(leases) != 0 || !whole || len(r.latest) != 0 {
		t.Errorf("%d leases, whole %t after the retention", len(leases), whole)
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	r.register(t, "a", "one", "")
	r.register(t, "a", "two", "")
	read := func(path string, more ...string) []byte {
		t.Helper()
		answer := r.Do(t, "", "GET", "/eureka"+path, nil, append([]string{"Accept-Encoding", "gzip, deflate"}, more...)...).Want(200)
		if got := answer.Header.Get("Content-Encoding"); got != "gzip" {
			t.Fatalf("%s: Content-Encoding %q", path, got)
		}
		unpacked, err := gzip.NewReader(bytes.NewReader(answer.Body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	for _, path := range []string{"/apps", "/apps/delta", "/vips/a"} {
		if got := readJSON(t, read(path, "Accept", "application/json")); got.Hash != "UP_2_" || len(got.Apps[0].Instances) != 2 {
			t.Errorf("%s: %+v", path, got)
		}
		if got := readXML(t, read(path)); got.Hash != "UP_2_" || len(got.Apps[0].Instances) != 2 {
			t.Errorf("%s: %+v", path, got)
		}
	}
	r.register(t, "a", "three", "")
	if got := readJSON(t, read("/apps?regions=eu", "Accept", "application/vnd.netflix+json")); got.Hash != "UP_3_" {
		t.Errorf("a kept answer outlived a change: %+v", got)
	}
	if got := read("/apps/a/three"); !bytes.Contains(got, []byte("<instanceId>three</instanceId>")) {
		t.Errorf("one instance: %s", got)
	}
	plain := r.Do(t, "", "GET", "/eureka/apps", nil, "Accept-Encoding", "gzip;q=0, identity", "Accept", "*/*").Want(200)
	if got := readXML(t, plain.Body); got.Hash != "UP_3_" || plain.Header.Get("Content-Encoding") != "" {
		t.Errorf("who refuses gzip: %s", plain.Header)
	}

	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, instanceJSON("b", "packed", ""))
	_ = w.Close()
	r.Do(t, "", "POST", "/eureka/apps/b", packed.String(), "Content-Encoding", "gzip").Want(204)
	r.Do(t, "", "GET", "/eureka/apps/b/packed", nil).Want(200)
	r.Do(t, "", "POST", "/eureka/apps/b", "no gzip", "Content-Encoding", "gzip").Want(400)
	var bomb bytes.Buffer
	w = gzip.NewWriter(&bomb)
	_, _ = io.WriteString(w, `{"instance":{"hostName":"`+strings.Repeat("x", 2*maxInstanceBytes)+`"}}`)
	_ = w.Close()
	r.Do(t, "", "POST", "/eureka/apps/b", bomb.String(), "Content-Encoding", "gzip").Want(400)
}

// TestOlderWordsDoNotReplaceNewerOnes: what an instance said last holds, whatever arrives last.
func TestOlderWordsDoNotReplaceNewerOnes(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	r.register(t, "a", "one", `,"lastDirtyTimestamp":"200","asgName":"newer"`)
	r.register(t, "a", "one", `,"lastDirtyTimestamp":"100","asgName":"older"`)
	if got := r.Do(t, "", "GET", "/eureka/apps/a/one", nil).Want(200); !bytes.Contains(got.Body, []byte("newer")) {
		t.Errorf("an older word replaced a newer one: %s", got.Body)
	}
	r.Do(t, "", "PUT", "/eureka/apps/a/one?lastDirtyTimestamp=150&status=UP&overriddenstatus=UNKNOWN", nil).Want(200)
	r.Do(t, "", "PUT", "/eureka/apps/a/one/status?value=DOWN&lastDirtyTimestamp=300", nil).Want(200)
	r.Do(t, "", "PUT", "/eureka/apps/a/one?lastDirtyTimestamp=300", nil).Want(200)
	r.Do(t, "", "PUT", "/eureka/apps/a/one?lastDirtyTimestamp=301", nil).Want(404)
}
