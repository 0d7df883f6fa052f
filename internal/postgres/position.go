package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// Position is a place in the write-ahead log of one cluster. The zero Position is before everything.
type Position struct {
	// system identifies the cluster: places in the logs of two clusters cannot be compared.
	system, lsn uint64
}

// unknown is past the end of every log.
var unknown = Position{lsn: math.MaxUint64}

// String writes a position for ParsePosition. Nobody else should read anything into it.
func (p Position) String() string { return fmt.Sprintf("%x-%x", p.system, p.lsn) }

// PositionPattern is the regular expression of what String writes.
const PositionPattern = `^[0-9a-f]{1,16}-[0-9a-f]{1,16}$`

// ParsePosition reads what String has written.
func ParsePosition(s string) (Position, error) {
	system, lsn, _ := strings.Cut(s, "-")
	var p Position
	var systemErr, lsnErr error
	p.system, systemErr = strconv.ParseUint(system, 16, 64)
	p.lsn, lsnErr = strconv.ParseUint(lsn, 16, 64)
	if systemErr != nil || lsnErr != nil || strings.ToLower(s) != s || len(system) > 16 || len(lsn) > 16 {
		return Position{}, errors.New("not a position")
	}
	return p, nil
}

// The insert position is never before a commit that was answered, not even where commits are not waited for.
const selectPosition = `select system_identifier, (pg_current_wal_insert_lsn() - '0/0')::bigint from pg_control_system()`

// Position is where the log stands now, after everything that this process has committed. Where that cannot be learned it
// is a position that no replica reaches, so that reads that carry it go to the primary.
func (db *DB) Position(ctx context.Context) Position {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var system, lsn int64
	if err := db.QueryRow(ctx, selectPosition).Scan(&system, &lsn); err != nil {
		return unknown
	}
	return Position{uint64(system), uint64(lsn)}
}

type readsKey struct{}

// reads is what the reads of one request have in common.
type reads struct {
	after   Position
	decided atomic.Int32 // a reason
}

// WithReads lets the reads of a request that changes nothing go to the replica, once that has replayed after. All other
// requests read from the primary.
func (db *DB) WithReads(ctx context.Context, after Position) context.Context {
	if !db.HasReplica() {
		return ctx
	}
	return context.WithValue(ctx, readsKey{}, &reads{after: after})
}

// ReadAgain reports whether a request failed with err because the replica did, so that it should be answered once more: its
// reads go to the primary from now on.
func ReadAgain(ctx context.Context, err error) bool {
	of, _ := ctx.Value(readsKey{}).(*reads)
	if of == nil || ctx.Err() != nil || !brokenOff(err) {
		return false
	}
	return of.decided.CompareAndSwap(int32(fresh), int32(failed))
}

// brokenOff reports whether a read ended because of its server rather than because of what it asked for. A replica also
// ends what stands in the way of replay (40001), or may lack what the primary has by now. That a statement takes too long
// is not the replica's doing.
func brokenOff(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		const queryCanceled = "57014"
		return pg.Code != queryCanceled
	}
	return Unavailable(err) || errors.Is(err, errNotProbed)
}
