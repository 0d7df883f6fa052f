package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// renameLockWait bounds the wait for the lock on a database's name, which others hold only while they connect or copy it.
const renameLockWait = 10 * time.Second

// Renamed says what a database is called now, and for how long nobody could connect to it.
type Renamed struct {
	Name string
	// Before is what the database that had the name until now is called; empty when there was none.
	Before string
	// Window is how long the name could not be connected to; zero when an earlier attempt has renamed.
	Window time.Duration
}

// Rename gives a restored database a name that no database has. Done already, it changes nothing. It returns ErrTaken
// and ErrInUse.
func (a *Administrator) Rename(ctx context.Context, oid uint32, name string) (Renamed, error) {
	restored, err := a.restored(ctx, oid)
	if err != nil || restored.Name == name {
		return Renamed{Name: name}, err
	}
	return a.rename(ctx, renaming{from: restored, to: name})
}

// Swap gives a restored database the name of one that is there, which is called before from then on. Done already, it
// changes nothing. Where no database has the name any more, it is given like any other.
//
// Both renames are one transaction (ALTER DATABASE … RENAME may be part of one), so that the name is never missing,
// whatever dies when: PostgreSQL itself undoes half of a swap. The first rename locks the database's name, and whoever
// connects waits for the commit; meanwhile the sessions that are in the database are ended.
func (a *Administrator) Swap(ctx context.Context, oid uint32, name, before string) (Renamed, error) {
	restored, err := a.restored(ctx, oid)
	if err != nil {
		return Renamed{}, err
	}
	if restored.Name == name {
		done := Renamed{Name: name}
		kept, err := a.Find(ctx, before)
		if kept != nil {
			done.Before = before
		}
		return done, err
	}
	serving, err := a.Find(ctx, name)
	if err != nil {
		return Renamed{}, err
	}
	if serving == nil {
		return a.rename(ctx, renaming{from: restored, to: name})
	}
	return a.rename(ctx, renaming{*serving, before}, renaming{from: restored, to: name})
}

func (a *Administrator) restored(ctx context.Context, oid uint32) (Placed, error) {
	restored, err := a.FindOID(ctx, oid)
	if err == nil && restored == nil {
		err = errors.New("the restored database is gone: somebody has dropped it")
	}
	if err != nil {
		return Placed{}, err
	}
	return *restored, nil
}

type renaming struct {
	from Placed
	to   string
}

// rename renames databases in one transaction, all or none.
func (a *Administrator) rename(ctx context.Context, all ...renaming) (Renamed, error) {
	ender, err := Administer(ctx, a.source)
	if err != nil {
		return Renamed{}, err
	}
	defer ender.Close()
	work, ctx := errgroup.WithContext(ctx)
	ending, enough := context.WithCancel(ctx)
	work.Go(func() error { return ender.keepEmpty(ending, all) })
	began := time.Now()
	work.Go(func() error {
		defer enough()
		return pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = %d", renameLockWait.Milliseconds())); err != nil {
				return fmt.Errorf("bound the wait for locks: %w", err)
			}
			for _, r := range all {
				statement := fmt.Sprintf("alter database %s rename to %s", ident(r.from.Name), ident(r.to))
				if _, err := tx.Exec(ctx, statement); err != nil {
					return fmt.Errorf("%s: %w", statement, err)
				}
			}
			return nil
		})
	})
	err = work.Wait()
	last := all[len(all)-1]
	if err != nil {
		// Asked by the connection that renamed: pgx closes the other one when its last statement is cut off.
		return Renamed{}, a.whyNotRenamed(context.WithoutCancel(ctx), err, all)
	}
	done := Renamed{Name: last.to, Window: time.Since(began)}
	if len(all) > 1 {
		done.Before = all[0].to
	}
	return done, nil
}

// keepEmpty ends the sessions in databases again and again: a rename waits for the last one.
func (a *Administrator) keepEmpty(ctx context.Context, all []renaming) error {
	tick := time.NewTicker(sessionPause)
	defer tick.Stop()
	for {
		for _, r := range all {
			if err := a.endSessions(ctx, r.from.OID); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// whyNotRenamed says what stands in the way.
func (a *Administrator) whyNotRenamed(ctx context.Context, err error, all []renaming) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pg.Code {
	case "42P04": // duplicate_database
		return fmt.Errorf("%w: %s", ErrTaken, all[len(all)-1].to)
	case "55006": // object_in_use
		for _, r := range all {
			if roles, lookErr := a.inTheWay(ctx, r.from.OID); lookErr == nil && roles != "" {
				return fmt.Errorf("%w: in %s there are sessions of %s, which only they or a superuser can end", ErrInUse, r.from.Name, roles)
			}
		}
	}
	return err
}
