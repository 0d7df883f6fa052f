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
	rollout.Registry:        "/eureka/apps",
}

// doors are the addresses at which the two releases are asked: the gateway's, and of the registry, which needs none, its instances'.
func (a *Activities) doors(ctx context.Context, in WatchInput) map[string]string {
	doors := map[string]string{}
	if in.Service.Service == rollout.Registry {
		instances, _ := a.instances(ctx, in.Service) // the analysis says why there are none
		for _, i := range instances {
			doors[i.release] = "http://" + i.address
		}
	} else if door, there := a.Probes.Door(in.Environment); there {
		doors[in.Release], doors[in.Stable] = door, door
	}
	return doors
}

// start sends probes until stop is called, which waits for those under way. Who answers counts them like any request.
func (p Probes) start(ctx context.Context, in WatchInput, doors map[string]string) (stop func()) {
	path, known := probed[in.Service.Service]
	token, err := os.ReadFile(p.TokenFile)
	if !known || len(doors) == 0 || err != nil || p.PerSecond == 0 { // then the analysis says how few requests there are
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	// Where a door is shared, only new connections come to all of them.
	shared := rollout.SharesDoor(in.Service.Service)
	client := &http.Client{Timeout: p.Timeout, Transport: &http.Transport{MaxIdleConnsPerHost: p.PerSecond, DisableKeepAlives: shared}}
	var running sync.WaitGroup
	send := func(release string) {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, doors[release]+path, nil)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		if !shared {
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
