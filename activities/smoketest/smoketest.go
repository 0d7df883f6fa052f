// Package smoketest asks a running environment, through its gateway, whether it works.
package smoketest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/smoke"
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

// Check is how one check ended, Report how all did.
type (
	Check  = smoke.Result
	Report = smoke.Report
)

const (
	// UnknownEnvironmentType is the type of the error for an environment that is not configured.
	UnknownEnvironmentType = "UnknownEnvironment"
	// FaultySuiteType is that for a suite of SMOKE_SUITES that cannot be read.
	FaultySuiteType = "FaultySuite"
)

// Activities run smoke tests.
type Activities struct{ Config Config }

// RunSmokeTest makes every check of the built-in suite and of those configured for the environment once, and cleans up after itself, also
// after an attempt whose worker died. A check that fails is in the report, it is no error.
func (a *Activities) RunSmokeTest(ctx context.Context, in Input) (Report, error) {
	target := smoke.Target{URL: in.URL, Environment: in.Environment, Service: in.Service, Release: in.Release}
	if in.Environment != "" {
		url, ok := a.Config.Gateways.URL(in.Environment)
		if !ok {
			return Report{}, unknownEnvironment(in.Environment, a.Config.Gateways.Names())
		}
		target.URL = url
	}
	own, err := a.Config.Suites.Read(in.Environment)
	if err != nil {
		return Report{}, faultySuite(err)
	}
	token, err := os.ReadFile(a.Config.TokenFile)
	if err != nil {
		return Report{}, fmt.Errorf("read the token for smoke tests (SMOKE_TOKEN_FILE): %w", err)
	}
	target.Token = strings.TrimSpace(string(token))

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h := &heart{}
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &h.left) // those of another version are not understood
	}
	go h.beat(ctx)
	runner := smoke.Runner{Target: target, Left: h.left, Keep: func(left []smoke.Leftover) { h.keep(ctx, left) }}
	report := runner.Run(ctx, append([]smoke.Suite{smoke.Platform()}, own...)...)
	return report, ctx.Err()
}

// heart says that a run lives, and what the next attempt has to clean up if it dies.
type heart struct {
	mu   sync.Mutex
	left []smoke.Leftover
}

// beatInterval is how often a run says that it lives.
const beatInterval = 5 * time.Second

func (h *heart) beat(ctx context.Context) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.mu.Lock()
			activity.RecordHeartbeat(ctx, h.left)
			h.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// tellTimeout bounds how long a run waits for Temporal to take what is left: if it is away, a later heartbeat tells it.
const tellTimeout = 5 * time.Second

// keep tells the server at once: the worker's own heartbeats may be held back for most of the heartbeat timeout.
func (h *heart) keep(ctx context.Context, left []smoke.Leftover) {
	h.mu.Lock()
	h.left = left
	activity.RecordHeartbeat(ctx, left) // so that none that is held back says less
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	_ = activity.GetClient(ctx).RecordActivityHeartbeat(ctx, activity.GetInfo(ctx).TaskToken, left)
}

func unknownEnvironment(name string, known []string) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("environment %q has no gateway configured; known are %s", name, strings.Join(known, ", ")), UnknownEnvironmentType, nil)
}

func faultySuite(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), FaultySuiteType, nil)
}
