package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firstRetry is the pause after the first failure; it doubles up to the renewal interval.
const firstRetry = 200 * time.Millisecond

// Registrar keeps one instance in the registry: it registers, renews with jitter, registers again when the registry
// does not know it any more, and tries again for as long as the registry is away.
type Registrar struct {
	cfg        Config
	registries *registries
	log        *slog.Logger
	instance   Instance

	cancel     context.CancelFunc
	stop, done chan struct{}
	stopping   sync.Once
	registered chan struct{}
	first      sync.Once
}

// NewRegistrar makes a registrar for the instance. An empty ID becomes host:app:port, an empty status UP.
func NewRegistrar(cfg Config, instance Instance, log *slog.Logger) *Registrar {
	if instance.ID == "" {
		instance.ID = instance.Host + ":" + instance.App + ":" + strconv.Itoa(instance.Port)
	}
	if instance.Status == "" {
		instance.Status = StatusUp
	}
	return &Registrar{
		cfg: cfg, registries: newRegistries(cfg, cfg.addresses()), log: log, instance: instance,
		stop: make(chan struct{}), done: make(chan struct{}), registered: make(chan struct{}),
	}
}

// Start registers in the background and keeps the lease until Stop. It never waits for the registry.
func (r *Registrar) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go r.keep(ctx)
}

// Registered is closed once the registry has accepted the instance for the first time.
func (r *Registrar) Registered() <-chan struct{} { return r.registered }

// Stop takes the instance out of the registry, in at most the configured timeout. When that fails, the lease runs out.
// A second call does nothing.
func (r *Registrar) Stop(ctx context.Context) error {
	var err error
	r.stopping.Do(func() { err = r.leave(ctx) })
	return err
}

func (r *Registrar) leave(ctx context.Context) error {
	if r.cancel == nil {
		return nil // never started
	}
	defer r.cancel()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	close(r.stop)
	select { // a renewal under way ends first, or it could arrive after the farewell
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("leave the registry: %w", ctx.Err())
	}
	status, err := r.send(ctx, http.MethodDelete, r.path(), nil, r.registries.share(r.cfg.Timeout))
	if err != nil && status != http.StatusNotFound {
		return fmt.Errorf("leave the registry: %w", err)
	}
	r.log.Info("left the registry", "instance", r.instance.ID)
	return nil
}

func (r *Registrar) keep(ctx context.Context) {
	defer close(r.done)
	known, failures := false, 0
	for {
		err := r.once(ctx, &known)
		pause := jittered(r.cfg.RenewInterval)
		if err != nil {
			if failures == 0 {
				r.log.Warn("the registry does not take this instance for now", "instance", r.instance.ID, "error", err.Error())
			}
			pause = backoff(failures, r.cfg.RenewInterval)
			failures++
		} else if failures > 0 {
			r.log.Info("the registry takes this instance again", "instance", r.instance.ID)
			failures = 0
		}
		select {
		case <-r.stop:
			return
		case <-time.After(pause):
		}
	}
}

// once renews a known instance and registers an unknown one, at once when the renewal says so.
func (r *Registrar) once(ctx context.Context, known *bool) error {
	if *known {
		status, err := r.send(ctx, http.MethodPut, r.path()+"?status="+r.instance.Status, nil, r.cfg.Timeout)
		if status != http.StatusNotFound {
			return err
		}
		r.log.Info("the registry had lost this instance", "instance", r.instance.ID)
		*known = false
	}
	if _, err := r.send(ctx, http.MethodPost, appPath(r.instance.App), r.document(), r.cfg.Timeout); err != nil {
		return err
	}
	*known = true
	r.first.Do(func() { close(r.registered) })
	return nil
}

func (r *Registrar) path() string { return instancePath(r.instance.App, r.instance.ID) }

// appPath is where an application stands below the root of the Eureka interface, and instancePath where one of its instances does.
func appPath(app string) string { return "/apps/" + url.PathEscape(strings.ToUpper(app)) }

func instancePath(app, id string) string { return appPath(app) + "/" + url.PathEscape(id) }

// document is the instance as the Eureka protocol writes it in JSON.
func (r *Registrar) document() any {
	i, base := r.instance, "http://"+r.instance.Address()
	metadata := map[string]string{}
	for key, value := range i.Metadata {
		metadata[key] = value
	}
	metadata[MetadataRelease], metadata[MetadataVersion] = i.Release, i.Version
	return map[string]any{"instance": map[string]any{
		"instanceId": i.ID, "app": strings.ToUpper(i.App), "hostName": i.Host, "ipAddr": i.Host, "status": i.Status,
		"port":       map[string]any{"$": i.Port, "@enabled": "true"},
		"securePort": map[string]any{"$": 443, "@enabled": "false"},
		"vipAddress": i.App, "secureVipAddress": i.App,
		"homePageUrl": base + "/", "statusPageUrl": base + "/actuator/info", "healthCheckUrl": base + "/actuator/health",
		"dataCenterInfo": map[string]any{
			"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
		},
		"leaseInfo": map[string]any{
			"renewalIntervalInSecs": int(max(r.cfg.RenewInterval, time.Second).Seconds()),
			"durationInSecs":        int(r.cfg.LeaseDuration.Seconds()),
		},
		"metadata": metadata,
	}}
}

// send waits so long for each registry.
func (r *Registrar) send(ctx context.Context, method, path string, body any, patience time.Duration) (status int, err error) {
	to := call{method: method, path: path, header: http.Header{}, patience: patience}
	if body != nil {
		if to.body, err = json.Marshal(body); err != nil {
			return 0, fmt.Errorf("encode the instance: %w", err)
		}
	}
	status, err = r.registries.do(ctx, to, nil)
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", patience, err)
	}
	return status, err
}

// jittered moves a pause by up to a fifth either way, so that instances that started together do not renew together.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// backoff is the pause after a number of failures before this one, at most limit.
func backoff(failures int, limit time.Duration) time.Duration {
	const maxDoublings = 10
	return jittered(min(firstRetry<<min(failures, maxDoublings), limit))
}
