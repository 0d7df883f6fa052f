package clients

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/test/processes"
)

// TestPromQL judges two releases by the rules of a plan, asked of a Prometheus that reads counters of a known rate.
func TestPromQL(t *testing.T) {
	t.Parallel()
	var scrapes atomic.Int64
	counters := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := scrapes.Add(1)
		fmt.Fprintf(w, "# TYPE logins_total counter\n")
		for release, slow := range map[string]int64{"sha256:new": 3, "sha256:old": 1} {
			fmt.Fprintf(w, "logins_total{release=%q,service=\"student-service\",slow=\"yes\"} %d\n", release, n*slow)
			fmt.Fprintf(w, "logins_total{release=%q,service=\"student-service\",slow=\"no\"} %d\n", release, n*(10-slow))
		}
	}))
	t.Cleanup(counters.Close)
	p := startPrometheus(t, fmt.Sprintf("- job_name: counters\n  static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(counters.URL, "http://")))

	const share = `sum(increase(logins_total{release="${release}",service="${service}",slow="yes"}[${window}])) /` +
		` sum(increase(logins_total{release="${release}",service="${service}"}[${window}]))`
	rules := []rollout.Rule{
		{Metric: rollout.PromQL, Name: "share", Query: share, Max: 0.1, Ratio: 1.5},
		{Metric: rollout.PromQL, Name: "several", Query: `logins_total{release="${release}"}`, Max: 1},
		{Metric: rollout.PromQL, Name: "none", Query: `logouts_total{release="${release}"}`, Max: 1},
		{Metric: rollout.PromQL, Name: "no number", Query: share + " * 0 / 0", Max: 1},
		{Metric: rollout.PromQL, Name: "no query", Query: "sum(${release}", Max: 1},
	}
	in := activities.WatchInput{AwaitInput: activities.AwaitInput{Service: activities.Service{Environment: "production", Service: "student-service"}, Release: "sha256:new"},
		Stable: "sha256:old", Rules: rules}
	began := time.Now()
	server := activities.Prometheus{URL: "http://" + p.address, Timeout: 5 * time.Second, MinWindow: time.Second}
	var release, stable map[string]rollout.Queried
	processes.Until(t, "the share is known", func() bool {
		answers := server.Query(t.Context(), in, time.Since(began))
		release, stable = answers["sha256:new"], answers["sha256:old"]
		return release["share"].Known && stable["share"].Known && !math.IsNaN(release["share"].Value+stable["share"].Value)
	})
	for share, got := range map[float64]rollout.Queried{0.3: release["share"], 0.1: stable["share"]} {
		if math.Abs(got.Value-share) > 1e-9 {
			t.Errorf("the share is %v, want %v", got.Value, share)
		}
	}
	sample := func(q map[string]rollout.Queried) rollout.Sample {
		return rollout.Sample{Counts: rollout.Counts{Requests: 100}, Queried: q}
	}
	verdict, findings := rollout.Analyse(rules, sample(release), sample(stable), 50)
	if verdict != rollout.Broken || findings[0].Verdict != rollout.Broken || findings[0].Detail != "0.3, at most 0.15 allowed, 1.5 × the stable release's" {
		t.Errorf("%s: %+v", verdict, findings[0])
	}
	for i, want := range map[int]string{1: "several numbers", 2: "came to nothing", 3: "came to NaN", 4: "Prometheus: bad_data"} {
		if f := findings[i]; f.Verdict != rollout.Inconclusive || !strings.Contains(f.Detail, want) {
			t.Errorf("%+v, want %q", f, want)
		}
	}
}
