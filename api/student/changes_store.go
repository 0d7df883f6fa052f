package student

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
)

// maxChanges is the most changes on a page of the feed.
const maxChanges = 1000

// cursor is a place in the feed: behind the change at a position. The zero cursor is the beginning of any feed.
type cursor struct {
	epoch    [16]byte
	position int64
}

// feedVersion is the first byte of a cursor's binary form, before its epoch and its position.
const feedVersion = 1

func (c cursor) String() string {
	raw := append([]byte{feedVersion}, c.epoch[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(raw, uint64(c.position)))
}

func parseCursor(s string) (cursor, bool) {
	var c cursor
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != 1+len(c.epoch)+8 || raw[0] != feedVersion {
		return cursor{}, false
	}
	position := binary.BigEndian.Uint64(raw[1+copy(c.epoch[:], raw[1:]):])
	c.position = int64(position)
	return c, c.position >= 0
}

// feedState says where the feed stands.
type feedState struct {
	Epoch [16]byte `db:"epoch"`
	// Last is the position of the newest change that has one.
	Last int64 `db:"last"`
	// Ours says that the epoch was made for this database.
	Ours bool `db:"ours"`
	// Waiting says that there are changes without a position.
	Waiting bool `db:"waiting"`
}

// What tells a database from its copies: the cluster, its timeline, which a recovery to an earlier point and a replica that is
// promoted change, the database, and the table, which pg_restore makes anew.
const thisDatabase = `format('%s/%s/%s/%s', (select system_identifier from pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (select oid from pg_database where datname = current_database()), tableoid)`

const selectFeed = `
select epoch, last, made_for = ` + thisDatabase + ` as ours,
    (select change_id from student_change where position is null order by position, change_id limit 1) is not null as waiting
from student_feed`

// feed reads the state. It writes and locks nothing.
func (s *Store) feed(ctx context.Context) (feedState, error) {
	rows, _ := s.db.Query(ctx, selectFeed)
	state, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[feedState])
	if err != nil {
		return feedState{}, fmt.Errorf("read the state of the change feed: %w", err)
	}
	return state, nil
}

const lockFeed = `select from student_feed for update`

// In change_id order, because of two changes of one student the later one's row was inserted after the earlier one's
// commit. One more than fits on a page, so that a reader knows whether there is another page.
var givePositions = fmt.Sprintf(`
with next as (
    select change_id, row_number() over (order by change_id) as place
    from (select change_id from student_change where position is null order by position, change_id limit %d) as waiting
), given as (
    update student_change set position = (select last from student_feed) + next.place
    from next
    where student_change.change_id = next.change_id
    returning position
)
update student_feed
set last = last + (select count(*) from given), made_for = %[2]s,
    epoch = case when made_for = %[2]s then epoch else gen_random_uuid() end
returning epoch, last, true as ours, false as waiting`, maxChanges+1, thisDatabase)

// sequence gives the changes that wait their positions. The lock is a statement of its own: the next one's snapshot comes
// after it and holds what other readers have done. What commits later gets a later position.
func (s *Store) sequence(ctx context.Context) (state feedState, err error) {
	err = pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockFeed); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, givePositions)
		state, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[feedState])
		return err
	})
	if err != nil {
		return feedState{}, fmt.Errorf("give changes their positions: %w", err)
	}
	return state, nil
}

// change is one write, as the feed tells it.
type change struct {
	Position  int64     `db:"position"`
	StudentID string    `db:"student_id"`
	Version   int64     `db:"version"`
	Action    Action    `db:"action"`
	ChangedAt time.Time `db:"changed_at"`
	ChangedBy string    `db:"changed_by"`
	RequestID string    `db:"request_id"`
	// After is nil when the student has been erased.
	After *Record `db:"after"`
}

const selectChanges = `
select position, student_id, version, change.action, change.changed_at, change.changed_by, change.request_id, after
from student_change as change left join student_audit using (student_id, version)
where position > $1
order by position
limit $2`

// Changes reads at most limit changes behind a cursor, the cursor behind them, and whether there are more. Errors: conflict
// when the cursor is of another database or of a time that a restore took back, validation-error when nobody was given it.
func (s *Store) Changes(ctx context.Context, after cursor, limit int) (found []change, next cursor, more bool, err error) {
	state, err := s.feed(ctx)
	if err == nil && (!state.Ours || state.Waiting && state.Last-after.position <= int64(limit)) {
		state, err = s.sequence(ctx)
	}
	switch {
	case err != nil:
		return nil, cursor{}, false, err
	case after == cursor{}:
		after.epoch = state.Epoch
	case after.epoch != state.Epoch:
		return nil, cursor{}, false, server.Conflict("the students were restored or moved since this cursor was given out, and changes " +
			"that you have seen may be gone: forget what you have and read again from the beginning, without after")
	case after.position > state.Last:
		return nil, cursor{}, false, server.Invalid(badCursor)
	}
	rows, _ := s.db.Query(ctx, selectChanges, after.position, limit+1)
	if found, err = pgx.CollectRows(rows, pgx.RowToStructByName[change]); err != nil {
		return nil, cursor{}, false, fmt.Errorf("read changes: %w", err)
	}
	if more = len(found) > limit; more {
		found = found[:limit]
	}
	next = after
	if len(found) > 0 {
		next.position = found[len(found)-1].Position
	}
	return found, next, more, nil
}
