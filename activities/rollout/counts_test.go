package rollout

import (
	"strings"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/school-sms/sms/internal/rollout"
)

const page = `# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.5e+09
# TYPE gateway_requests_total counter
gateway_requests_total{method="GET",release="new",route="/a",service="student-service",status="200"} 90
gateway_requests_total{method="POST",release="new",route="/a",service="student-service",status="503"} 10
gateway_requests_total{method="GET",release="old",route="/a",service="student-service",status="404"} 7
gateway_requests_total{method="GET",release="new",route="/a",service="configuration-service",status="500"} 5
# TYPE gateway_request_duration_seconds histogram
gateway_request_duration_seconds_bucket{method="GET",release="new",route="/a",service="student-service",le="0.001"} 0
gateway_request_duration_seconds_bucket{method="GET",release="new",route="/a",service="student-service",le="0.25"} 60
gateway_request_duration_seconds_bucket{method="GET",release="new",route="/a",service="student-service",le="10"} 80
gateway_request_duration_seconds_bucket{method="GET",release="new",route="/a",service="student-service",le="+Inf"} 85
gateway_request_duration_seconds_sum{method="GET",release="new",route="/a",service="student-service"} 12
gateway_request_duration_seconds_count{method="GET",release="new",route="/a",service="student-service"} 85
`

func TestCountsOfAGateway(t *testing.T) {
	t.Parallel()
	samples, err := samplesOf(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	got := countsOf(samples, func(of model.Metric) (string, bool) {
		return string(of["release"]), of["service"] == "student-service"
	})
	fresh := got.ByRelease["new"]
	if got.Started != 1.5e9 || len(got.ByRelease) != 2 || fresh.Requests != 100 || fresh.Errors != 10 || fresh.Timed != 85 {
		t.Errorf("%+v", got)
	}
	if old := got.ByRelease["old"]; old.Requests != 7 || old.Errors != 0 {
		t.Errorf("a 404 is no error of the release: %+v", old)
	}
	for i, bound := range rollout.LatencyBounds {
		if want := map[float64]float64{.25: 60, 10: 80}[bound]; fresh.Within[i] != want {
			t.Errorf("within %v s: %v, want %v", bound, fresh.Within[i], want)
		}
	}
	own := countsOf(samples, func(model.Metric) (string, bool) { return "gateway", true })
	if sum := own.ByRelease["gateway"]; sum.Requests != 112 || sum.Errors != 15 {
		t.Errorf("all of a gateway: %+v", sum)
	}
}
