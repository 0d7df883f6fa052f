package discovery

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// View is a running copy of what the registry knows. It keeps what it last knew while the registry is away, and while
// a registry that has just restarted does not know everybody yet.
type View struct {
	client *Client
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	current Snapshot
	seen    map[string]bool // instances that the registry's present run has shown
	changed chan struct{}
	known   bool
	lost    error
}

// NewView makes a view that Start fills.
func NewView(client *Client, log *slog.Logger) *View {
	return &View{client: client, log: log, done: make(chan struct{}), changed: make(chan struct{}), seen: map[string]bool{}}
}

// Start follows the registry in the background until Stop.
func (v *View) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	go v.follow(ctx)
}

// Stop ends the following. The last snapshot stays readable.
func (v *View) Stop() {
	if v.cancel != nil {
		v.cancel()
		<-v.done
	}
}

// Current returns the last snapshot, and a channel that is closed when there is another one, or when the registry has
// gone or come back. The snapshot is shared: do not change it.
func (v *View) Current() (Snapshot, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.current, v.changed
}

// Err is nil while the registry answers, and else why it does not.
func (v *View) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lost == nil && !v.known {
		return errors.New("the registry has not answered yet")
	}
	return v.lost
}

func (v *View) follow(ctx context.Context) {
	defer close(v.done)
	// After a failure the next request does not wait, so that the end of an outage is seen at once.
	after, wait, failures := int64(0), time.Duration(0), 0
	for ctx.Err() == nil {
		snapshot, err := v.client.Snapshot(ctx, after, wait)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			after = snapshot.Revision
			v.take(snapshot)
		case !errors.Is(err, ErrUnchanged):
			v.lose(err)
			wait = 0
			select {
			case <-ctx.Done():
			case <-time.After(backoff(failures, time.Second)):
			}
			failures++
			continue
		}
		v.found()
		wait, failures = v.client.cfg.Wait, 0
	}
}

// take makes the snapshot the current one, with what an unsettled registry may have forgotten.
func (v *View) take(next Snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if next.Epoch != v.current.Epoch {
		v.seen = map[string]bool{}
	}
	for _, app := range next.Apps {
		for _, instance := range app.Instances {
			v.seen[instance.ID] = true
		}
	}
	if !next.Settled {
		next.Apps = v.remember(next)
	}
	v.current, v.known = next, true
	v.tell()
}

// tell wakes who waits for a change. The caller holds mu.
func (v *View) tell() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// remember adds those instances of the last snapshot that the registry's present run has never shown, and the last
// splits as long as it does not know them.
func (v *View) remember(next Snapshot) map[string]Application {
	apps := maps.Clone(next.Apps)
	if apps == nil {
		apps = map[string]Application{}
	}
	for name, before := range v.current.Apps {
		app := apps[name]
		for _, instance := range before.Instances {
			if !v.seen[instance.ID] {
				app.Instances = append(slices.Clip(app.Instances), instance)
			}
		}
		if !next.Stored {
			app.Split, app.Sticky = before.Split, before.Sticky
		}
		slices.SortFunc(app.Instances, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
		if len(app.Instances) > 0 || len(app.Split) > 0 {
			apps[name] = app
		}
	}
	return apps
}

func (v *View) lose(err error) {
	v.mu.Lock()
	first := v.lost == nil
	v.lost = err
	if first {
		v.tell()
	}
	v.mu.Unlock()
	if first {
		v.log.Warn("the registry is away: going on with what it last said", "error", err.Error())
	}
}

func (v *View) found() {
	v.mu.Lock()
	back := v.lost != nil
	v.lost = nil
	if back {
		v.tell()
	}
	v.mu.Unlock()
	if back {
		v.log.Info("the registry is back")
	}
}
