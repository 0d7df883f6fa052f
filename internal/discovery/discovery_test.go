package discovery

import (
	"context"
	"encoding/json"
	"errors"
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
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func testConfig(url string) Config {
	return Config{URL: url + "/eureka/", RenewInterval: 10 * time.Millisecond, LeaseDuration: time.Second,
		Timeout: 2 * time.Second, Wait: 5 * time.Second}
}

// fakeEureka answers with the status that the test has set, and tells what came.
type fakeEureka struct {
	*httptest.Server
	mu     sync.Mutex
	status map[string]int // by method
	calls  chan string
	body   []byte
}

func newFakeEureka(t *testing.T) *fakeEureka {
	f := &fakeEureka{status: map[string]int{}, calls: make(chan string, 1000)}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		status := f.status[r.Method]
		if r.Method == http.MethodPost {
			f.body = body
		}
		f.mu.Unlock()
		if status == 0 {
			status = map[string]int{"POST": 204, "PUT": 200, "DELETE": 200}[r.Method]
		}
		w.WriteHeader(status)
		select {
		case f.calls <- r.Method + " " + r.URL.Path:
		default:
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeEureka) set(method string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status[method] = status
}

// await reads calls until one is the wanted one.
func (f *fakeEureka) await(t *testing.T, call string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-f.calls:
			if got == call {
				return
			}
		case <-timeout:
			t.Fatalf("%s did not come", call)
		}
	}
}

func TestRegistrarLife(t *testing.T) {
	t.Parallel()
	f := newFakeEureka(t)
	f.set("POST", 500) // the registry is not well yet
	r := NewRegistrar(testConfig(f.URL), Instance{App: "student-service", Host: "127.0.0.1", Port: 81, Release: "abc", Version: "1"}, quiet)
	r.Start()
	const register, path = "POST /eureka/apps/STUDENT-SERVICE", "/eureka/apps/STUDENT-SERVICE/127.0.0.1:student-service:81"
	f.await(t, register)
	f.await(t, register) // tries again
	f.set("POST", 0)
	<-r.Registered()
	f.await(t, "PUT "+path)

	f.set("PUT", 404) // forgets
	f.await(t, "PUT "+path)
	f.await(t, register)
	f.set("PUT", 0)
	f.await(t, "PUT "+path)

	if err := r.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	f.await(t, "DELETE "+path)
	select {
	case call := <-f.calls:
		t.Errorf("%s after leaving", call)
	default:
	}
	if err := r.Stop(context.Background()); err != nil {
		t.Errorf("a second stop: %v", err)
	}
	var sent struct {
		Instance struct {
			InstanceID string            `json:"instanceId"`
			Metadata   map[string]string `json:"metadata"`
		} `json:"instance"`
	}
	if err := json.Unmarshal(f.body, &sent); err != nil || sent.Instance.Metadata["release"] != "abc" {
		t.Errorf("%s, %v", f.body, err)
	}
}

func TestRegistrarStopIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hangs.Close()
	defer close(release)
	cfg := testConfig(hangs.URL)
	cfg.Timeout = 200 * time.Millisecond
	r := NewRegistrar(cfg, Instance{App: "a", Host: "h", Port: 1}, quiet)
	r.Start()
	start := time.Now()
	if err := r.Stop(context.Background()); err == nil {
		t.Error("left a registry that does not answer")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
	if err := NewRegistrar(cfg, Instance{}, quiet).Stop(context.Background()); err != nil {
		t.Errorf("stop without start: %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	t.Parallel()
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		switch {
		case strings.HasSuffix(r.URL.Path, "/fenced"):
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"detail":"newer"}`)
		case strings.HasSuffix(r.URL.Path, "/ok"):
			w.WriteHeader(http.StatusOK)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	cfg := testConfig(server.URL)
	if err := NewClient(cfg).SetSplit(t.Context(), "ok", nil, 1); err == nil {
		t.Error("changed a split without a token")
	}
	cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(cfg.TokenFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := NewClient(cfg)
	if err := c.SetSplit(t.Context(), "OK", nil, 1); err != nil || header.Get("Authorization") != "Bearer secret" {
		t.Errorf("%v, %q", err, header.Get("Authorization"))
	}
	if err := c.SetSplit(t.Context(), "fenced", nil, 1); !errors.Is(err, ErrFenced) {
		t.Errorf("%v", err)
	}
	err := c.ClearSplit(t.Context(), "away", 1)
	if answer, ok := errors.AsType[*AnswerError](err); !ok || answer.Status != 503 || errors.Is(err, ErrFenced) {
		t.Errorf("%v", err)
	}
}

func TestViewRemembersWhatARestartedRegistryForgot(t *testing.T) {
	t.Parallel()
	instances := func(ids ...string) map[string]Application {
		app := Application{}
		for _, id := range ids {
			app.Instances = append(app.Instances, Instance{App: "a", ID: id})
		}
		return map[string]Application{"a": app}
	}
	withSplit := func(apps map[string]Application, split Split) map[string]Application {
		app := apps["a"]
		app.Split, app.Sticky = split, true
		apps["a"] = app
		return apps
	}
	split := Split{"x": 100}
	for _, c := range []struct {
		name  string
		steps []Snapshot
		want  string
	}{
		{"a settled registry is believed", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: withSplit(instances("1", "2"), split)},
			{Epoch: 2, Settled: true, Stored: true, Apps: instances("2")}}, "2"},
		{"an empty new one is not", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: withSplit(instances("1", "2"), split)},
			{Epoch: 2}}, "1 2 split"},
		{"a new one adds", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: instances("1")},
			{Epoch: 2, Apps: instances("2")}}, "1 2"},
		{"who leaves the new one is gone", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: instances("1", "2")},
			{Epoch: 2, Apps: instances("1")},
			{Epoch: 2}}, "2"},
		{"a split that ended is over", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: withSplit(instances("1"), split)},
			{Epoch: 2, Stored: true, Apps: instances("1")}}, "1"},
		{"once settled it is believed", []Snapshot{
			{Epoch: 1, Settled: true, Stored: true, Apps: instances("1")},
			{Epoch: 2}, {Epoch: 2, Stored: true, Settled: true, Apps: instances("3")}}, "3"},
	} {
		v := NewView(nil, quiet)
		for _, step := range c.steps {
			v.take(step)
		}
		snapshot, _ := v.Current()
		var got []string
		for _, instance := range snapshot.App("A").Instances {
			got = append(got, instance.ID)
		}
		if len(snapshot.App("a").Split) > 0 && snapshot.App("a").Sticky {
			got = append(got, "split")
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

func TestApp(t *testing.T) {
	t.Parallel()
	for environment, want := range map[string]string{"": "s", "production": "s", "staging": "s-staging"} {
		if got := App("s", environment); got != want {
			t.Errorf("%q: %s, want %s", environment, got, want)
		}
	}
	for _, url := range []string{"http://h:1/eureka", "http://h:1/eureka/", "http://h:1/eureka/v2", "http://h:1"} {
		if got := root((Config{URL: url}).addresses()[0]); got != "http://h:1" {
			t.Errorf("root of %s: %s", url, got)
		}
	}
	if err := (Config{URL: "h:1", RenewInterval: 1, LeaseDuration: 1}).Check(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not every fault is named: %v", err)
	}
}

// TestSocketIsOnlyOfAServiceOnThisMachine keeps who registers from leading gateways to other sockets.
func TestSocketIsOnlyOfAServiceOnThisMachine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ host, named, want string }{
		{"127.0.0.1", "@sms/student-service/A", "@sms/student-service/A"}, {"::1", "@sms/a", "@sms/a"},
		{"127.0.0.1", "", ""}, {"127.0.0.1", "/run/docker.sock", ""}, {"127.0.0.1", "@other", ""},
		{"10.0.0.7", "@sms/a", ""}, {"student-service", "@sms/a", ""},
	} {
		i := Instance{Host: c.host, Metadata: map[string]string{MetadataSocket: c.named}}
		if got := i.Socket(); got != c.want {
			t.Errorf("%s, %q: %q", c.host, c.named, got)
		}
	}
}
