package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// probeTimeout is how long the primary and the replica may each take to say where they stand.
const probeTimeout = time.Second

// reason is why a read goes where it goes.
type reason int32

const (
	undecided reason = iota
	fresh            // to the replica
	away             // the replica does not answer, or is no replica of this primary
	lagging          // it is too far behind, or nobody knows how far
	position         // it has not replayed what the caller has written
	failed           // it was asked, and failed
	reasons
)

func (r reason) String() string {
	return [reasons]string{"undecided", "fresh", "away", "lag", "position", "failed"}[r]
}

// replica is the pool of a streaming replica, and a prober that knows what it is fit for.
type replica struct {
	*pgxpool.Pool
	maxLag time.Duration
	reads  [reasons]atomic.Int64
	seen   atomic.Pointer[seen]

	// The prober has connections of its own: it must not wait behind those whose fate it decides.
	primary, standby *pgxpool.Pool
	written          history
	diverged         time.Time // when the server was started that turned out not to follow the primary
	stop             context.CancelFunc
	done             chan struct{}

	mu          sync.Mutex
	connections map[*pgx.Conn]struct{}
}

// seen is what a probe has found.
type seen struct {
	away             error // why the replica cannot be read
	started          time.Time
	system, replayed uint64
	// upTo is a time by which the replica has replayed all that the primary had written then. It ages when nothing new is
	// learned, so that a replica of which nothing is known lags.
	upTo time.Time
}

func newReplica(ctx context.Context, c Config, application string) (*replica, error) {
	primary, err := c.PoolConfig(application + " prober")
	if err != nil {
		return nil, err
	}
	c.URL, c.MaxConns, c.MinConns = c.ReplicaURL, c.ReplicaMaxConns, min(c.MinConns, c.ReplicaMaxConns)
	reading, err := c.PoolConfig(application)
	if err != nil {
		return nil, errors.New("DATABASE_REPLICA_URL: not a PostgreSQL URL (postgres://user@host:port/database)")
	}
	standby := reading.Copy()
	standby.ConnConfig.RuntimeParams["application_name"] = application + " prober"
	r := &replica{maxLag: c.ReplicaMaxLag, done: make(chan struct{}), connections: map[*pgx.Conn]struct{}{}}
	r.seen.Store(&seen{away: errors.New("not asked yet")})
	reading.AfterConnect, reading.BeforeClose = r.admit, r.forget
	primary.MaxConns, primary.MinConns, standby.MaxConns, standby.MinConns = 1, 0, 1, 0
	for _, open := range []struct {
		pool   **pgxpool.Pool
		config *pgxpool.Config
	}{{&r.Pool, reading}, {&r.primary, primary}, {&r.standby, standby}} {
		if *open.pool, err = pgxpool.NewWithConfig(ctx, open.config); err != nil {
			return nil, fmt.Errorf("open the pools of the replica: %w", err)
		}
	}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	go r.watch(ctx, c.ReplicaProbeInterval)
	return r, nil
}

func (r *replica) close() {
	r.stop()
	<-r.done
	for _, pool := range []*pgxpool.Pool{r.Pool, r.primary, r.standby} {
		pool.Close()
	}
}

// judge says whether a read after a position may go to the replica now.
func (r *replica) judge(after Position) reason {
	switch s := r.seen.Load(); {
	case s.away != nil:
		return away
	case time.Since(s.upTo) > r.maxLag:
		return lagging
	case after != Position{} && (after.system != s.system || after.lsn > s.replayed):
		return position
	}
	return fresh
}

