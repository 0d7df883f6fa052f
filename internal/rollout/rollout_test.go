package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/school-sms/sms/internal/target"
)

func TestSplitAlwaysMakesAHundred(t *testing.T) {
	t.Parallel()
	for weight := 0; weight <= 100; weight++ {
		sum := 0
		for release, share := range Split("old", "new", weight) {
			if share == 0 {
				t.Errorf("weight %d: %s has a share of nothing", weight, release)
			}
			sum += share
		}
		if sum != 100 {
			t.Errorf("weight %d: the shares make %d", weight, sum)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	up := target.Instance{Name: "one", Release: "new", Ready: true}
	starting := target.Instance{Name: "two", Release: "new"}
	crashing := target.Instance{Name: "three", Release: "new", Restarts: 2, Failure: "ended with status 1: no database"}
	once := target.Instance{Name: "four", Release: "new", Restarts: 1, Failure: "ended with status 1"}
	old := target.Instance{Name: "old", Release: "old", Ready: true, Restarts: 7}
	type verdict struct {
		ready           bool
		waiting, failed string
	}
	for name, c := range map[string]struct {
		instances []target.Instance
		want      verdict
		soured    string
	}{
		"all ready":              {[]target.Instance{old, up, up}, verdict{ready: true}, ""},
		"one starts":             {[]target.Instance{old, up, starting}, verdict{waiting: "1 of 2 instances are ready"}, "two is no longer ready"},
		"none there yet":         {[]target.Instance{old}, verdict{waiting: "0 of 2 instances are ready"}, "only 0 of 2"},
		"one crashed once":       {[]target.Instance{up, once}, verdict{waiting: "four: ended with status 1"}, "four has ended by itself"},
		"one keeps crashing":     {[]target.Instance{up, up, crashing}, verdict{failed: "three does not stay up: ended with status 1: no database"}, "three has ended"},
		"old ones do not matter": {[]target.Instance{{Name: "o", Release: "old", Restarts: 9}, up, up}, verdict{ready: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			observed := target.Observed{Instances: c.instances}
			ready, waiting, failed := Judge(observed, "new", 2)
			if ready != c.want.ready || !strings.Contains(waiting, c.want.waiting) || failed != c.want.failed {
				t.Errorf("ready %v, waiting %q, failed %q; want %+v", ready, waiting, failed, c.want)
			}
			if got := Soured(observed, "new", 2); !strings.Contains(got, c.soured) || (c.soured == "") != (got == "") {
				t.Errorf("soured: %q, want %q", got, c.soured)
			}
		})
	}
}

func TestFaultsNamesEveryOne(t *testing.T) {
	t.Parallel()
	good := Request{Environment: "staging", Service: "student-service", Release: "/srv/student-service"}.WithDefaults()
	if err := good.Err(); err != nil {
		t.Errorf("a good request: %v", err)
	}
	for name, weights := range map[string][]int{"none": {}, "does not end with 100": {10}, "falls": {50, 10, 100}, "twice": {50, 50, 100}, "zero": {0, 100}} {
		r := good
		r.Weights = weights
		if len(r.Faults()) != 1 {
			t.Errorf("weights %s: %v", name, r.Faults())
		}
	}
	for name, r := range map[string]Request{
		"a rollback to a release": {Environment: "staging", Service: Gateway, Release: "/srv/api-gateway", Rollback: true},
		"weights of blue-green":   {Environment: "staging", Service: "student-service", Release: "/x", Strategy: BlueGreen, Weights: []int{50, 100}},
		"weights of rolling":      {Environment: "staging", Service: "student-service", Release: "/x", Strategy: Rolling, Weights: []int{100}},
		"a strategy of nothing":   {Environment: "staging", Service: "student-service", Release: "/x", Strategy: "hope"},
		"a rule of nothing":       {Environment: "staging", Service: Gateway, Release: "/srv/api-gateway", Rules: []Rule{{Metric: "luck", Max: 1}}},
	} {
		if faults := r.WithDefaults().Faults(); len(faults) != 1 {
			t.Errorf("%s: %v", name, faults)
		}
	}
	bad := Request{Strategy: Canary, Soak: -time.Second, ReadyWithin: time.Millisecond, Weights: []int{1}}
	var fields []string
	for _, f := range bad.Faults() {
		fields = append(fields, f.Field)
	}
	if diff := cmp.Diff([]string{"environment", "service", "release", "weights", "soak", "readyWithin", "minRequests", "sureWithin"}, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
