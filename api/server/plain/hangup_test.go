package plain

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// What waits for the end of a request hears of it, by whatever context and however many wait; what has stopped waiting does not.
func TestAfterHangUp(t *testing.T) {
	t.Parallel()
	running, done := make(chan struct{}), make(chan struct{})
	p := start(t, func(_ http.ResponseWriter, r *http.Request) {
		defer close(done)
		told := make(chan string, 10)
		wait := func(ctx context.Context, name string) (stop func() bool) {
			return AfterHangUp(ctx, func() { told <- name })
		}
		type key struct{}
		stop := wait(context.WithValue(r.Context(), key{}, 1), "stopped")
		if !stop() || stop() {
			t.Error("it does not stop once")
		}
		own, cancel := context.WithCancel(r.Context())
		wait(own, "own")
		cancel()
		if who := <-told; who != "own" {
			t.Errorf("%s was told, want own", who)
		}
		first := wait(r.Context(), "first")
		wait(r.Context(), "second")
		close(running)
		if a, b := <-told, <-told; min(a, b) != "first" || max(a, b) != "second" {
			t.Errorf("%s and %s were told", a, b)
		}
		if first() {
			t.Error("it stops what was told")
		}
		wait(r.Context(), "late")
		if who := <-told; who != "late" {
			t.Errorf("%s was told, want late", who)
		}
	}, nil)
	c := dial(t, p.fronted).send(get)
	<-running
	c.Close()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("somebody was not told")
	}
}

// One connection's next request waits anew.
func TestAfterHangUpOfTheNextRequest(t *testing.T) {
	t.Parallel()
	told, running := make(chan struct{}), make(chan struct{})
	requests := 0
	p := start(t, func(_ http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			AfterHangUp(r.Context(), func() { t.Error("who has stopped was told") })()
			return
		}
		AfterHangUp(r.Context(), func() { close(told) })
		close(running)
		<-told
	}, nil)
	c := dial(t, p.fronted).send(get)
	c.said()
	c.send(get)
	<-running
	c.Close()
	<-told
}