// watch probes until the replica is closed, and logs when reads begin to go elsewhere.
func (r *replica) watch(ctx context.Context, every time.Duration) {
	defer close(r.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	before := undecided
	for {
		now := r.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		r.seen.Store(&now)
		if now.away != nil {
			r.cut()
		}
		if why := r.judge(Position{}); why != before {
			before = why
			level, target, cause := slog.LevelInfo, "replica", ""
			if why != fresh {
				level, target = slog.LevelWarn, "primary"
			}
			if now.away != nil {
				cause = now.away.Error()
			}
			slog.Log(ctx, level, "reads go to the "+target, "replica.state", why.String(), "error", cause)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

const (
	selectReplayed = `
select pg_is_in_recovery(), pg_postmaster_start_time(), current_database(), system_identifier, coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint
from pg_control_system()`
	// Only what is flushed is sent. Past it may lie what nobody flushes for a while, and an idle replica would seem to lag.
	selectFlushed = `select system_identifier, (pg_current_wal_flush_lsn() - '0/0')::bigint from pg_control_system()`
)

// probe asks the replica how far it is, and then the primary.
func (r *replica) probe(ctx context.Context) seen {
	now := *r.seen.Load()
	var recovering bool
	var database string
	var system, replayed, ofPrimary, flushed int64
	asking, cancel := context.WithTimeout(ctx, probeTimeout)
	now.away = r.standby.QueryRow(asking, selectReplayed).Scan(&recovering, &now.started, &database, &system, &replayed)
	cancel()
	now.system, now.replayed = uint64(system), uint64(replayed)
	switch {
	case now.away != nil:
		return now
	case !recovering:
		now.away = errors.New("DATABASE_REPLICA_URL names a server that follows none")
		return now
	case database != r.standby.Config().ConnConfig.Database:
		// A restore has put another database in its place. On a replica nobody ends the sessions in the one before.
		now.away = errors.New("the database was replaced, and is now called " + database)
		r.standby.Reset()
		return now
	}
	asking, cancel = context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	at := time.Now()
	if r.primary.QueryRow(asking, selectFlushed).Scan(&ofPrimary, &flushed) != nil {
		return now
	}
	if replayed > flushed { // it follows another history: the primary was restored
		r.diverged = now.started
	}
	switch {
	case system != ofPrimary:
		now.away = errors.New("DATABASE_REPLICA_URL names the replica of another cluster")
	case now.started.Equal(r.diverged):
		now.away = errors.New("the replica holds what the primary never had")
	default:
		r.written.add(at, uint64(flushed))
		if upTo := r.written.replayed(uint64(replayed)); !upTo.IsZero() {
			now.upTo = upTo
		}
	}
	return now
}

// history remembers how far the primary had written at which time, the oldest first.
type history []struct {
	at      time.Time
	written uint64
}

// maxHistory bounds what is remembered of a replica that stays behind. Older times are then known less exactly.
const maxHistory = 512

func (h *history) add(at time.Time, written uint64) {
	if last := len(*h) - 1; last >= 0 && (*h)[last].written == written {
		(*h)[last].at = at // an idle primary: who has replayed that has all of this time, too
		return
	}
	if len(*h) == maxHistory {
		for i := range maxHistory / 2 {
			(*h)[i] = (*h)[2*i]
		}
		*h = (*h)[:maxHistory/2]
	}
	*h = append(*h, struct {
		at      time.Time
		written uint64
	}{at, written})
}

// replayed forgets what the replica has replayed, and returns the latest time of that; zero when it is none.
func (h *history) replayed(lsn uint64) (upTo time.Time) {
	n := 0
	for n < len(*h) && (*h)[n].written <= lsn {
		upTo = (*h)[n].at
		n++
	}
	*h = append((*h)[:0], (*h)[n:]...)
	return upTo
}

// errNotProbed refuses a connection to a server that the prober knows nothing of yet.
var errNotProbed = errors.New("the replica was started anew, or went back, since it was asked how far it is")

const selectIdentity = `select pg_postmaster_start_time(), coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint`

// admit takes a new connection in. A replica that crashed comes back a little before where it was, and another server may
// answer at the same address: what the prober has seen does not hold for either.
func (r *replica) admit(ctx context.Context, conn *pgx.Conn) error {
	var started time.Time
	var replayed int64
	if err := conn.QueryRow(ctx, selectIdentity).Scan(&started, &replayed); err != nil {
		return err
	}
	if s := r.seen.Load(); !started.Equal(s.started) || uint64(replayed) < s.replayed {
		return errNotProbed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connections[conn] = struct{}{}
	return nil
}

func (r *replica) forget(conn *pgx.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.connections, conn)
}

// cut ends every connection to a replica that does not answer, so that the reads that wait for it fail now and are answered
// by the primary. Its host may be gone, and then nobody else would tell them.
func (r *replica) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.connections {
		_ = conn.PgConn().Conn().Close()
	}
}
