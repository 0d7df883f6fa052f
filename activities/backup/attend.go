package backup

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/school-sms/sms/internal/backup"
)

const (
	// beat is how often an activity says that it lives, and how far it is.
	beat = 2 * time.Second
	// stallLimit ends a read of storage that has not moved for this long. That a dump's storage takes nothing any more, the
	// engine notices itself: Tools.StallLimit.
	stallLimit = 10 * time.Minute
)

var (
	errStalled  = errors.New("nothing has moved for " + stallLimit.String())
	errStopping = errors.New("the worker is stopping")
)

// attended runs work with heartbeats, when one of the slots is free. It ends work when the activity is cancelled, when
// the worker stops, and when the meter stands still for longer than stall, if that is above zero. How far it is shows in
// the heartbeats, in the metrics of the database, and from time to time in the workflow's details.
func (a *Activities) attended(ctx context.Context, database string, stall time.Duration, work func(context.Context, *backup.Meter) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var meter backup.Meter
	defer a.Running.begin(ctx, database, &meter)()
	var started atomic.Bool
	done := make(chan error, 1)
	go func() {
		release, err := a.slot(ctx)
		if err != nil {
			done <- err
			return
		}
		defer release()
		started.Store(true)
		done <- work(ctx, &meter)
	}()

	tick := time.NewTicker(beat)
	defer tick.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	began := time.Now()
	pace, lastMove := backup.NewPace(&meter, began), began
	word := teller{began: began}
	defer word.end()
	for {
		select {
		case err := <-done:
			return causeOf(ctx, err)
		case <-stopping:
			cancel(errStopping)
			stopping = nil
		case <-tick.C:
			moved, moving := pace.Read(time.Now())
			if moving || !started.Load() {
				lastMove = time.Now()
			}
			if stall > 0 && time.Since(lastMove) > stall {
				cancel(errStalled)
			}
			activity.RecordHeartbeat(ctx, moved)
			word.tell(ctx, moved)
		}
	}
}

// slot waits until one of the slots is free.
func (a *Activities) slot(ctx context.Context) (release func(), err error) {
	if a.Slots == nil {
		return func() {}, nil
	}
	select {
	case a.Slots <- struct{}{}:
		return func() { <-a.Slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// causeOf prefers the reason why work was ended to what it said when it was.
func causeOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
