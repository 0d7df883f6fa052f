package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// absent is a target that does not answer the first looks, and where then one instance of release new is ready.
type absent struct {
	target.Target
	looks atomic.Int64
}

func (a *absent) Status(context.Context, string, string) (target.Observed, error) {
	if a.looks.Add(-1) >= 0 {
		return target.Observed{}, errors.New("no answer")
	}
	return target.Observed{Instances: []target.Instance{{Name: "one", Release: "new", Ready: true}}}, nil
}

// beside makes activities whose target and registry do not answer at first, and whose registry knows one instance of new and one gateway,
// which has counted what page says.
func beside(t *testing.T, absences, silences int64) *Activities {
	t.Helper()
	var silent atomic.Int64
	silent.Store(silences)
	var here *httptest.Server
	here = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if silent.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/prometheus") {
			_, _ = io.WriteString(w, page)
			return
		}
		at, _ := url.Parse(here.URL)
		port, _ := strconv.Atoi(at.Port())
		apps := map[string]discovery.Application{}
		for _, app := range []string{"student-service", rollout.Gateway} {
			apps[app] = discovery.Application{Instances: []discovery.Instance{{App: app, ID: app, Host: at.Hostname(), Port: port, Status: discovery.StatusUp, Release: "new"}}}
		}
		_ = json.NewEncoder(w).Encode(discovery.Snapshot{Apps: apps})
	}))
	t.Cleanup(here.Close)
	away := &absent{}
	away.looks.Store(absences)
	return &Activities{Target: away, HTTP: here.Client(), Traffic: discovery.NewClient(discovery.Config{URL: here.URL + "/eureka", Timeout: 10 * time.Second, Wait: time.Second})}
}

func run(t *testing.T, activity any, args ...any) error {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(activity)
	_, err := env.ExecuteActivity(activity, args...)
	return err
}

// The time that a release has to become ready does not run while the target or the registry is away.
func TestWhoIsAwaySaysNothingOfTheRelease(t *testing.T) {
	t.Parallel()
	in := AwaitInput{Service: Service{"production", "student-service"}, Release: "new", Replicas: 1, Within: 2 * pollInterval}
	for name, acts := range map[string]*Activities{"target": beside(t, 8, 0), "registry": beside(t, 0, 8)} {
		if err := run(t, acts.AwaitReady, in); err != nil {
			t.Errorf("it is ready once the %s is back: %v", name, err)
		}
	}
}

// While the target is away nothing is concluded but what gateways alone can tell.
func TestAnAnalysisWaitsForTheTarget(t *testing.T) {
	t.Parallel()
	in := WatchInput{AwaitInput: AwaitInput{Service: Service{"production", "student-service"}, Release: "new", Replicas: 1}, Stable: "old", Minimum: 5}
	err := run(t, beside(t, 1, 0).AnalyseRelease, in)
	failure, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok || failure.NonRetryable() || !strings.Contains(failure.Message(), "the target does not answer") {
		t.Errorf("an undecided analysis: %v", err)
	}
	in.Rules = []rollout.Rule{{Metric: rollout.ErrorRate, Max: 0.01}} // page has one error in ten answers
	err = run(t, beside(t, 1, 0).AnalyseRelease, in)
	if failure, ok = errors.AsType[*temporal.ApplicationError](err); !ok || failure.Type() != BrokenType {
		t.Errorf("a broken rule: %v", err)
	}
	if err := run(t, beside(t, 0, 0).AnalyseRelease, WatchInput{AwaitInput: in.AwaitInput}); err != nil {
		t.Errorf("the target is there: %v", err)
	}
}

// What the target does not run any more has died, when the registry still has it: nobody waits for the end of its lease.
func TestTheDeadAreTakenOutOfTheRegistry(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			if r.URL.Path != "/eureka/apps/STUDENT-SERVICE/dead" {
				t.Errorf("%s is taken out", r.URL.Path)
			}
			gone.Store(true)
			w.WriteHeader(http.StatusNotFound) // or somebody else was quicker
			return
		}
		instances := []discovery.Instance{{ID: "one", Status: discovery.StatusUp, Release: "new"}}
		if !gone.Load() {
			instances = append(instances, discovery.Instance{ID: "dead", Status: discovery.StatusUp, Release: "old"})
		}
		_ = json.NewEncoder(w).Encode(discovery.Snapshot{Apps: map[string]discovery.Application{"student-service": {Instances: instances}}})
	}))
	t.Cleanup(registry.Close)
	acts := &Activities{Target: &absent{}, Traffic: discovery.NewClient(discovery.Config{URL: registry.URL + "/eureka", Timeout: 10 * time.Second})}
	if err := run(t, acts.AwaitGone, AwaitInput{Service: Service{"production", "student-service"}, Release: "old"}); err != nil || !gone.Load() {
		t.Errorf("%v, it is gone: %v", err, gone.Load())
	}
}
