package ops

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
)

const (
	// lookTimeout bounds one look into ops_db.
	lookTimeout = 10 * time.Second
	// sayAgain is how often a database that stays overdue is logged.
	sayAgain = time.Hour
)

// Watchdog notices that a database's newest verified backup is older than promised. It looks into ops_db by a clock of
// its own, so that it needs neither Temporal nor a worker, which may be why there is no backup. While ops_db is away it
// goes by what it saw last: ages go on growing.
type Watchdog struct {
	store     *operation.Store
	databases []string
	promise   time.Duration
	log       *slog.Logger
	now       func() time.Time

	clock   *cron.Cron
	looking sync.WaitGroup
	stop    context.CancelFunc

	mu        sync.Mutex
	standings []operation.Standing
	// readable says whether the last look could read ops_db, readAt when one could.
	readable, saidAway bool
	readAt             time.Time
	// said is when each overdue database was last logged.
	said map[string]time.Time
}

// NewWatchdog makes a watchdog over the configured databases that Start sets going.
func NewWatchdog(store *operation.Store, cfg Config, log *slog.Logger) *Watchdog {
	w := &Watchdog{store: store, databases: cfg.Databases.Names(), promise: cfg.Promise, log: log, now: time.Now, said: map[string]time.Time{}, stop: func() {}}
	w.clock = cron.New(cron.WithChain(cron.SkipIfStillRunning(cron.DiscardLogger)))
	for _, database := range w.databases {
		w.standings = append(w.standings, operation.Standing{Database: database, Since: w.now()})
	}
	return w
}

// Start looks at once, and then at each interval of at least a second.
func (w *Watchdog) Start(interval time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.clock.Schedule(cron.Every(interval), cron.FuncJob(func() { w.Look(ctx) }))
	w.clock.Start()
	w.looking.Go(func() { w.Look(ctx) })
}

// Stop returns when no look is under way.
func (w *Watchdog) Stop() {
	w.stop()
	<-w.clock.Stop().Done()
	w.looking.Wait()
}

// Look reads ops_db and logs what has changed.
func (w *Watchdog) Look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := w.store.Watch(ctx, w.databases, w.now())
	var standings []operation.Standing
	if err == nil {
		standings, err = w.store.Standings(ctx, w.databases)
	}
	if ctx.Err() != nil && err != nil && context.Cause(ctx) == context.Canceled {
		return // stopping
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if !w.saidAway {
			w.log.Warn("whether backups are in time cannot be read for now", "error", err.Error())
		}
		w.readable, w.saidAway = false, true
	} else {
		w.readable, w.saidAway, w.readAt, w.standings = true, false, w.now(), standings
	}
	for _, r := range w.assess() {
		w.say(r)
	}
}

// assess is called with the lock held.
func (w *Watchdog) assess() []Recovery {
	recoveries := make([]Recovery, len(w.standings))
	for i, standing := range w.standings {
		recoveries[i] = assess(standing, w.promise, w.now())
	}
	return recoveries
}

// say logs a database that has become overdue or still is, and one that no longer is.
func (w *Watchdog) say(r Recovery) {
	last, was := w.said[r.Database]
	switch {
	case r.State == Overdue && (!was || w.now().Sub(last) >= sayAgain):
		w.log.Error("backup overdue", "database", r.Database, "reason", r.Summary)
		w.said[r.Database] = w.now()
	case r.State != Overdue && was:
		w.log.Info("backup in time again", "database", r.Database)
		delete(w.said, r.Database)
	}
}

// Check is the health of the backups: DOWN while one is overdue, or when that cannot be said.
func (w *Watchdog) Check(context.Context) server.Component {
	w.mu.Lock()
	defer w.mu.Unlock()
	component := server.Component{Status: server.Up, Details: map[string]any{"promise": w.promise.String()}}
	for _, r := range w.assess() {
		component.Details[r.Database] = r.State + ": " + r.Summary
		if r.State == Overdue {
			component.Status = server.Down
		}
	}
	if !w.readable {
		component.Status = server.Down
		component.Details["catalogue"] = "ops_db cannot be read"
		if !w.readAt.IsZero() {
			component.Details["catalogue"] = fmt.Sprintf("ops_db cannot be read; this is as of %s", w.readAt.UTC().Format(time.RFC3339))
		}
	}
	return component
}
