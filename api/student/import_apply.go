package student

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/school-sms/sms/internal/postgres"
)

// applying is the advisory lock of whoever decides an import: imports that speak of the same students would wait for each other in a circle.
const applying = 0x73747564656e74 // "student"

// applyTries is how often an import starts over because others wrote the same students meanwhile.
const applyTries = 10

// apply decides an import whose file is staged, and writes it. It is one transaction, which ends with the import, so that it happens once
// however often it is tried.
func (c *CSV) apply(ctx context.Context, importID string, at *progress) error {
	// Without it the planner guesses what a table holds that was empty a moment ago.
	if _, err := c.store.db.Exec(ctx, "analyze (skip_locked) student_import_row (import_id, line, student_id, mobile)"); err != nil {
		return fmt.Errorf("analyze staged rows: %w", err)
	}
	var err error
	for range applyTries {
		at.phase.Store(Checking)
		err = pgx.BeginFunc(ctx, c.store.db, func(tx pgx.Tx) error {
			return (&application{CSV: c, tx: tx, progress: at}).run(ctx, importID)
		})
		if !writtenMeanwhile(err) {
			break
		}
	}
	return err
}

// writtenMeanwhile says whether err comes from a write of somebody else that the plan did not see.
func writtenMeanwhile(err error) bool {
	const serializationFailure, deadlockDetected = "40001", "40P01"
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return postgres.ViolatedConstraint(err) == "student_mobile_key" || ok && (pg.Code == serializationFailure || pg.Code == deadlockDetected)
}

// errStagedRowsLost says that the database has lost rows of the file, as it does in a crash.
var errStagedRowsLost = errors.New("staged rows are lost")

// application is the transaction that decides one import.
type application struct {
	*CSV
	*progress
	tx   pgx.Tx
	job  importRow
	args pgx.NamedArgs
}

func (a *application) run(ctx context.Context, importID string) error {
	if err := a.takeTime(ctx, a.tx); err != nil {
		return fmt.Errorf("prepare to import: %w", err)
	}
	if _, err := a.tx.Exec(ctx, "set local work_mem = '64MB'"); err != nil {
		return fmt.Errorf("prepare to import: %w", err)
	}
	if _, err := a.tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(applying)); err != nil {
		return fmt.Errorf("wait for other imports: %w", err)
	}
	var err error
	if a.job, err = readImport(ctx, a.tx, importID); err != nil || a.job.State != Running {
		return err
	}
	if err := a.plan(ctx); err != nil {
		return err
	}
	state, err := a.decide(ctx)
	if err != nil {
		return err
	}
	if state == Succeeded && !a.job.DryRun {
		a.phase.Store(Writing)
		if err := a.write(ctx); err != nil {
			return err
		}
	} else if state != Succeeded {
		a.job.RowsCreated, a.job.RowsUpdated, a.job.RowsUnchanged, a.job.Deactivated = 0, 0, 0, 0
	}
	return a.finish(ctx, state)
}

