package registry

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// writes is what memory knows and the database does not yet.
type writes struct {
	mu    sync.Mutex
	dirty map[key]bool
	tried chan struct{} // closed after the next attempt to store what is dirty
	kick  chan struct{}
	// splits says that a change of splits ended in doubt: the database knows, memory does not.
	splits atomic.Bool
	// reachable says that the database took the last write.
	reachable atomic.Bool
}

func newWrites() *writes {
	return &writes{dirty: map[key]bool{}, tried: make(chan struct{}), kick: make(chan struct{}, 1)}
}

// mark says that a lease has changed. The channel is closed once the change is stored, or could not be for now.
func (w *writes) mark(k key) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty[k] = true
	w.wake()
	return w.tried
}

func (w *writes) wake() {
	select {
	case w.kick <- struct{}{}:
	default: // a kick is waiting already
	}
}

// pending reports whether a lease has changed since it was last stored.
func (w *writes) pending(k key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dirty[k]
}

// take returns what has changed, and the channel to close after the attempt to store it.
func (w *writes) take() (dirty map[key]bool, tried chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dirty, tried = w.dirty, w.tried
	w.dirty, w.tried = map[key]bool{}, make(chan struct{})
	return dirty, tried
}

// giveBack takes in what could not be stored; it will be stored with what has changed since.
func (w *writes) giveBack(dirty map[key]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.dirty, dirty)
}

// awaitWrite waits until a change is stored, but neither long nor for a database that is known to be away.
func (r *Registry) awaitWrite(ctx context.Context, written <-chan struct{}) {
	if !r.writes.reachable.Load() {
		return
	}
	select {
	case <-written:
	case <-time.After(r.cfg.WriteWait):
	case <-ctx.Done():
	}
}

// Load takes over what the database holds. prepare, which may be nil, runs first, for example to migrate.
func (r *Registry) Load(ctx context.Context, prepare func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StoreTimeout)
	defer cancel()
	if prepare != nil {
		if err := prepare(ctx); err != nil {
			return err
		}
	}
	leases, err := r.store.leases(ctx)
	if err != nil {
		return err
	}
	r.splitting.Lock()
	defer r.splitting.Unlock()
	splits, err := r.store.splits(ctx)
	if err != nil {
		return err
	}
	r.loaded(leases, splits)
	r.writes.reachable.Store(true)
	return nil
}

// Follow loads, then stores every change, in batches, until ctx ends; what fails is tried again. first is closed when
// the stored leases are loaded.
func (r *Registry) Follow(ctx context.Context, prepare func(context.Context) error, first chan<- struct{}) {
	const maxPause = 2 * time.Second
	pause := time.Duration(0)
	loaded := false
	for ctx.Err() == nil {
		err := error(nil)
		if !loaded {
			if err = r.Load(ctx, prepare); err == nil {
				loaded = true
				close(first)
			}
		} else {
			err = r.flush(ctx)
		}
		reachable := err == nil
		if was := r.writes.reachable.Swap(reachable); was != reachable || (err != nil && pause == 0) {
			r.report(err)
		}
		if err != nil {
			pause = min(max(2*pause, 100*time.Millisecond), maxPause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		select {
		case <-ctx.Done():
		case <-r.writes.kick:
		}
	}
}

func (r *Registry) report(err error) {
	if err == nil {
		r.log.Info("the database takes leases")
		return
	}
	r.log.Warn("the database is away: going on in memory", "error", err.Error())
}

// flush stores what has changed, and reads the splits again when a change of theirs ended in doubt.
func (r *Registry) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StoreTimeout)
	defer cancel()
	if r.writes.splits.Load() {
		if err := r.reloadSplits(ctx); err != nil {
			return err
		}
	}
	taken, tried := r.writes.take()
	defer close(tried)
	if len(taken) == 0 {
		return nil
	}
	leases := map[key]*lease{}
	r.mu.Lock()
	for k := range taken {
		leases[k] = nil
		if l, known := r.leases[k]; known {
			stored := *l
			leases[k] = &stored
		}
	}
	r.mu.Unlock()
	if err := r.store.write(ctx, leases); err != nil {
		r.writes.giveBack(taken)
		return err
	}
	return nil
}

func (r *Registry) reloadSplits(ctx context.Context) error {
	r.splitting.Lock()
	defer r.splitting.Unlock()
	splits, err := r.store.splits(ctx)
	if err != nil {
		return err
	}
	r.writes.splits.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.splits = splits
	r.change()
	return nil
}

// setSplit stores a split and then puts it in force.
func (r *Registry) setSplit(ctx context.Context, app string, split discovery.Split, fence int64, by string) (discovery.SplitState, error) {
	r.splitting.Lock()
	defer r.splitting.Unlock()
	state, err := r.store.setSplit(ctx, app, split, fence, by)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.splits[state.App] = state
		r.change()
		return state, nil
	}
	r.writes.splits.Store(true)
	r.writes.wake()
	return state, err
}
