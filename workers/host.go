package workers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/temporalclient"
)

const (
	// startAgain is the pause before Temporal is tried again while it is away.
	startAgain = time.Second
	// heartbeatThrottle bounds how late an activity learns that it was cancelled, and how late others learn how far it is: with the
	// quarter seconds at which activities look and watchers ask, less than a second. Each heartbeat is a write of Temporal's.
	heartbeatThrottle = 250 * time.Millisecond
	// maxActivities is how many activities run at once, waiting ones included.
	maxActivities = 200
	// refreshAgain is the time between two looks at whether schedules are as they are meant, and know the next changes of their zones' clocks.
	refreshAgain = 24 * time.Hour
	// ensureTimeout bounds one attempt to create or refresh a schedule.
	ensureTimeout = 10 * time.Second
)

// Registration adds workflows and activities of one kind of operation to a worker.
type Registration func(worker.Registry)

// Host runs one worker for as long as the process lives, whether Temporal is there or not.
type Host struct {
	client        client.Client
	registrations []Registration
	schedules     []schedule.Definition
	stopTimeout   time.Duration
	log           *slog.Logger

	polling atomic.Bool
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// NewHost makes a host that Start sets going.
func NewHost(c client.Client, registrations []Registration, schedules []schedule.Definition, stopTimeout time.Duration, log *slog.Logger) *Host {
	return &Host{client: c, registrations: registrations, schedules: schedules, stopTimeout: stopTimeout, log: log, stop: func() {}}
}

// Start begins to wait for Temporal, and works once it is there.
func (h *Host) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	h.stopped.Go(func() { h.work(ctx) })
	h.stopped.Go(func() { h.keepSchedules(ctx) })
}

// Stop ends the activities that run, to be taken up by the next worker, and returns when they have ended.
func (h *Host) Stop() {
	h.stop()
	h.stopped.Wait()
}

// Check returns nil while the worker takes work.
func (h *Host) Check(ctx context.Context) error {
	if !h.polling.Load() {
		return errors.New("the worker waits for Temporal")
	}
	_, err := h.client.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err
}

// work runs worker after worker: one that could not start, or that broke down, is not used again.
func (h *Host) work(ctx context.Context) {
	waiting := false
	for ctx.Err() == nil {
		broken := make(chan error, 1)
		w := h.newWorker(func(err error) { broken <- err })
		if err := w.Start(); err != nil {
			if !waiting {
				h.log.Warn("waiting for Temporal", "error", err.Error())
				waiting = true
			}
			pause(ctx, startAgain)
			continue
		}
		waiting = false
		h.log.Info("taking work", "queue", temporalclient.TaskQueue)
		h.polling.Store(true)
		select {
		case err := <-broken:
			h.log.Error("the worker broke down, starting anew", "error", err.Error())
			pause(ctx, startAgain)
		case <-ctx.Done():
		}
		h.polling.Store(false)
		w.Stop()
	}
}

func (h *Host) newWorker(broken func(error)) worker.Worker {
	w := worker.New(h.client, temporalclient.TaskQueue, worker.Options{
		WorkerStopTimeout: h.stopTimeout, MaxHeartbeatThrottleInterval: heartbeatThrottle, DefaultHeartbeatThrottleInterval: heartbeatThrottle,
		MaxConcurrentActivityExecutionSize: maxActivities, OnFatalError: broken,
	})
	for _, register := range h.registrations {
		register(w)
	}
	return w
}

// keepSchedules creates the schedules that are missing, once Temporal is there, makes those that are there do what this version means by
// them, and from then on sees to the changes of their zones' clocks.
func (h *Host) keepSchedules(ctx context.Context) {
	for _, definition := range h.schedules {
		for waiting := false; ctx.Err() == nil; pause(ctx, startAgain) {
			created, err := h.ensure(ctx, definition)
			if err == nil {
				if created {
					h.log.Info("created a schedule", "schedule", definition.ID, "cron", definition.Cron.String(), "zone", definition.Zone)
				}
				break
			}
			if !waiting {
				h.log.Warn("a schedule cannot be created for now", "schedule", definition.ID, "error", err.Error())
				waiting = true
			}
		}
	}
	for ctx.Err() == nil {
		for _, definition := range h.schedules {
			h.refresh(ctx, definition)
		}
		pause(ctx, refreshAgain)
	}
}

func (h *Host) ensure(ctx context.Context, definition schedule.Definition) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	return schedule.Ensure(ctx, h.client, definition)
}

// refresh may fail: the next time is soon enough, for clocks are known years ahead.
func (h *Host) refresh(ctx context.Context, definition schedule.Definition) {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	changed, err := schedule.Refresh(ctx, h.client, definition)
	switch {
	case err != nil:
		h.log.Warn("a schedule cannot be refreshed for now", "schedule", definition.ID, "error", err.Error())
	case changed:
		h.log.Info("a schedule is as this version means it, and knows the next changes of its zone's clock", "schedule", definition.ID)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
