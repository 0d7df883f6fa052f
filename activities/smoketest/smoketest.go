// Package smoketest asks a running environment, through its gateway, whether it works.
package smoketest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// Input says what to test.
type Input struct {
	// Environment is one of the configured gateways. Either it or URL is given.
	Environment string `json:"environment,omitempty"`
	// URL is the gateway's address, for example http://127.0.0.1:8080.
	URL string `json:"url,omitempty"`
	// Service and Release, when given, send the requests for that service to that release of it, by its digest, and
	// demand that it answered.
	Service string `json:"service,omitempty"`
	Release string `json:"release,omitempty"`
}

// Target names what is tested.
func (in Input) Target() string {
	if in.Environment != "" {
		return in.Environment
	}
	return in.URL
}

// Check is one thing that was looked at.
type Check struct {
	Name       string `json:"name"`
	OK         bool   `json:"ok"`
	DurationMS int64  `json:"durationMs"`
	// Expected and Found say what was wrong. They hold no personal data.
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
}

// Report is the outcome of a smoke test.
type Report struct {
	Environment string  `json:"environment,omitempty"`
	URL         string  `json:"url"`
	Service     string  `json:"service,omitempty"`
	Release     string  `json:"release,omitempty"`
	Passed      bool    `json:"passed"`
	Checks      []Check `json:"checks"`
	DurationMS  int64   `json:"durationMs"`
}

// Summary is the report in one sentence.
func (r Report) Summary() string {
	var failed []Check
	for _, c := range r.Checks {
		if !c.OK {
			failed = append(failed, c)
		}
	}
	if len(failed) == 0 {
		return fmt.Sprintf("All %d checks passed in %.1f s.", len(r.Checks), float64(r.DurationMS)/1000)
	}
	first := failed[0]
	return fmt.Sprintf("%d of %d checks failed. %s: expected %s, found %s.", len(failed), len(r.Checks), first.Name, first.Expected, first.Found)
}

// UnknownEnvironmentType is the type of the error for an environment that is not configured.
const UnknownEnvironmentType = "UnknownEnvironment"

// Activities run smoke tests.
type Activities struct{ Config Config }

// RunSmokeTest makes every check once and cleans up after itself, also after an attempt whose worker died. A check that
// fails is in the report, it is no error.
func (a *Activities) RunSmokeTest(ctx context.Context, in Input) (Report, error) {
	report := Report{Environment: in.Environment, URL: in.URL, Service: in.Service, Release: in.Release}
	if in.Environment != "" {
		url, ok := a.Config.Gateways.URL(in.Environment)
		if !ok {
			return report, unknownEnvironment(in.Environment, a.Config.Gateways.Names())
		}
		report.URL = url
	}
	token, err := os.ReadFile(a.Config.TokenFile)
	if err != nil {
		return report, fmt.Errorf("read the token for smoke tests (SMOKE_TOKEN_FILE): %w", err)
	}
	r := newRun(in, report.URL, strings.TrimSpace(string(token)))
	defer r.client.CloseIdleConnections()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var left string
	if activity.HasHeartbeatDetails(ctx) && activity.GetHeartbeatDetails(ctx, &left) == nil {
		r.remove(ctx, left)
	}
	r.created = func(path string) {
		activity.RecordHeartbeat(ctx, path) // the first one is sent at once
		go keepBeating(ctx, path)
	}
	start := time.Now()
	r.all(ctx)
	if ctx.Err() != nil {
		return report, ctx.Err()
	}
	report.Checks, report.Passed, report.DurationMS = r.checks, r.passed(), time.Since(start).Milliseconds()
	return report, nil
}

// beat is how often a run says that it lives.
const beat = 5 * time.Second

// keepBeating says which student the next attempt has to remove if this one dies.
func keepBeating(ctx context.Context, path string) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			activity.RecordHeartbeat(ctx, path)
		case <-ctx.Done():
			return
		}
	}
}

func unknownEnvironment(name string, known []string) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("environment %q has no gateway configured; known are %s", name, strings.Join(known, ", ")), UnknownEnvironmentType, nil)
}

func newRun(in Input, url, token string) *run {
	return &run{
		input: in, url: strings.TrimSuffix(url, "/"), token: token, created: func(string) {},
		client: &http.Client{
			Timeout: requestTimeout, Transport: &http.Transport{DisableKeepAlives: false},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}