func (a *application) exec(ctx context.Context, what, sql string) error {
	// Each statement is planned with what it is about: imports are as different as files are.
	if _, err := a.tx.Exec(ctx, sql, pgx.QueryExecModeCacheDescribe, a.args); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// plan finds out what the import would do, and keeps the faults.
func (a *application) plan(ctx context.Context) error {
	h, _ := readHeader(a.job.Header)
	absent := []RowFault{}
	for i, column := range csvColumns {
		if !column.optional && !h.has(i) {
			absent = append(absent, RowFault{column.name, "required", "the file has no such column, and a new student needs it"})
		}
	}
	encoded, err := json.Marshal(absent)
	if err != nil {
		return fmt.Errorf("encode faults: %w", err)
	}
	school := a.school()
	a.args = pgx.NamedArgs{"import_id": a.job.ImportID, "utf8": a.job.UTF8, "youngest": school.Ages.Min, "oldest": school.Ages.Max,
		"zone": school.Zone.String(), "today": DateOf(a.now().In(school.Zone)), "absent": string(encoded)}
	planned := planForUpdate
	if a.job.DryRun {
		planned = planOnly
	}
	if _, err := a.tx.Exec(ctx, createPlan); err != nil {
		return fmt.Errorf("make the plan's table: %w", err)
	}
	if err := a.exec(ctx, "plan an import", planned); err != nil {
		return err
	}
	return a.exec(ctx, "keep faults", insertFaults(h))
}

// decide counts, and says whether the import may be written.
func (a *application) decide(ctx context.Context) (ImportState, error) {
	var staged int64
	job := &a.job
	err := a.tx.QueryRow(ctx, countPlan, a.args).
		Scan(&job.RowsCreated, &job.RowsUpdated, &job.RowsUnchanged, &job.Deactivated, &job.RowsRejected, &staged)
	if err != nil {
		return "", fmt.Errorf("count rows: %w", err)
	}
	if staged != job.RowsStaged {
		return "", errStagedRowsLost
	}
	state := Succeeded
	if job.RowsRejected > 0 && job.Mode == allRows {
		state = Rejected
	}
	if job.Deactivated == 0 || job.Confirm {
		return state, nil
	}
	var active int64
	if err := a.tx.QueryRow(ctx, countActive).Scan(&active); err != nil {
		return "", fmt.Errorf("count active students: %w", err)
	}
	if job.Deactivated*100 <= active*a.cfg.MaxDeactivationPercent {
		return state, nil
	}
	return Rejected, faultOfAll(ctx, a.tx, job.ImportID, RowFault{"status", "too-many-deactivations", fmt.Sprintf(
		"%d of %d active students would be deactivated, and without confirm=true that may be %d %% at most",
		job.Deactivated, active, a.cfg.MaxDeactivationPercent)})
}

// write does what the plan says.
func (a *application) write(ctx context.Context) error {
	var at time.Time // after the students are held, so that no write of theirs is later
	if err := a.tx.QueryRow(ctx, "select clock_timestamp()").Scan(&at); err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	a.args["at"], a.args["user"], a.args["request_id"] = at, a.job.CreatedBy, a.job.RequestID
	if a.job.RowsCreated > 0 {
		// On a connection of its own: whoever registers a student must not wait for the import.
		today := a.args["today"].(Date)
		var last int64
		if err := a.store.db.QueryRow(ctx, reserveNumbers, today.Year, a.job.RowsCreated).Scan(&last); err != nil {
			return fmt.Errorf("reserve student numbers: %w", err)
		}
		a.args["year"], a.args["first"] = today.Year, last-a.job.RowsCreated+1
		if err := a.writeRows(ctx, "create students", writeCreated, a.job.RowsCreated); err != nil {
			return err
		}
	}
	if a.job.RowsUpdated > 0 {
		return a.writeRows(ctx, "update students", writeUpdated, a.job.RowsUpdated)
	}
	return nil
}

func (a *application) writeRows(ctx context.Context, what, sql string, want int64) error {
	var written int64
	if err := a.tx.QueryRow(ctx, sql, pgx.QueryExecModeCacheDescribe, a.args).Scan(&written); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if written != want {
		return fmt.Errorf("%s: wrote %d of %d", what, written, want)
	}
	return nil
}

const finishImport = `
update student_import
set state = @state, phase = 'DONE', finished_at = clock_timestamp(), rows_created = @created, rows_updated = @updated,
    rows_unchanged = @unchanged, rows_rejected = @rejected, deactivated = @deactivated
where import_id = @import_id and state = 'RUNNING'`

// finish ends the import in the transaction that wrote it.
func (a *application) finish(ctx context.Context, state ImportState) error {
	tag, err := a.tx.Exec(ctx, finishImport, pgx.NamedArgs{"import_id": a.job.ImportID, "state": state, "created": a.job.RowsCreated,
		"updated": a.job.RowsUpdated, "unchanged": a.job.RowsUnchanged, "rejected": a.job.RowsRejected, "deactivated": a.job.Deactivated})
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("it has ended already")
	}
	if err != nil {
		return fmt.Errorf("finish an import: %w", err)
	}
	return nil
}
