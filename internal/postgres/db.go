package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// DB is a service's database. Its own methods are those of the primary, where every write goes and every read that a write
// depends on.
type DB struct{ *pgxpool.Pool }

// NewDB is a database without a replica.
func NewDB(primary *pgxpool.Pool) *DB { return &DB{primary} }

// Reader is the pool for a read that only answers a caller.
func (db *DB) Reader(context.Context) *pgxpool.Pool { return db.Pool }
