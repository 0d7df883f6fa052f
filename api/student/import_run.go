package student

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/school-sms/sms/internal/postgres"
)

// CSV takes students in and out as CSV files. An import is decided in the background of whichever process has its lease, and outlives
// the process that began it.
type CSV struct {
	store  *Store
	cfg    CSVConfig
	school func() School
	now    func() time.Time
	log    *slog.Logger

	background context.Context // ends with Stop
	stop       context.CancelFunc
	work       sync.WaitGroup
	one        chan struct{} // imports of one process are decided one after the other, with one connection
	exports    chan struct{}
}

// NewCSV takes files in and out of a store. school says what holds now, and now what time it is.
func NewCSV(store *Store, cfg CSVConfig, school func() School, now func() time.Time, log *slog.Logger) *CSV {
	c := &CSV{store: store, cfg: cfg, school: school, now: now, log: log, one: make(chan struct{}, 1), exports: make(chan struct{}, cfg.MaxExports)}
	c.background, c.stop = context.WithCancel(context.Background())
	return c
}

// Start looks, now and then until Stop, for imports that nobody works on any more, and for what is to be removed.
func (c *CSV) Start(context.Context) error {
	c.work.Go(func() {
		tick := time.NewTicker(max(c.cfg.Lease/3, time.Millisecond))
		defer tick.Stop()
		for {
			if err := c.lookAfter(c.background); err != nil && c.background.Err() == nil {
				c.log.Warn("imports are not looked after for now", "error", err.Error())
			}
			select {
			case <-tick.C:
			case <-c.background.Done():
				return
			}
		}
	})
	return nil
}

// Stop rolls back what is being decided, so that another instance takes it over at once.
func (c *CSV) Stop(ctx context.Context) error {
	c.stop()
	stopped := make(chan struct{})
	go func() {
		c.work.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop imports: %w", ctx.Err())
	}
}

// lookAfter ends imports that will not end by themselves, takes over imports that were left, and sweeps.
func (c *CSV) lookAfter(ctx context.Context) error {
	rows, _ := c.store.db.Query(ctx, hopelessImports, mostAttempts)
	hopeless, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
		ImportID string
		Phase    ImportPhase
	}])
	if err != nil {
		return fmt.Errorf("look for imports that will not end: %w", err)
	}
	for _, row := range hopeless {
		why := internalFault
		if row.Phase == Uploading {
			why = uploadIncomplete
		}
		if err := c.fail(ctx, row.ImportID, why); err != nil {
			return fmt.Errorf("end an import: %w", err)
		}
	}
	for {
		var importID string
		err := c.store.db.QueryRow(ctx, claimImport, c.cfg.Lease).Scan(&importID)
		if errors.Is(err, pgx.ErrNoRows) {
			return c.sweep(ctx)
		} else if err != nil {
			return fmt.Errorf("look for imports that were left: %w", err)
		}
		c.log.Info("taking over an import", "import.id", importID)
		c.start(importID)
	}
}

func (c *CSV) sweep(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, c.store.db, func(tx pgx.Tx) error {
		if err := c.takeTime(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, sweepImports, c.cfg.Keep)
		return err
	})
	if err != nil {
		return fmt.Errorf("sweep imports: %w", err)
	}
	return nil
}

// takeTime allows the statements of a transaction as long as an import may take, and has them end with the process that sent them:
// one that was killed must not hold its locks for long.
func (c *CSV) takeTime(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `select set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true),
		set_config('client_connection_check_interval', '1s', true)`, strconv.FormatInt(c.cfg.StatementTimeout.Milliseconds(), 10))
	return err
}

// start decides a staged import in the background. What is returned is closed when this process is done with it.
func (c *CSV) start(importID string) <-chan struct{} {
	done := make(chan struct{})
	c.work.Go(func() {
		defer close(done)
		c.decide(importID)
	})
	return done
}

// mostAttempts is how often an import is taken up before it is given up.
const mostAttempts = 10

