package student

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
)

// importRow is a row of the table student_import.
type importRow struct {
	ImportID      string      `db:"import_id"`
	State         ImportState `db:"state"`
	Phase         ImportPhase `db:"phase"`
	DryRun        bool        `db:"dry_run"`
	Mode          string      `db:"mode"`
	Confirm       bool        `db:"confirm"`
	FileName      string      `db:"file_name"`
	Header        []string    `db:"header"`
	Separator     string      `db:"separator"`
	UTF8          bool        `db:"utf8"`
	RowsRead      int64       `db:"rows_read"`
	RowsStaged    int64       `db:"rows_staged"`
	RowsCreated   int64       `db:"rows_created"`
	RowsUpdated   int64       `db:"rows_updated"`
	RowsUnchanged int64       `db:"rows_unchanged"`
	RowsRejected  int64       `db:"rows_rejected"`
	Deactivated   int64       `db:"deactivated"`
	Attempts      int         `db:"attempts"`
	RequestID     string      `db:"request_id"`
	CreatedAt     time.Time   `db:"created_at"`
	CreatedBy     string      `db:"created_by"`
	FinishedAt    *time.Time  `db:"finished_at"`
}

// present shows an import to a caller.
func (r importRow) present() Import {
	out := Import{ImportID: r.ImportID, State: r.State, DryRun: r.DryRun, Mode: r.Mode, Confirm: r.Confirm, FileName: r.FileName,
		CreatedAt: r.CreatedAt.UTC(), CreatedBy: r.CreatedBy, RowsRead: r.RowsRead, RowsCreated: r.RowsCreated, RowsUpdated: r.RowsUpdated,
		RowsUnchanged: r.RowsUnchanged, RowsRejected: r.RowsRejected, Deactivated: r.Deactivated,
		Progress: ImportProgress{Phase: r.Phase, Rows: r.RowsRead}}
	if r.FinishedAt != nil {
		finished := r.FinishedAt.UTC()
		out.FinishedAt = &finished
	}
	if r.RowsRejected > 0 {
		out.RejectedCSV = importPath(r.ImportID) + "/rejected"
	}
	return out
}

const importColumns = `import_id::text, state, phase, dry_run, mode, confirm, file_name, header, separator, utf8, rows_read, rows_staged,
	rows_created, rows_updated, rows_unchanged, rows_rejected, deactivated, attempts, request_id, created_at, created_by, finished_at`

var validImportID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// readImport reads one import. Errors: not-found.
func readImport(ctx context.Context, db postgres.Conn, importID string) (importRow, error) {
	if !validImportID.MatchString(importID) {
		return importRow{}, server.NotFound(noImport)
	}
	rows, _ := db.Query(ctx, "select "+importColumns+" from student_import where import_id = $1", importID)
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[importRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return importRow{}, server.NotFound(noImport)
	} else if err != nil {
		return importRow{}, fmt.Errorf("read an import: %w", err)
	}
	return row, nil
}

const noImport = "there is no import with this id; reports are kept for a limited time"

// newestImports is how many imports are listed.
const newestImports = 100

func listImports(ctx context.Context, db postgres.Conn) ([]importRow, error) {
	rows, _ := db.Query(ctx, "select "+importColumns+" from student_import order by created_at desc, import_id limit $1", newestImports)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[importRow])
	if err != nil {
		return nil, fmt.Errorf("list imports: %w", err)
	}
	return found, nil
}

const insertImport = `
insert into student_import (dry_run, mode, confirm, file_name, header, separator, request_id, created_by, lease_until, idempotency_key)
values (@dry_run, @mode, @confirm, @file_name, @header, @separator, @request_id, @user, now() + @lease::interval, nullif(@key, ''))
returning import_id::text`

// selectSentBefore finds the import of a caller's key. An upload that runs has no digest yet.
const selectSentBefore = `
select import_id::text, body_digest from student_import where created_by = $1 and idempotency_key = $2 and state <> 'FAILED'`

// keepImport renews the lease of an import that still runs, and says where it stands.
const keepImport = `
update student_import set lease_until = now() + $2::interval, phase = $3, rows_read = greatest(rows_read, $4) where import_id = $1 and state = 'RUNNING'`

// endUpload hands a staged file over to be applied.
const endUpload = `
update student_import set phase = 'CHECKING', rows_read = $2, rows_staged = $3, utf8 = $4, lease_until = now() + $5::interval, body_digest = $6
where import_id = $1 and state = 'RUNNING'`

// releaseImport lets another instance go on at once.
const releaseImport = `update student_import set lease_until = now(), attempts = attempts - 1 where import_id = $1 and state = 'RUNNING'`

// claimImport takes over the oldest staged import that nobody works on.
const claimImport = `
update student_import set lease_until = now() + $1::interval, attempts = attempts + 1
where import_id = (
    select import_id from student_import where state = 'RUNNING' and phase <> 'UPLOADING' and lease_until < now()
    order by created_at limit 1 for update skip locked
)
returning import_id::text`

// hopelessImports are those whose file will not come to its end, and those that were taken up too often: they may be what ends the
// processes that try.
const hopelessImports = `
select import_id::text, phase from student_import
where state = 'RUNNING' and lease_until < now() and (phase = 'UPLOADING' or attempts >= $1)`

const failImport = `
update student_import set state = 'FAILED', phase = 'DONE', finished_at = clock_timestamp(),
    rows_rejected = (select count(*) from student_import_fault where import_id = $1 and line > 0)
where import_id = $1 and state = 'RUNNING'`

// sweepImports removes the staged rows of imports that have ended, and what is older than it may be kept.
const sweepImports = `
with old as (
    delete from student_import where finished_at < now() - $1::interval returning import_id
), faults as (
    delete from student_import_fault where import_id = any(array(select import_id from old))
)
delete from student_import_row where import_id = any(array(select import_id from student_import where finished_at is not null))`

// faultOfAll notes what is wrong with a whole import.
func faultOfAll(ctx context.Context, db postgres.Conn, importID string, fault RowFault) error {
	_, err := db.Exec(ctx, `insert into student_import_fault (import_id, line, cells, faults) values ($1, 0, '[]', $2)
		on conflict (import_id, line) do nothing`, importID, []RowFault{fault})
	if err != nil {
		return fmt.Errorf("note why an import ends: %w", err)
	}
	return nil
}

// faultyLine is a row of student_import_fault.
type faultyLine struct {
	Line   int64      `db:"line"`
	Cells  []string   `db:"cells"`
	Faults []RowFault `db:"faults"`
}

// readFaults reads the faulty lines after one in their order, and readFaultyRows their cells too. So many are in memory at once.
const (
	readFaults = `select line, '[]'::jsonb as cells, faults from student_import_fault where import_id = $1 and line > $2 order by line limit 1000`

	readFaultyRows = `select line, cells, faults from student_import_fault where import_id = $1 and line > $2 order by line limit 100`
)

// eachFaultyLine visits the faulty lines after one.
func eachFaultyLine(ctx context.Context, db postgres.Conn, sql, importID string, after int64, visit func(faultyLine) error) error {
	for {
		rows, _ := db.Query(ctx, sql, importID, after)
		lines, err := pgx.CollectRows(rows, pgx.RowToStructByName[faultyLine])
		if err != nil {
			return fmt.Errorf("read the errors of an import: %w", err)
		} else if len(lines) == 0 {
			return nil
		}
		for _, line := range lines {
			if err := visit(line); err != nil {
				return err
			}
		}
		after = lines[len(lines)-1].Line
	}
}
