package rollout

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/school-sms/sms/internal/rollout"
)

// Probes are requests that a rollout sends while it watches a release, to that and to the stable one, so that at night and in a
// small school there is something to judge by too. They only read.
type Probes struct {
	// Door is the address of an environment's gateway, and whether there is one.
	Door      func(environment string) (string, bool)
	TokenFile string
	// PerSecond is how many each of the two releases is sent. 0: none.
	PerSecond int
	// Timeout of each.
	Timeout time.Duration
}

// probed is what is read of each service. What a service answers does not matter here, only that it does: gateways count it.
var probed = map[string]string{
	"student-service":       "/api/v1/students?size=1",
	"configuration-service": "/api/v1/configurations/school-profile",
	rollout.Gateway:         "/api/v1/students?size=1",
}

// start sends probes until stop is called, which waits for those under way. A gateway counts them like any request.
func (p Probes) start(ctx context.Context, in WatchInput) (stop func()) {
	path, known := probed[in.Service.Service]
	door, there := p.Door(in.Environment)
	token, err := os.ReadFile(p.TokenFile)
	if !known || !there || err != nil || p.PerSecond == 0 { // then the analysis says how few requests there are
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	// Gateways share a door: only new connections come to all of them.
	gateway := in.Service.Service == rollout.Gateway
	client := &http.Client{Timeout: p.Timeout, Transport: &http.Transport{MaxIdleConnsPerHost: p.PerSecond, DisableKeepAlives: gateway}}
	var running sync.WaitGroup
	send := func(release string) {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, door+path, nil)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		if !gateway {
			req.Header.Set(releaseHeader, release)
		}
		if res, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxMetrics))
			res.Body.Close()
		}
	}
	running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(p.PerSecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, release := range []string{in.Release, in.Stable} {
					running.Go(func() { send(release) })
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
		client.CloseIdleConnections()
	}
}

// releaseHeader picks the release that answers; gateways take it from operators.
const releaseHeader = "X-SMS-Release"
