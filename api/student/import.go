package student

import (
	"errors"
	"fmt"
	"time"
)

// CSVConfig is how students go in and out as CSV files.
type CSVConfig struct {
	// MaxBytes bounds a file that comes in, in bytes.
	MaxBytes int64 `env:"STUDENT_IMPORT_MAX_BYTES" envDefault:"1073741824"`
	// Wait is how long a caller who has sent a file waits for the import's end; it is below the gateway's patience.
	Wait time.Duration `env:"STUDENT_IMPORT_WAIT" envDefault:"10s"`
	// MaxDeactivationPercent is how many of the active students an import may deactivate without being told to.
	MaxDeactivationPercent int64 `env:"STUDENT_IMPORT_MAX_DEACTIVATION_PERCENT" envDefault:"10"`
	// Keep is how long the report and the bad rows of an import, which are personal data, can be read.
	Keep time.Duration `env:"STUDENT_IMPORT_KEEP" envDefault:"24h"`
	// Lease is how long an import is left alone that nobody is seen to work on.
	Lease time.Duration `env:"STUDENT_IMPORT_LEASE" envDefault:"15s"`
	// StatementTimeout ends a statement of an import, and its wait for a lock, that takes longer: a file of MaxBytes is written by one.
	StatementTimeout time.Duration `env:"STUDENT_IMPORT_STATEMENT_TIMEOUT" envDefault:"1h"`
	// MaxExports is how many exports one process sends at once: each holds a connection to the database.
	MaxExports int `env:"STUDENT_EXPORT_MAX" envDefault:"2"`
	// WriteTimeout ends an export or a report whose reader takes nothing for so long.
	WriteTimeout time.Duration `env:"STUDENT_EXPORT_WRITE_TIMEOUT" envDefault:"30s"`
}

// Check names every fault.
func (c CSVConfig) Check() error {
	var errs []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"STUDENT_IMPORT_KEEP", c.Keep}, {"STUDENT_IMPORT_LEASE", c.Lease}, {"STUDENT_IMPORT_STATEMENT_TIMEOUT", c.StatementTimeout},
		{"STUDENT_EXPORT_WRITE_TIMEOUT", c.WriteTimeout}} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be above zero", d.name))
		}
	}
	if c.MaxBytes <= 0 || c.MaxExports <= 0 {
		errs = append(errs, errors.New("STUDENT_IMPORT_MAX_BYTES and STUDENT_EXPORT_MAX: must be above zero"))
	}
	if c.MaxDeactivationPercent < 0 || c.MaxDeactivationPercent > 100 {
		errs = append(errs, errors.New("STUDENT_IMPORT_MAX_DEACTIVATION_PERCENT: must be 0 to 100"))
	}
	return errors.Join(errs...)
}

// ImportState says how an import ended, if it did.
type ImportState string

// The states. Only a SUCCEEDED import that is no dry run has written students.
const (
	Running   ImportState = "RUNNING"
	Succeeded ImportState = "SUCCEEDED"
	Rejected  ImportState = "REJECTED"
	Failed    ImportState = "FAILED"
)

// ImportPhase says what a running import does.
type ImportPhase string

// The phases, in their order.
const (
	Uploading ImportPhase = "UPLOADING"
	Checking  ImportPhase = "CHECKING"
	Writing   ImportPhase = "WRITING"
	Done      ImportPhase = "DONE"
)

// The modes: what becomes of the good rows of a file with bad ones.
const (
	allRows  = "all"
	goodRows = "partial"
)

// Import is where an import of a CSV file stands. Its counts say what it wrote or, as a dry run, would have written.
type Import struct {
	ImportID      string         `json:"importId" format:"uuid"`
	State         ImportState    `json:"state" enum:"RUNNING,SUCCEEDED,REJECTED,FAILED" doc:"REJECTED: the file has errors and nothing was written. FAILED: the import itself went wrong, and nothing was written."`
	DryRun        bool           `json:"dryRun"`
	Mode          string         `json:"mode" enum:"all,partial"`
	Confirm       bool           `json:"confirm"`
	FileName      string         `json:"fileName,omitempty"`
	CreatedAt     time.Time      `json:"createdAt"`
	CreatedBy     string         `json:"createdBy"`
	FinishedAt    *time.Time     `json:"finishedAt,omitempty"`
	RowsRead      int64          `json:"rowsRead" doc:"Without the header and empty rows."`
	RowsCreated   int64          `json:"rowsCreated"`
	RowsUpdated   int64          `json:"rowsUpdated"`
	RowsUnchanged int64          `json:"rowsUnchanged"`
	RowsRejected  int64          `json:"rowsRejected"`
	Deactivated   int64          `json:"deactivated" doc:"Students that were active and are not any more."`
	Progress      ImportProgress `json:"progress"`
	RejectedCSV   string         `json:"rejectedCsv,omitempty" format:"uri-reference" doc:"Where the bad rows are, when there are any."`
}

// ImportProgress is what a running import does now.
type ImportProgress struct {
	Phase ImportPhase `json:"phase" enum:"UPLOADING,CHECKING,WRITING,DONE"`
	Rows  int64       `json:"rows" doc:"How many rows have come so far."`
}

// ImportReport is an import with every error that was found.
type ImportReport struct {
	Import
	Errors []ImportError `json:"errors" nullable:"false" doc:"In the order of the lines."`
}

// ImportError is one thing wrong with a line of the file.
type ImportError struct {
	Line int64 `json:"line" doc:"The line of the file on which the row starts; the header's is 1. 0 is the whole file."`
	RowFault
}

// Imports lists imports, the newest first.
type Imports struct {
	Content []Import `json:"content" nullable:"false"`
}
