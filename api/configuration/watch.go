package configuration

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Config is how long and how closely the settings are watched for callers who wait for a change.
type Config struct {
	// WatchWait is how long a request that waits for a change is held. Below SERVER_SHUTDOWN_TIMEOUT of a gateway, which cuts off
	// what runs longer when it stops, and not above SCHOOL_SETTINGS_WAIT of the services that follow the settings.
	WatchWait time.Duration `env:"CONFIGURATION_WATCH_WAIT" envDefault:"15s"`
	// WatchInterval is the time between two looks at the version while somebody waits.
	WatchInterval time.Duration `env:"CONFIGURATION_WATCH_INTERVAL" envDefault:"250ms"`
}

// Check reports every fault of the configuration.
func (c Config) Check() error {
	if c.WatchWait <= 0 || c.WatchInterval <= 0 {
		return errors.New("CONFIGURATION_WATCH_WAIT and CONFIGURATION_WATCH_INTERVAL must be above zero")
	}
	return nil
}

// watch lets callers wait for a version without a database connection each: one poller asks for all of them, as long as
// there are any.
type watch struct {
	cfg     Config
	version func(context.Context) (int64, error)
	closing chan struct{}

	mu      sync.Mutex
	waiting int
	stop    context.CancelFunc // ends the poller
	latest  int64              // what the poller has read last
	changed chan struct{}      // closed when latest changes
}

func newWatch(cfg Config, version func(context.Context) (int64, error)) *watch {
	return &watch{cfg: cfg, version: version, closing: make(chan struct{}), changed: make(chan struct{})}
}

// close lets go of everybody who waits, and of who comes later.
func (w *watch) close() { close(w.closing) }

// above returns once the version is above n, at the latest after the configured time, when ctx ends or when the watch closes.
func (w *watch) above(ctx context.Context, n int64) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.WatchWait)
	defer cancel()
	w.enter()
	defer w.leave()
	for {
		w.mu.Lock()
		latest, changed := w.latest, w.changed
		w.mu.Unlock()
		if latest > n {
			return
		}
		select {
		case <-changed:
		case <-w.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting++; w.waiting == 1 {
		var ctx context.Context
		ctx, w.stop = context.WithCancel(context.Background())
		w.latest = 0 // what an earlier poller read may not hold any more: a restore takes versions back
		go w.poll(ctx)
	}
}

func (w *watch) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting--; w.waiting == 0 {
		w.stop()
	}
}

// poll reads the version until ctx ends. While the database is away there is no change to tell of: callers wait on.
func (w *watch) poll(ctx context.Context) {
	tick := time.NewTicker(w.cfg.WatchInterval)
	defer tick.Stop()
	for {
		if version, err := w.version(ctx); err == nil {
			w.tell(ctx, version)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watch) tell(ctx context.Context, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() == nil && version != w.latest {
		w.latest = version
		close(w.changed)
		w.changed = make(chan struct{})
	}
}
