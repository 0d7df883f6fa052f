package notice

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/migrations"
)

// patience is for a machine that is busy with other tests.
const patience = 30 * time.Second

// ops is an ops_db, and a file of webhooks.
type ops struct {
	t        *testing.T
	database postgres.Config
	store    *operation.Store
	pool     *pgxpool.Pool
	file     string
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newOps(t *testing.T) *ops {
	t.Helper()
	o := &ops{t: t, database: pgtest.New(t, migrations.Ops()), file: filepath.Join(t.TempDir(), "webhooks.yaml"), log: &lockedBuffer{}}
	o.pool = o.connect()
	o.store = operation.NewStore(o.pool)
	o.webhooks("")
	return o
}

func (o *ops) connect() *pgxpool.Pool {
	o.t.Helper()
	pool, err := postgres.Open(o.t.Context(), o.database, "test")
	must(o.t, err)
	o.t.Cleanup(pool.Close)
	return pool
}

// webhooks writes the file at once: a deliverer that reads half of it would find no webhooks there.
func (o *ops) webhooks(lines ...string) {
	o.t.Helper()
	must(o.t, os.WriteFile(o.file+".new", []byte(strings.Join(lines, "\n")), 0o600))
	must(o.t, os.Rename(o.file+".new", o.file))
}

// deliverer is one that has looked once, and goes on by Start.
func (o *ops) deliverer(pool *pgxpool.Pool) *Deliverer {
	o.t.Helper()
	cfg := Config{File: File(o.file), Interval: 10 * time.Millisecond, Timeout: 500 * time.Millisecond, RetryMax: 20 * time.Millisecond, GiveUp: 24 * time.Hour}
	must(o.t, cfg.Check())
	d, err := NewDeliverer(pool, cfg, slog.New(slog.NewTextHandler(o.log, nil)))
	must(o.t, err)
	d.look(o.t.Context())
	o.t.Cleanup(d.Stop)
	return d
}

// say puts on record what an operation has come to.
func (o *ops) say(kind operation.Kind, id string, revision int64, state string, notify ...string) {
	o.t.Helper()
	r := operation.Record{ID: id, Kind: kind, WorkflowID: "w/" + id, RunID: id, Environment: "production", Subject: "student-service",
		State: state, Summary: "It is " + state + ".", StartedBy: "meera", StartedAt: time.Now(), Revision: revision}
	if notify != nil {
		r.Input, _ = json.Marshal(map[string]any{"each": map[string]any{"notify": notify}})
	}
	must(o.t, o.store.Record(o.t.Context(), r))
}

// got is a message as it came.
type got struct {
	id, signature, at string
	body              []byte
	message
}

// receiver answers as answer says; 0 closes the connection.
type receiver struct {
	*httptest.Server
	t        *testing.T
	messages chan got
}

func newReceiver(t *testing.T, answer func(n int, m got) int) *receiver {
	t.Helper()
	r := &receiver{t: t, messages: make(chan got, 1000)}
	var mu sync.Mutex
	n := 0
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		m := got{id: req.Header.Get("webhook-id"), signature: req.Header.Get("webhook-signature"), at: req.Header.Get("webhook-timestamp")}
		m.body, _ = io.ReadAll(req.Body)
		if err := json.Unmarshal(m.body, &m.message); err != nil {
			t.Errorf("%v: %s", err, m.body)
		}
		mu.Lock()
		n++
		this := n
		mu.Unlock()
		status := answer(this, m)
		r.messages <- m
		w.WriteHeader(status)
		fmt.Fprint(w, strings.Repeat("nobody reads this", 1000))
	}))
	t.Cleanup(r.Close)
	return r
}

func always(status int) func(int, got) int { return func(int, got) int { return status } }

func (r *receiver) next() got {
	r.t.Helper()
	select {
	case m := <-r.messages:
		return m
	case <-time.After(patience):
		r.t.Fatal("nothing came")
	}
	return got{}
}

