package rollout

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.temporal.io/sdk/testsuite"

	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// registryPage is the metrics of a registry that has answered 60 requests of its interface well, and some not; and others, which do not
// count.
func registryPage(failed int) string {
	var page strings.Builder
	page.WriteString("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.5e+09\n# TYPE process_resident_memory_bytes gauge\n" +
		"process_resident_memory_bytes 3e+07\n# TYPE http_server_request_duration_seconds histogram\n")
	for _, of := range []struct {
		route, status string
		n             int
	}{{"/eureka/apps", "200", 60}, {"/eureka/v2/apps/:app/:id", "500", failed}, {"/registry/v1/snapshot", "503", 9}, {"/actuator/health/readiness", "503", 7}} {
		series := fmt.Sprintf("{route=%q,status=%q", of.route, of.status)
		for _, bound := range rollout.LatencyBounds {
			fmt.Fprintf(&page, "http_server_request_duration_seconds_bucket%s,le=\"%v\"} %d\n", series, bound, of.n)
		}
		fmt.Fprintf(&page, "http_server_request_duration_seconds_bucket%s,le=\"+Inf\"} %d\nhttp_server_request_duration_seconds_count%[1]s} %[2]d\n", series, of.n)
	}
	return page.String()
}

// registries is a target that runs a registry of each of two releases; the new one is ready when it has an address.
type registries struct {
	target.Target
	stable, next string
}

func (r registries) Status(context.Context, string, string) (target.Observed, error) {
	return target.Observed{Instances: []target.Instance{{Name: "one", Release: "old", Ready: true, Address: r.stable},
		{Name: "two", Release: "new", Ready: r.next != "", Address: r.next}}}, nil
}

// TestARegistryIsKnownByItsTarget asks no registry what runs of the registry: Traffic is nil.
func TestARegistryIsKnownByItsTarget(t *testing.T) {
	t.Parallel()
	serve := func(failed int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, registryPage(failed)) }))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	good, bad := serve(0), serve(5)
	acts := &Activities{Target: registries{stable: good, next: good}, HTTP: http.DefaultClient}
	in := WatchInput{AwaitInput: AwaitInput{Service: Service{rollout.Production, rollout.Registry}, Release: "new", Replicas: 1, Within: 1},
		Stable: "old", Rules: rollout.DefaultRules(), Minimum: 50}

	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(acts)
	if _, err := env.ExecuteActivity(acts.AwaitReady, in.AwaitInput); err != nil {
		t.Errorf("a ready registry: %v", err)
	}
	var analysis Analysis
	done, err := env.ExecuteActivity(acts.AnalyseRelease, in)
	if err == nil {
		err = done.Get(&analysis)
	}
	if want := "error rate 0 % of 60 requests"; err != nil || analysis.Verdict != rollout.Passed || !strings.Contains(analysis.String(), want) {
		t.Errorf("a good registry: %v, %s", err, analysis)
	}
	acts.Target = registries{stable: good, next: bad}
	if _, err := env.ExecuteActivity(acts.AnalyseRelease, in); err == nil || !strings.Contains(err.Error(), "error rate 7.69 % of 65 requests") {
		t.Errorf("a bad registry: %v", err)
	}
	if doors := acts.doors(t.Context(), in); doors["new"] != "http://"+bad || doors["old"] != "http://"+good {
		t.Errorf("the releases are asked at %v", doors)
	}
	acts.Target = registries{stable: good}
	if _, err := env.ExecuteActivity(acts.AwaitReady, in.AwaitInput); err == nil || !strings.Contains(err.Error(), "0 of 1 instances are ready") {
		t.Errorf("a registry that is not ready: %v", err)
	}
}
