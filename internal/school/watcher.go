package school

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// Service is the application that keeps the settings.
const Service = "configuration-service"

// Watcher follows the school's settings: it knows a change within a second as long as configuration-service answers, the last
// known settings for a while when it does not, and the defaults after that. It is safe for concurrent use.
type Watcher struct {
	cfg    Config
	app    string
	view   *discovery.View
	client client
	log    *slog.Logger

	state    atomic.Pointer[state]
	answered chan struct{} // closed by the first answer
	cancel   context.CancelFunc
	done     chan struct{}
}

// state is what the watcher knows. Its follower alone makes new ones.
type state struct {
	// last is what configuration-service said last. Not confirmed: it never answered.
	last Settings
	// lost is since when it does not answer; zero while it does.
	lost time.Time
	// told says that the log has said that the defaults hold.
	told bool
}

// NewWatcher makes a watcher of the settings of the registry's environment, which Start sets going.
func NewWatcher(cfg Config, registry discovery.Config, log *slog.Logger) *Watcher {
	w := &Watcher{
		cfg: cfg, app: discovery.App(Service, registry.Environment), client: newClient(cfg), log: log,
		view: discovery.NewView(discovery.NewClient(registry), log), answered: make(chan struct{}), done: make(chan struct{}),
	}
	w.state.Store(&state{lost: time.Now(), told: true}) // Start tells
	return w
}

// Start follows the settings in the background until Stop. It waits for the first answer, but not longer than configured, so
// that a service does not begin with defaults that the school has changed. Without a token file it does nothing.
func (w *Watcher) Start(ctx context.Context) {
	if w.cfg.TokenFile == "" {
		w.log.Warn("the school's settings are not followed, the defaults hold: SCHOOL_SETTINGS_TOKEN_FILE is not set")
		return
	}
	following, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.view.Start()
	go w.follow(following)
	select {
	case <-w.answered:
	case <-time.After(w.cfg.StartWait):
		w.log.Warn("configuration-service has not answered yet: the defaults hold until it does")
	case <-ctx.Done():
	}
}

// Stop ends the following. What was last known stays readable.
func (w *Watcher) Stop() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
		w.view.Stop()
	}
}

// Current returns what holds now.
func (w *Watcher) Current() Settings {
	s := w.state.Load()
	if s.inForce(w.cfg.Keep) == defaults {
		return Defaults()
	}
	settings := s.last
	settings.Fresh = s.lost.IsZero()
	return settings
}

// inForce says which settings hold.
type inForce string

const (
	current   inForce = "CURRENT"    // configuration-service answers
	lastKnown inForce = "LAST_KNOWN" // it does not, for a short while
	defaults  inForce = "DEFAULTS"
)

func (s *state) inForce(keep time.Duration) inForce {
	switch {
	case s.last.Confirmed.IsZero(), !s.lost.IsZero() && time.Since(s.lost) > keep:
		return defaults
	case s.lost.IsZero():
		return current
	}
	return lastKnown
}

// follow asks one instance after the other. One that fails, or that answers without news at once because it stops, is not asked
// again as long as there is another.
func (w *Watcher) follow(ctx context.Context) {
	defer close(w.done)
	for avoid, failures := "", 0; ; {
		registry, changed := w.view.Current()
		before, asked := w.state.Load(), time.Now()
		instance, err := w.ask(ctx, registry, avoid, before)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.lose(err)
		case !before.lost.IsZero(): // it is back: wait for the next change at once
			continue
		case w.state.Load().last.Version != before.last.Version || time.Since(asked) > w.cfg.Retry:
			failures = 0
			continue
		}
		avoid = instance
		select {
		case <-time.After(w.pause(failures)):
		case <-changed:
		case <-ctx.Done():
			return
		}
		failures++
	}
}

// ask waits for news at an instance. Where changes may have been missed, it asks for what holds now.
func (w *Watcher) ask(ctx context.Context, registry discovery.Snapshot, avoid string, before *state) (id string, err error) {
	instance, err := pick(registry.App(w.app).Instances, avoid)
	if err != nil {
		return "", err
	}
	var settings Settings
	if before.lost.IsZero() {
		settings, err = w.client.next(ctx, instance.Address(), before.last.Version)
	} else {
		settings, err = w.client.read(ctx, instance.Address())
	}
	if err != nil {
		return instance.ID, err
	}
	w.state.Store(&state{last: settings})
	if before.last.Confirmed.IsZero() {
		close(w.answered)
	}
	if !before.lost.IsZero() || settings.Version != before.last.Version {
		w.log.Info("the school's settings are known", "version", settings.Version, "instance", instance.ID)
	}
	return instance.ID, nil
}

// pause doubles from a sixteenth of the longest one, and is moved at random by up to a fifth, so that services that lost
// configuration-service together do not come back together.
func (w *Watcher) pause(failures int) time.Duration {
	const doublings = 4
	pause := w.cfg.Retry >> (doublings - min(failures, doublings))
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}

func (w *Watcher) lose(cause error) {
	next := *w.state.Load()
	if next.lost.IsZero() {
		next.lost = time.Now()
		w.log.Warn("configuration-service is away", "keep", w.cfg.Keep.String(), "error", cause.Error())
	}
	if !next.told && next.inForce(w.cfg.Keep) == defaults {
		next.told = true
		w.log.Warn("configuration-service stays away: the default settings hold", "error", cause.Error())
	}
	w.state.Store(&next)
}
