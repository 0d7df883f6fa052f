package registry

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

func TestSplitIsFenced(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	operator, ctx := r.client(t, identity.Operator), t.Context()
	set := func(share int, fence int64) error {
		return operator.SetSplit(ctx, "a", discovery.Split{"old": 100 - share, "new": share}, fence)
	}
	if err := set(10, 5); err != nil {
		t.Fatal(err)
	}
	if err := set(20, 5); err != nil {
		t.Errorf("the holder of the fence was refused: %v", err)
	}
	if err := set(50, 4); !errors.Is(err, discovery.ErrFenced) {
		t.Errorf("a lower fence: %v", err)
	}
	if err := operator.ClearSplit(ctx, "a", 4); !errors.Is(err, discovery.ErrFenced) {
		t.Errorf("clearing with a lower fence: %v", err)
	}
	state, err := operator.SplitState(ctx, "A")
	if err != nil || state.Split["new"] != 20 || state.Fence != 5 || state.UpdatedBy != "operator" {
		t.Errorf("%+v, %v", state, err)
	}
	if err := operator.ClearSplit(ctx, "a", 6); err != nil {
		t.Error(err)
	}
	if err := set(1, 5); !errors.Is(err, discovery.ErrFenced) {
		t.Errorf("a lower fence than the one that cleared: %v", err)
	}
	if state, err := operator.SplitState(ctx, "a"); err != nil || len(state.Split) != 0 || state.Fence != 6 {
		t.Errorf("%+v, %v", state, err)
	}
	if state, err := operator.SplitState(ctx, "never"); err != nil || len(state.Split) != 0 || state.Fence != 0 {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestSplitNeedsAnOperator(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	const path = "/api/v1/registry/splits/student-service"
	body := map[string]any{"split": map[string]int{"x": 100}, "fence": 1}
	r.Do(t, "", http.MethodPut, path, body).Problem(401, "unauthorized")
	r.Do(t, "", http.MethodGet, path, nil).Problem(401, "unauthorized")
	for _, role := range []identity.Role{identity.Clerk, identity.Viewer} {
		r.Do(t, role, http.MethodPut, path, body).Problem(403, "forbidden")
		r.Do(t, role, http.MethodDelete, path+"?fence=1", nil).Problem(403, "forbidden")
		r.Do(t, role, http.MethodGet, path, nil).Want(200)
	}
	for _, split := range []map[string]int{{"x": 99}, {"x": 101, "y": -1}, {"x": 50, "": 50}, {"x,y": 100}} {
		r.Do(t, identity.Operator, http.MethodPut, path, map[string]any{"split": split, "fence": 1}).Want(422)
	}
	r.Do(t, identity.Operator, http.MethodDelete, path, nil).Want(422)
	r.Do(t, identity.Admin, http.MethodPut, path, body).Want(200)
}

func TestChangesWakeWatchersAtOnce(t *testing.T) {
	t.Parallel()
	r := newRunning(t)
	operator, ctx := r.client(t, identity.Operator), t.Context()
	snapshot, err := operator.Snapshot(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Snapshot(ctx, snapshot.Revision, time.Millisecond); !errors.Is(err, discovery.ErrUnchanged) {
		t.Errorf("without a change: %v", err)
	}
	if _, err := operator.Snapshot(ctx, snapshot.Revision+1000, time.Minute); err != nil {
		t.Errorf("a revision of the future must be answered at once: %v", err)
	}

	type result struct {
		discovery.Snapshot
		err error
		at  time.Time
	}
	results := make(chan result, 1)
	go func() {
		next, err := operator.Snapshot(ctx, snapshot.Revision, 20*time.Second)
		results <- result{next, err, time.Now()}
	}()
	changed := time.Now()
	if err := operator.SetSplit(ctx, "a", discovery.Split{"x": 100}, 1); err != nil {
		t.Fatal(err)
	}
	got := <-results
	if got.err != nil || got.App("a").Split["x"] != 100 {
		t.Errorf("%+v", got)
	}
	if took := got.at.Sub(changed); took > time.Second {
		t.Errorf("the change took %s", took)
	}

	go func() {
		_, err := operator.Snapshot(ctx, got.Revision, time.Minute)
		results <- result{err: err}
	}()
	r.stop() // does not wait for watchers
	if got := <-results; got.err == nil || errors.Is(got.err, discovery.ErrUnchanged) {
		t.Errorf("a watcher of a stopping registry must pause: %v", got.err)
	}
}
