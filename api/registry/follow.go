package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// told is what another registry says.
type told int

const (
	toldChange told = iota
	toldMember
)

// Follow keeps memory and database equal until ctx ends: it joins the registries, reads everything, commits what is changed
// here and applies what others commit. What fails begins anew. first is closed when everything was read once. prepare, which
// may be nil, runs before, for example to migrate.
func (r *Registry) Follow(ctx context.Context, prepare func(context.Context) error, first chan<- struct{}) {
	const shortest, longest = 100 * time.Millisecond, 2 * time.Second
	var pause time.Duration
	for ctx.Err() == nil {
		err := r.session(ctx, &prepare, func() {
			pause = 0
			r.log.Info("the database takes changes")
			if first != nil {
				close(first)
				first = nil
			}
		})
		r.lose()
		if ctx.Err() != nil {
			return
		}
		if pause == 0 {
			r.log.Warn("the database is away: going on in memory", "error", err.Error())
		}
		pause = min(max(2*pause, shortest), longest)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// session is one time with the database. It ends with an error, or with ctx.
func (r *Registry) session(ctx context.Context, prepare *func(context.Context) error, begun func()) error {
	if *prepare != nil {
		if err := r.within(ctx, *prepare); err != nil {
			return err
		}
		*prepare = nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var conn *pgx.Conn
	err := r.within(ctx, func(ctx context.Context) (err error) { conn, err = r.listen(ctx); return err })
	if err != nil {
		return err
	}
	said, done := make(chan told, 2), make(chan struct{})
	go func() {
		defer close(done)
		cancel(r.hear(ctx, conn, said))
	}()
	defer func() {
		cancel(nil)
		<-done
	}()
	if _, err := r.exchangeTick(ctx, true); err != nil {
		return err
	}
	if err := r.within(ctx, r.resync); err != nil {
		return err
	}
	begun()
	if err := r.join(ctx, said); err != nil {
		return err
	}
	return r.work(ctx, said)
}

func (r *Registry) within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StoreTimeout)
	defer cancel()
	return f(ctx)
}

// listen opens the one connection on which others are heard.
func (r *Registry) listen(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, r.store.pool.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("listen for changes: %w", err)
	}
	if _, err := conn.Exec(ctx, "listen registry"); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("listen for changes: %w", err)
	}
	return conn, nil
}

// hear passes on what others say until the connection ends.
func (r *Registry) hear(ctx context.Context, conn *pgx.Conn, said chan<- told) error {
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("listen for changes: %w", err)
		}
		from, what, _ := strings.Cut(notification.Payload, " ")
		if from == r.id {
			continue
		}
		word := toldChange
		if what != "changed" {
			word = toldMember
		}
		select {
		case said <- word:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// work is the one place where changes meet the database. It returns with an error when that is lost, or when ctx ends.
func (r *Registry) work(ctx context.Context, said <-chan told) error {
	tick := time.NewTicker(r.cfg.EvictInterval)
	defer tick.Stop()
	const forgetEvery = time.Minute
	forgotten := r.now()
	for {
		err := error(nil)
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			ctx = context.WithoutCancel(ctx)
			return errors.Join(r.bounded(ctx, r.serve), r.leave(ctx))
		case <-r.kick:
			err = r.bounded(ctx, r.serve)
		case word := <-said:
			if word == toldMember {
				err = r.exchange(ctx, true)
			}
			if err == nil {
				err = r.bounded(ctx, r.catchUp)
			}
		case <-tick.C:
			err = r.exchange(ctx, false)
			if r.now()-forgotten > forgetEvery && err == nil {
				forgotten = r.now()
				err = r.bounded(ctx, func(ctx context.Context) error { return r.store.forget(ctx, keepDepartures) })
			}
		}
		if errors.Is(err, errNotMember) {
			err = r.join(ctx, said)
		}
		if err != nil {
			return err
		}
	}
}

// keepDepartures is how long it is known that an instance left, so that a registry that was cut off does not bring it back.
const keepDepartures = time.Hour

func (r *Registry) bounded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.WriteWait)
	defer cancel()
	return f(ctx)
}

func (r *Registry) wake() {
	select {
	case r.kick <- struct{}{}:
	default: // a kick is waiting already
	}
}

// alone reports whether no other registry can have written anything.
func (r *Registry) alone() bool { return int64(r.now()) < r.soleUntil.Load() }

// fresh returns once memory holds everything that was committed before the call. A registry that is alone holds it anyway; one
// whose database is away answers what it knows.
func (r *Registry) fresh(ctx context.Context) {
	if r.alone() {
		return
	}
	r.mu.Lock()
	if !r.online {
		r.mu.Unlock()
		return
	}
	asked := make(chan struct{})
	r.asking = append(r.asking, asked)
	r.wake()
	r.mu.Unlock()
	select {
	case <-asked:
	case <-ctx.Done():
	}
}

// lose goes on without the database: what waits for it is taken in memory.
func (r *Registry) lose() {
	r.soleUntil.Store(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.online = false
	for _, c := range r.queue {
		r.applyUnstored(c)
	}
	r.queue = nil
	for _, c := range r.splitted {
		c.finish(errAway)
	}
	r.splitted = nil
	r.answer(r.asking)
	r.asking = nil
}