func (r *receiver) want(id, event string) got {
	r.t.Helper()
	m := r.next()
	if m.Data.ID != id || m.Type != event {
		r.t.Errorf("%s of %s came, want %s of %s", m.Type, m.Data.ID, event, id)
	}
	return m
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, over := time.NewTicker(5*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// metric is what the deliverer tells of a webhook.
func metric(t *testing.T, d *Deliverer, name, webhook string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(d)
	families, err := registry.Gather()
	must(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "sms_notice_"+name && m.GetLabel()[0].GetValue() == webhook {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no %s of %s", name, webhook)
	return 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachWebhookIsToldWhatItWants(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	key := bytes.Repeat([]byte("k"), 32)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600))
	ordinary, nightly, early := newReceiver(t, always(204)), newReceiver(t, always(200)), newReceiver(t, always(200))
	o.webhooks(
		"- {name: ordinary, url: "+ordinary.URL+"/a, secretFile: "+secret+"}",
		"- {name: nightly, url: "+nightly.URL+", events: {kinds: [backup, restore-drill]}}",
		"- {name: early, url: "+early.URL+", events: {states: [running, succeeded]}}")
	o.say(operation.Rollout, "before", 1, operation.Failed)
	d := o.deliverer(o.pool)
	d.Start()

	o.say(operation.Rollout, "one", 1, operation.Running)
	o.say(operation.Rollout, "one", 2, operation.Waiting)
	o.say(operation.Rollout, "one", 3, operation.Waiting) // no other state
	o.say(operation.Rollout, "one", 4, operation.Running)
	o.say(operation.Backup, "two", 1, operation.Failed)
	o.say(operation.Rollout, "three", 1, operation.Waiting, "early") // whose filter it does not pass
	o.say(operation.Rollout, "three", 2, operation.Succeeded, "early")
	o.say(operation.Rollout, "one", 5, "rolled-back")

	m := ordinary.want("one", "rollout.waiting")
	want := data{ID: "one", Kind: "rollout", Environment: "production", Subject: "student-service", State: "waiting", Summary: "It is waiting.", StartedBy: "meera",
		Path: "/api/v1/ops/rollouts/one"}
	if m.Data != want || m.Text != "rollout of student-service in production: waiting. It is waiting." || time.Since(m.Timestamp) > time.Hour {
		t.Errorf("the message is %s", m.body)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(m.id + "." + m.at + "." + string(m.body)))
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); m.signature != want || m.id == "" || m.at == "" {
		t.Errorf("signed %q at %q as %q, want %q", m.id, m.at, m.signature, want)
	}
	ordinary.want("two", "backup.failed")
	ordinary.want("one", "rollout.rolled-back")
	if m := nightly.want("two", "backup.failed"); m.signature != "" {
		t.Errorf("signed without a key: %q", m.signature)
	}
	early.want("one", "rollout.running")
	early.want("one", "rollout.running")
	early.want("three", "rollout.succeeded")
	until(t, "three are counted", func() bool { return metric(t, d, "sent_total", "ordinary") == 3 })
	if len(nightly.messages)+len(ordinary.messages)+len(early.messages) > 0 {
		t.Error("more came than was wanted")
	}
}

// TestSignature is the example of the libraries of the Standard Webhooks specification.
func TestSignature(t *testing.T) {
	t.Parallel()
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	must(t, err)
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWhoFailsHoldsNobodyElse(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	release := make(chan struct{})
	trap := newReceiver(t, always(200))
	good := newReceiver(t, always(200))
	failing := newReceiver(t, func(n int, _ got) int {
		if n <= 3 {
			return 503
		}
		return 200
	})
	hanging := newReceiver(t, func(int, got) int {
		<-release
		return 200
	})
	redirecting := httptest.NewServer(http.RedirectHandler(trap.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirecting.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	const path = "/services/T0/very-secret"
	webhook := func(name, url string) string { return "- {name: " + name + ", url: " + url + path + "}" }
	o.webhooks(webhook("good", good.URL), webhook("failing", failing.URL), webhook("hanging", hanging.URL),
		webhook("redirecting", redirecting.URL), webhook("gone", gone.URL), webhook("unknown", "http://sms.invalid"))
	d := o.deliverer(o.pool)
	d.Start()
	for i := range int64(5) {
		o.say(operation.Rollout, "one", i+1, []string{operation.Waiting, operation.Failed}[i%2])
	}
	events := []string{"rollout.waiting", "rollout.failed", "rollout.waiting", "rollout.failed", "rollout.waiting"}
	for _, event := range events {
		good.want("one", event)
	}
	for range 3 { // the same again, under the same id
		if m := failing.want("one", events[0]); m.id != "notice_one_1" {
			t.Errorf("came as %s", m.id)
		}
	}
	for _, event := range events {
		failing.want("one", event)
	}
	why := func(name string) string {
		reports, err := d.Reports()
		must(t, err)
		for _, r := range reports {
			if r.Name == name && r.WaitingSince != nil && r.Failures > 0 {
				return r.Failure
			}
		}
		return ""
	}
	for name, reason := range map[string]string{"hanging": "it did not answer within 500ms", "redirecting": "it answered 307; redirects are not followed",
		"gone": "it refuses the connection", "unknown": "its host is not known"} {
		until(t, name+" says "+reason, func() bool { return why(name) == reason })
	}
	close(release)
	for came := 0; came < len(events); {
		switch m := hanging.next(); m.id {
		case fmt.Sprintf("notice_one_%d", came+1):
			came++
		case "notice_one_1": // a try that was given up
		default:
			t.Fatalf("%s came after %d", m.id, came)
		}
	}
	until(t, "it is well again", func() bool { return why("hanging") == "" })
	if len(trap.messages) > 0 {
		t.Error("a redirect was followed")
	}
	if n := metric(t, d, "failed_total", "failing"); n != 3 {
		t.Errorf("%v failures counted, want 3", n)
	}
	if waiting, well := metric(t, d, "oldest_seconds", "gone"), metric(t, d, "oldest_seconds", "good"); waiting <= 0 || well != 0 {
		t.Errorf("the oldest notices are %v s and %v s old", waiting, well)
	}
	if said := o.log.String(); strings.Contains(said, "very-secret") || strings.Contains(said, good.URL) || !strings.Contains(said, "webhook=gone") {
		t.Errorf("the log: %s", said)
	}
}

func TestWhatIsTooOldIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	r := newReceiver(t, always(200))
	o.webhooks("- {name: a, url: " + r.URL + "}")
	d := o.deliverer(o.pool)
	o.say(operation.Rollout, "old", 1, operation.Failed)
	o.say(operation.Rollout, "old", 2, operation.Running) // not wanted, so not missed
	_, err := o.pool.Exec(t.Context(), "update notice set at = at - interval '25 hours'")
	must(t, err)
	o.say(operation.Rollout, "new", 1, operation.Failed)
	d.Start()
	r.want("new", "rollout.failed")
	if n := metric(t, d, "dropped_total", "a"); len(r.messages) > 0 {
		t.Errorf("%v dropped, and %d more came", n, len(r.messages))
	}
	until(t, "one is counted", func() bool { return metric(t, d, "dropped_total", "a") == 1 })

	_, err = o.pool.Exec(t.Context(), "update notice set at = at - interval '6 days'")
	must(t, err)
	d.mu.Lock()
	d.swept = time.Time{}
	d.mu.Unlock()
	until(t, "those of a week ago are gone", func() bool {
		left := 0
		must(t, o.pool.QueryRow(t.Context(), "select count(*) from notice").Scan(&left))
		return left == 1
	})
}

// TestADelivererDies between the answer and its mark: the other sends that notice again, and then the others in their order.
func TestADelivererDies(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	dying := o.connect()
	r := newReceiver(t, func(n int, _ got) int {
		if n == 1 {
			dying.Close()
		}
		return 200
	})
	o.webhooks("- {name: a, url: " + r.URL + "}")
	first := o.deliverer(dying)
	first.lease = 700 * time.Millisecond
	const notices = 20
	for i := range int64(notices) {
		o.say(operation.Rollout, "one", i+1, []string{operation.Waiting, operation.Failed}[i%2])
	}
	first.look(t.Context())
	if m := r.next(); m.id != "notice_one_1" {
		t.Fatalf("%s came first", m.id)
	}
	for range 2 {
		o.deliverer(o.pool).Start()
	}
	for i := range notices {
		if m := r.next(); m.id != fmt.Sprintf("notice_one_%d", i+1) {
			t.Fatalf("%s came as number %d", m.id, i+1)
		}
	}
	if len(r.messages) > 0 {
		t.Error("two told it")
	}
}

// TestNoneIsMissed reads while many write: who has read up to an id finds nothing below it later.
func TestNoneIsMissed(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	const writers, each = 7, 40
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				o.say(operation.Rollout, fmt.Sprintf("%d-%d", w, i), 1, operation.Running)
			}
		})
	}
	reader := store{o.connect()}
	read, told := 0, int64(0)
	until(t, "all are read", func() bool {
		found, err := reader.after(t.Context(), told, time.Hour)
		must(t, err)
		for _, n := range found {
			told = n.ID
		}
		read += len(found)
		return told == writers*each
	})
	writing.Wait()
	if read != writers*each {
		t.Errorf("%d of %d were read", read, writers*each)
	}
}