// decide applies an import that this process holds. An import that could not be decided for now keeps running, and is taken up again.
func (c *CSV) decide(importID string) {
	ctx := c.background
	var at progress
	at.phase.Store(Checking)
	release := c.hold(ctx, importID, &at, nil)
	err := c.inTurn(ctx, importID, &at)
	release()
	switch {
	case err == nil:
		if _, err := c.store.db.Exec(ctx, `delete from student_import_row where import_id = $1`, importID); err != nil && ctx.Err() == nil {
			c.log.Warn("staged rows stay until they are swept", "import.id", importID, "error", err.Error())
		}
	case ctx.Err() != nil:
		c.release(importID)
	default:
		c.log.Error("an import failed", "import.id", importID, "error", err.Error())
		c.giveUp(ctx, importID, err)
	}
}

func (c *CSV) inTurn(ctx context.Context, importID string, at *progress) error {
	select {
	case c.one <- struct{}{}:
		defer func() { <-c.one }()
		return c.apply(ctx, importID, at)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveUp ends an import that cannot be decided, unless the database was only away and it is worth another try.
func (c *CSV) giveUp(ctx context.Context, importID string, cause error) {
	why := internalFault
	row, err := readImport(ctx, c.store.db, importID)
	switch {
	case errors.Is(cause, errStagedRowsLost):
		why = RowFault{Code: "upload-lost", Detail: "the database lost rows of the file; nothing was written: send it again"}
	case err != nil || postgres.Unavailable(cause) && !tookTooLong(cause) && row.Attempts < mostAttempts:
		return
	case writtenMeanwhile(cause):
		why = RowFault{Code: "conflict", Detail: "others kept writing the same students; nothing was written: send the file again"}
	}
	if err := c.fail(ctx, importID, why); err != nil {
		c.log.Error("cannot note that an import failed", "import.id", importID, "error", err.Error())
	}
}

// tookTooLong says whether a statement was ended by its timeout.
func tookTooLong(err error) bool {
	const queryCanceled = "57014"
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == queryCanceled
}

var (
	uploadIncomplete = RowFault{Code: "upload-incomplete", Detail: "the file did not come to its end; nothing was written: send it again"}
	internalFault    = RowFault{Code: "internal-error", Detail: "the import could not be carried out; nothing was written"}
)

// fail ends a running import for a reason, and removes its rows.
func (c *CSV) fail(ctx context.Context, importID string, why RowFault) error {
	return pgx.BeginFunc(ctx, c.store.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, failImport, importID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return faultOfAll(ctx, tx, importID, why)
	})
}

// shortly bounds what is still to be noted when a process stops or a caller has gone.
func shortly() (context.Context, context.CancelFunc) {
	const patience = 3 * time.Second
	return context.WithTimeout(context.Background(), patience)
}

func (c *CSV) release(importID string) {
	ctx, cancel := shortly()
	defer cancel()
	if _, err := c.store.db.Exec(ctx, releaseImport, importID); err != nil {
		c.log.Warn("an import is taken over when its lease has run out", "import.id", importID, "error", err.Error())
	}
}

// progress is where an import stands.
type progress struct {
	phase atomic.Value // ImportPhase
	rows  atomic.Int64 // that have come
}

// hold renews the lease of an import, and notes where it stands, until what is returned is called. lost, when set, is called when
// somebody else has ended the import.
func (c *CSV) hold(ctx context.Context, importID string, at *progress, lost func()) (release func()) {
	stop := make(chan struct{})
	var holding sync.WaitGroup
	holding.Go(func() {
		tick := time.NewTicker(max(min(c.cfg.Lease/5, time.Second), time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			case <-ctx.Done():
				return
			}
			tag, err := c.store.db.Exec(ctx, keepImport, importID, c.cfg.Lease, at.phase.Load(), at.rows.Load())
			if err == nil && tag.RowsAffected() == 0 && lost != nil {
				lost()
				return
			}
		}
	})
	return func() {
		close(stop)
		holding.Wait()
	}
}
