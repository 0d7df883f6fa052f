package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// DB is a service's database. Its own methods are those of the primary, where every write goes and every read that a write
// depends on.
type DB struct {
	*pgxpool.Pool
	replica *replica // nil when there is none
}

// NewDB is a database without a replica.
func NewDB(primary *pgxpool.Pool) *DB { return &DB{Pool: primary} }

// OpenDB opens the database of a configuration, with its replica when that names one. Both may be away.
func OpenDB(ctx context.Context, c Config, application string) (*DB, error) {
	pool, err := Open(ctx, c, application)
	if err != nil || c.ReplicaURL == "" {
		return &DB{Pool: pool}, err
	}
	r, err := newReplica(ctx, c, application)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &DB{Pool: pool, replica: r}, nil
}

// Close ends every connection; it waits for those in use.
func (db *DB) Close() {
	if db.replica != nil {
		db.replica.close()
	}
	db.Pool.Close()
}

// HasReplica reports whether reads may go elsewhere than to the primary. A nil DB has none.
func (db *DB) HasReplica() bool { return db != nil && db.replica != nil }

// Reader is the pool for a read that only answers a caller: the replica's for a context of WithReads while the replica is
// fit for it, else the primary's. All reads of one request stay on the primary once one of them went there.
func (db *DB) Reader(ctx context.Context) *pgxpool.Pool {
	of, _ := ctx.Value(readsKey{}).(*reads)
	if of == nil || db.replica == nil {
		return db.Pool
	}
	why := reason(of.decided.Load())
	if why == undecided || why == fresh {
		why = db.replica.judge(of.after)
		of.decided.Store(int32(why))
	}
	db.replica.reads[why].Add(1)
	if why == fresh {
		return db.replica.Pool
	}
	return db.Pool
}

// ReplicaHealth is nil while reads go to the replica, else why they do not.
func (db *DB) ReplicaHealth(context.Context) error {
	if why := db.replica.judge(Position{}); why != fresh {
		return errors.New("reads go to the primary: " + why.String())
	}
	return nil
}
