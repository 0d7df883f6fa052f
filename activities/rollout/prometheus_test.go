package rollout

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/school-sms/sms/internal/rollout"
)

// TestWhatIsNotOneNumberIsNotKnown asks servers that fail in every way.
func TestWhatIsNotOneNumberIsNotKnown(t *testing.T) {
	t.Parallel()
	vector := func(samples ...string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
	}
	sample := func(value string) string { return `{"metric":{"a":"` + value + `"},"value":[1,"` + value + `"]}` }
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with %q", r.Header.Get("Authorization"))
	}))
	t.Cleanup(trap.Close)
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // empty: 0.5
	}{
		"a vector of one":  {200, vector(sample("0.5")), ""},
		"a scalar":         {200, `{"status":"success","data":{"resultType":"scalar","result":[1,"0.5"]}}`, ""},
		"nothing":          {200, vector(), "came to nothing"},
		"two series":       {200, vector(sample("0.5"), sample("0.6")), "came to several numbers"},
		"NaN":              {200, vector(sample("NaN")), "came to NaN"},
		"infinite":         {200, vector(sample("+Inf")), "came to +Inf"},
		"a matrix":         {200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, "came to a matrix"},
		"text":             {200, `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`, `unexpected value type "string"`},
		"part of the data": {200, strings.Replace(vector(sample("0.5")), `"data"`, `"warnings":["a store is away"],"data"`, 1), "warns: a store is away"},
		"a bad query":      {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "parse error"},
		"500":              {500, "boom", "500"},
		"no JSON":          {200, "<html>" + strings.Repeat("long", 1000), "Prometheus: "},
		"a redirect":       {302, "", "Prometheus: "},
		"a timeout":        {0, "", "did not answer within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("query") != `x{release="new"}` || r.Header.Get("Authorization") != "Bearer very-secret" {
					t.Errorf("asked %q", r.Form)
				}
				switch c.status {
				case 0:
					select {
					case <-r.Context().Done():
					case <-over:
					}
					return
				case 302:
					w.Header().Set("Location", trap.URL)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			t.Cleanup(server.Close)
			verdict, finding := judge(t, Prometheus{URL: server.URL, TokenFile: token(t), Timeout: 300 * time.Millisecond, MinWindow: time.Second}, time.Minute)
			if c.want == "" {
				if verdict != rollout.Passed || !strings.Contains(finding.Detail, "0.5, at most 1 allowed") {
					t.Errorf("%s: %+v", verdict, finding)
				}
				return
			}
			if verdict != rollout.Inconclusive || !strings.Contains(finding.Detail, c.want) || strings.Contains(finding.Detail, "very-secret") || len(finding.Detail) > 400 {
				t.Errorf("%s: %+v, want %q", verdict, finding, c.want)
			}
		})
	}
}

func TestWhoCannotBeAskedKnowsNothing(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for want, c := range map[string]struct {
		server Prometheus
		window time.Duration
	}{
		"connection refused":                              {Prometheus{URL: gone.URL}, time.Minute},
		"PROMETHEUS_URL is not set":                       {Prometheus{}, time.Minute},
		"its share of the traffic for less than 1m0s":     {Prometheus{URL: gone.URL, MinWindow: time.Minute}, time.Second},
		"read PROMETHEUS_TOKEN_FILE: open /no/such/file:": {Prometheus{URL: gone.URL, TokenFile: "/no/such/file"}, time.Minute},
	} {
		c.server.Timeout = 3 * time.Second
		if verdict, finding := judge(t, c.server, c.window); verdict != rollout.Inconclusive || !strings.Contains(finding.Detail, want) {
			t.Errorf("%s: %+v, want %q", verdict, finding, want)
		}
	}
}

// judge is what comes of one rule, of a release that has had its share for so long.
func judge(t *testing.T, server Prometheus, since time.Duration) (rollout.Verdict, rollout.Finding) {
	t.Helper()
	rules := []rollout.Rule{{Metric: rollout.PromQL, Name: "x", Query: `x{release="${release}"}`, Max: 1}}
	in := WatchInput{AwaitInput: AwaitInput{Release: "new"}, Stable: "new", Rules: rules}
	queried := server.Query(context.WithoutCancel(t.Context()), in, since)["new"]
	verdict, findings := rollout.Analyse(rules, rollout.Sample{Counts: rollout.Counts{Requests: 100}, Queried: queried}, rollout.Sample{}, 50)
	return verdict, findings[0]
}

func token(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("very-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWhatWasScrapedMustBeOneOfEachAndFresh asks a server that has read an instance at these times, in seconds before.
func TestWhatWasScrapedMustBeOneOfEachAndFresh(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ages string
		gone bool   // by the second question
		want string // empty: the counts
	}{
		"fresh":  {`{"metric":{"job":"a"},"value":[1,"2.5"]}`, false, ""},
		"lost":   {`{"metric":{"job":"a"},"value":[1,"2.5"]}`, true, "does not read them"},
		"never":  {"", false, "does not read them"},
		"twice":  {`{"metric":{"job":"a"},"value":[1,"2.5"]},{"metric":{"job":"b"},"value":[1,"2.5"]}`, false, "reads them 2 times"},
		"before": {`{"metric":{"job":"a"},"value":[1,"3.125"]}`, false, "3.125s ago, which is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				query, samples := r.FormValue("query"), `{"metric":{"__name__":"gateway_requests_total","release":"new","status":"503"},"value":[1,"7"]},`+
					`{"metric":{"__name__":"gateway_request_duration_seconds_bucket","release":"new","le":"1.0"},"value":[1,"6"]},`+
					`{"metric":{"__name__":"process_start_time_seconds"},"value":[1,"1.5e9"]}`
				if !strings.Contains(query, `instance=~"10\\.0\\.0\\.1:api-gateway:80|10\\.0\\.0\\.1:80"`) {
					t.Errorf("asked %s", query)
				}
				switch {
				case strings.HasPrefix(query, "time() - timestamp("):
					samples = c.ages
				case c.gone:
					samples = ""
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, samples)
			}))
			t.Cleanup(server.Close)
			samples, err := Prometheus{URL: server.URL, Timeout: 3 * time.Second}.scraped(t.Context(), instance{"10.0.0.1:api-gateway:80", "", "10.0.0.1:80"}, 3*time.Second)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			counts := countsOf(samples, func(of model.Metric) (string, bool) { return string(of["release"]), true }).ByRelease["new"]
			if at := slices.Index(rollout.LatencyBounds[:], 1); err != nil || counts.Requests != 7 || counts.Errors != 7 || counts.Within[at] != 6 {
				t.Errorf("%+v, %v", counts, err)
			}
		})
	}
}

func TestPrometheusFaults(t *testing.T) {
	t.Parallel()
	good := Prometheus{Timeout: time.Second, MinWindow: time.Minute}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	all := good
	all.ForAllRules = true
	if err := all.Check(); err == nil || !strings.Contains(err.Error(), "PROMETHEUS_FOR_ALL_RULES: there is none to ask") {
		t.Error(err)
	}
	for _, address := range []string{"prometheus:9090", "http://", "https://user:very-secret@host", "%zz"} {
		bad := Prometheus{URL: address, Timeout: time.Minute}
		err := bad.Check()
		for _, part := range []string{"PROMETHEUS_URL", "PROMETHEUS_TIMEOUT", "PROMETHEUS_MIN_WINDOW"} {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("%s: %v, want %s", address, err, part)
			}
		}
	}
}
