package configuration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

var testConfig = Config{WatchWait: time.Minute, WatchInterval: 5 * time.Millisecond}

// patience is how long a test waits for what must come: less than a watch may wait.
const patience = 30 * time.Second

// version reads the version of the settings from an answer, which says it twice.
func version(t *testing.T, a servertest.Answer) int64 {
	t.Helper()
	version, err := strconv.ParseInt(a.Header.Get("Settings-Version"), 10, 64)
	if err != nil || a.Header.Get("ETag") != fmt.Sprintf(`"%d"`, version) {
		t.Fatalf("headers %v: %v", a.Header, err)
	}
	return version
}

// waitFor asks for a version above n in the background.
func (f fixture) waitFor(t *testing.T, n int64) <-chan servertest.Answer {
	answers := make(chan servertest.Answer, 1)
	go func() {
		answers <- f.Do(t, identity.Viewer, http.MethodGet, fmt.Sprintf("%s?waitForVersion=%d", settings, n), nil)
	}()
	return answers
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestEveryWriteEndsTheWait(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	last := version(t, f.Do(t, identity.Viewer, http.MethodGet, settings, nil).Want(http.StatusOK))
	var made Setting
	for _, write := range []func() servertest.Answer{
		func() servertest.Answer {
			return f.Do(t, identity.Admin, http.MethodPost, settings, `{"category":"GENERAL","key":"MOTTO","value":"a"}`).Decode(&made)
		},
		func() servertest.Answer {
			return f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"b"}`, "If-Match", `"1"`)
		},
		func() servertest.Answer {
			return f.Do(t, identity.Admin, http.MethodDelete, path(made), nil, "If-Match", `"2"`)
		},
	} {
		waiting := f.waitFor(t, last)
		if status := write().Status; status >= 300 {
			t.Fatalf("the write answers %d", status)
		}
		next := version(t, receive(t, waiting).Want(http.StatusOK))
		if next <= last {
			t.Errorf("version %d after %d", next, last)
		}
		last = next
	}
	f.Do(t, identity.Admin, http.MethodPut, profile, `{"schoolName":"A","schoolCode":"B"}`, "If-Match", `"1"`).Want(http.StatusOK)
	if now := version(t, f.Do(t, identity.Viewer, http.MethodGet, settings+"/category/GENERAL", nil).Want(http.StatusOK)); now != last {
		t.Errorf("version %d, want %d: the profile is no setting", now, last)
	}
	// Before a restore there may have been later versions.
	if now := version(t, receive(t, f.waitFor(t, last+100)).Want(http.StatusOK)); now != last {
		t.Errorf("version %d, want %d", now, last)
	}
	if now := version(t, receive(t, f.waitFor(t, last-1)).Want(http.StatusOK)); now != last {
		t.Errorf("version %d, want %d", now, last)
	}
	f.Do(t, identity.Viewer, http.MethodGet, settings+"?waitForVersion=-2", nil).Faults(http.StatusUnprocessableEntity, "validation-error")
}

func TestWaitHoldsNoConnection(t *testing.T) {
	t.Parallel()
	f := newFixtureWith(t, testConfig, 1)
	waiting := make([]<-chan servertest.Answer, 20)
	for i := range waiting {
		waiting[i] = f.waitFor(t, 0)
	}
	f.Do(t, identity.Admin, http.MethodPost, settings, `{"category":"GENERAL","key":"MOTTO","value":"a"}`).Want(http.StatusCreated)
	for _, answers := range waiting {
		if v := version(t, receive(t, answers).Want(http.StatusOK)); v == 0 {
			t.Error("still version 0")
		}
	}
}

func TestWaitEndsWithoutAChange(t *testing.T) {
	t.Parallel()
	f := newFixtureWith(t, Config{WatchWait: time.Millisecond, WatchInterval: time.Millisecond}, 1)
	if v := version(t, receive(t, f.waitFor(t, 0)).Want(http.StatusOK)); v != 0 {
		t.Errorf("version %d", v)
	}
}

func TestWaitEndsWhenTheServerDrains(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.waitFor(t, 0)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	receive(t, before).Want(http.StatusOK)
	receive(t, f.waitFor(t, 0)).Want(http.StatusOK)
}

// One poller asks for everybody, and ends when the last has left.
func TestPollerRunsWhileSomebodyWaits(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	pollers := make(chan context.Context, 1)
	w := newWatch(testConfig, func(ctx context.Context) (int64, error) {
		select {
		case pollers <- ctx:
		default:
		}
		if now.Load() == 2 {
			return 0, errors.New("the database is away")
		}
		return now.Load(), nil
	})
	wait := func(ctx context.Context, n int64) <-chan error {
		done := make(chan error, 1)
		go func() { w.above(ctx, n); done <- ctx.Err() }()
		return done
	}
	stays := wait(t.Context(), 0)
	poller := receive(t, pollers)
	ctx, leave := context.WithCancel(t.Context())
	leaves := wait(ctx, 0)
	leave()
	receive(t, leaves)
	if poller.Err() != nil {
		t.Fatal("the poller ended though somebody waits")
	}
	now.Store(2) // a database that is away ends no wait
	receive(t, pollers)
	select {
	case <-stays:
		t.Fatal("the wait ended without a change")
	default:
	}
	now.Store(3)
	if err := receive(t, stays); err != nil {
		t.Error(err)
	}
	receive(t, poller.Done())
	now.Store(1) // a restore
	after := wait(t.Context(), 1)
	now.Store(4)
	receive(t, after)
}

func TestReadsOfWhatTheCallerHas(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	setting := f.find(t, Academic, "MIN_STUDENT_AGE")
	for _, p := range []string{settings, settings + "/category/ACADEMIC", path(setting), profile} {
		tag := f.Do(t, identity.Viewer, http.MethodGet, p, nil).Want(http.StatusOK).Header.Get("ETag")
		for _, have := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			a := f.Do(t, identity.Viewer, http.MethodGet, p, nil, "If-None-Match", have).Want(http.StatusNotModified)
			if len(a.Body) > 0 || a.Header.Get("ETag") != tag {
				t.Errorf("%s: %v %q", p, a.Header, a.Body)
			}
		}
		f.Do(t, identity.Viewer, http.MethodGet, p, nil, "If-None-Match", `"other"`).Want(http.StatusOK)
	}
	var document struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	f.Do(t, "", http.MethodGet, "/openapi.json", nil).Want(http.StatusOK).Decode(&document)
	for _, p := range []string{settings, settings + "/category/{category}", settings + "/{settingId}", profile} {
		if documented := document.Paths[p]["get"].Responses; documented["200"] == nil || documented["304"] == nil {
			t.Errorf("%s documents %v", p, documented)
		}
	}
	f.Do(t, identity.Admin, http.MethodPut, path(setting), `{"value":"4"}`, "If-Match", `"1"`).Want(http.StatusOK)
	f.Do(t, identity.Viewer, http.MethodGet, settings, nil, "If-None-Match", `"0"`).Want(http.StatusOK)
	f.Do(t, identity.Viewer, http.MethodGet, path(setting), nil, "If-None-Match", `"1"`).Want(http.StatusOK)
}