func TestWhatEndedLongAgoIsNoNews(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	ended := time.Now().AddDate(0, 0, -3)
	_, err := o.store.Restore(t.Context(), operation.Record{ID: "old", Kind: operation.Backup, State: "verified", EndedAt: &ended})
	must(t, err)
	o.say(operation.Backup, "new", 1, operation.Running)
	found, err := store{o.pool}.after(t.Context(), 0, time.Hour)
	must(t, err)
	if len(found) != 1 || found[0].Operation != "new" {
		t.Errorf("notices %+v", found)
	}
}

func TestTest(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	good, bad := newReceiver(t, always(200)), newReceiver(t, always(404))
	o.webhooks("- {name: good, url: "+good.URL+"}", "- {name: bad, url: "+bad.URL+"}")
	d := o.deliverer(o.pool)
	for name, want := range map[string]string{"good": "", "bad": "it answered 404"} {
		if failure, err := d.Test(t.Context(), name, "meera"); failure != want || err != nil {
			t.Errorf("%s: %q %v", name, failure, err)
		}
	}
	if m := good.next(); m.Type != "webhook.test" || m.Data.StartedBy != "meera" || m.Data.Path != "" {
		t.Errorf("came: %s", m.body)
	}
	if _, err := d.Test(t.Context(), "other", "meera"); err != ErrUnknown {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestFileNamesEveryFaultAndNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, os.Chmod(path, mode))
		return path
	}
	open, short := write("open.key", "whsec_"+strings.Repeat("A", 40), 0o644), write("short.key", "c2hvcnQ=", 0o600)
	const address = "https://hooks.example/very-secret"
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    []string
	}{
		"empty":    {"\n", 0o600, nil},
		"good":     {"- {name: a, url: " + address + ", events: {kinds: [rollout], states: [waiting]}}", 0o640, nil},
		"open":     {"- {name: a, url: " + address + "}", 0o644, []string{"its mode 0644 lets everybody on this machine at it: chmod 600"}},
		"no list":  {address, 0o600, []string{"is no list of {name, url", "line 1"}},
		"unknown":  {"- name: a\n  adress: " + address, 0o600, []string{"is no list of {name, url", "line 2"}},
		"not YAML": {"- {name: a\n  url: " + address, 0o600, []string{"is no list of {name, url"}},
		"several": {"- {name: A b, url: 'ftp://very-secret'}\n- {name: a, url: '%zz very-secret', events: {kinds: [rolout], states: [faled]}}\n" +
			"- {name: a, url: " + address + ", secretFile: " + open + "}\n- {name: b, url: " + address + ", secretFile: " + short + "}", 0o600,
			[]string{`webhook 1 ("A b"): its name is not`, "webhook 1 (\"A b\"): its url does not", `webhook 2 ("a"): its url`, `the kind "rolout" is none of`,
				`the state "faled" is none of`, "open.key holds secrets", `webhook 3 ("a"): its name is taken`, "short.key does not hold base64"}},
	} {
		_, err := File(write("file", test.content, test.mode)).Read()
		if (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("%s: %v; want %q", name, err, part)
			}
		}
	}
}

// TestTheFileIsFollowed while the deliverer runs; while it is at fault, what it said before holds.
func TestTheFileIsFollowed(t *testing.T) {
	t.Parallel()
	o := newOps(t)
	r := newReceiver(t, always(200))
	d := o.deliverer(o.pool)
	d.Start()
	o.say(operation.Rollout, "before", 1, operation.Failed)
	o.webhooks("- {name: a, url: " + r.URL + "}")
	until(t, "it is known", func() bool { reports, _ := d.Reports(); return len(reports) == 1 && reports[0].Name == "a" })
	registered := 0
	until(t, "it is on record", func() bool {
		must(t, o.pool.QueryRow(t.Context(), "select count(*) from webhook").Scan(&registered))
		return registered == 1
	})
	o.say(operation.Rollout, "one", 1, operation.Failed)
	r.want("one", "rollout.failed")
	o.webhooks("nonsense")
	until(t, "the fault is told", func() bool { _, err := d.Reports(); return err != nil })
	o.say(operation.Rollout, "two", 1, operation.Failed)
	r.want("two", "rollout.failed")
	if !strings.Contains(o.log.String(), "is no list of") {
		t.Errorf("the log: %s", o.log)
	}
}
