package discovery

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestRegistrarGoesToTheNextRegistry takes the registries away one after the other.
func TestRegistrarGoesToTheNextRegistry(t *testing.T) {
	t.Parallel()
	first, second := newFakeEureka(t), newFakeEureka(t)
	cfg := testConfig(first.URL)
	cfg.URL = "http://127.0.0.1:1/eureka, " + first.URL + "/eureka/," + second.URL + "/eureka"
	r := NewRegistrar(cfg, Instance{App: "a", ID: "one", Host: "h", Port: 1}, quiet)
	r.Start()
	<-r.Registered()
	first.await(t, "PUT /eureka/apps/A/one")
	select {
	case call := <-second.calls:
		t.Errorf("%s at the second registry while the first answers", call)
	default:
	}
	first.set("PUT", 503)
	second.await(t, "PUT /eureka/apps/A/one")
	second.set("PUT", 404) // does not know the instance: that is an answer
	second.await(t, "POST /eureka/apps/A")
	second.set("PUT", 0)
	second.await(t, "PUT /eureka/apps/A/one")
	second.Close()
	first.set("PUT", 0)
	first.await(t, "PUT /eureka/apps/A/one")
	if err := r.Stop(context.Background()); err != nil {
		t.Error(err)
	}
	first.await(t, "DELETE /eureka/apps/A/one")
}

// TestViewGoesToTheNextRegistry kills the registry that a view follows.
func TestViewGoesToTheNextRegistry(t *testing.T) {
	t.Parallel()
	serve := func(epoch string) *httptest.Server {
		release := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("after") == epoch { // a long poll with nothing to tell
				select {
				case <-release:
				case <-r.Context().Done():
				}
				return
			}
			_, _ = w.Write([]byte(`{"revision":` + epoch + `,"epoch":` + epoch + `,"settled":true,"stored":true,"apps":{}}`))
		}))
		t.Cleanup(func() { close(release); s.Close() })
		return s
	}
	first, second := serve("1"), serve("2")
	cfg := testConfig("")
	cfg.URL = first.URL + "/eureka," + second.URL + "/eureka"
	v := NewView(NewClient(cfg), quiet)
	v.Start()
	defer v.Stop()
	await := func(epoch int64) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			snapshot, changed := v.Current()
			if snapshot.Epoch == epoch {
				return
			}
			select {
			case <-changed:
			case <-timeout:
				t.Fatalf("epoch %d does not come", epoch)
			}
		}
	}
	await(1)
	first.CloseClientConnections()
	first.Listener.Close()
	await(2)
	if err := v.Err(); err != nil {
		t.Errorf("lost while one registry answers: %v", err)
	}
}

func TestSeveralAddressesAreChecked(t *testing.T) {
	t.Parallel()
	cfg := testConfig("")
	cfg.LeaseDuration = 15 * time.Second
	cfg.URL = "http://a:1/eureka,b"
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "DISCOVERY_URL") {
		t.Errorf("%v", err)
	}
	cfg.URL = "http://a:1/eureka, http://b:1/eureka/v2/"
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
}
