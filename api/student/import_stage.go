package student

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
)

// stager checks what a file says row by row and puts it into the database, where the import is decided.
type stager struct {
	db       *postgres.DB
	importID string
	header   csvHeader
	rules    Rules

	read   *atomic.Int64 // rows
	staged int64         // rows of student_import_row
	utf8   bool

	chunk *chunk
	full  chan *chunk // to the database
	empty chan *chunk // and back

	// of the row that is being checked
	in      Input
	details Details
	faults  []RowFault
	bad     []bool // by csvColumns
}

// chunk is rows on their way to the database, in the text format of COPY.
type chunk struct{ rows, faults []byte }

func newChunk() *chunk { return &chunk{rows: make([]byte, 0, chunkBytes+chunkBytes/4)} }

// chunkBytes is how much is sent at once, and with chunks how much of a file is in memory.
const (
	chunkBytes = 128 << 10
	chunks     = 3
)

// bodyError is the caller's failure to send the file.
type bodyError struct{ error }

func (e bodyError) Unwrap() error { return e.error }

// everyAge leaves ages to the end of the upload, when it is known which students there are.
var everyAge = AgeLimits{Min: math.MinInt, Max: math.MaxInt}

func newStager(db *postgres.DB, importID string, h csvHeader, read *atomic.Int64) *stager {
	s := &stager{db: db, importID: importID, header: h, read: read, rules: Rules{Ages: everyAge}, bad: make([]bool, len(csvColumns)),
		full: make(chan *chunk, chunks), empty: make(chan *chunk, chunks), chunk: newChunk()}
	for range chunks - 1 {
		s.empty <- newChunk()
	}
	return s
}

// run stages a file from its first record on. The error is a bodyError when reading failed.
func (s *stager) run(ctx context.Context, r *csvReader, record csvRecord) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		for c := range s.full {
			if err := s.send(ctx, c); err != nil {
				return err
			}
			c.rows, c.faults = c.rows[:0], c.faults[:0]
			s.empty <- c
		}
		return nil
	})
	work.Go(func() error {
		defer close(s.full)
		for {
			s.add(record)
			if len(s.chunk.rows)+len(s.chunk.faults) >= chunkBytes {
				s.full <- s.chunk
				select {
				case s.chunk = <-s.empty:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			var err error
			if record, err = r.next(); err == io.EOF {
				s.full <- s.chunk
				return nil
			} else if err != nil {
				return bodyError{err}
			}
		}
	})
	return work.Wait()
}

func (s *stager) send(ctx context.Context, c *chunk) error {
	conn, err := s.db.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("stage rows: %w", err)
	}
	defer conn.Release()
	for _, copied := range []struct {
		sql  string
		rows []byte
	}{{copyRows, c.rows}, {copyFaults, c.faults}} {
		if len(copied.rows) == 0 {
			continue
		}
		if _, err := conn.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(copied.rows), copied.sql); err != nil {
			return fmt.Errorf("stage rows: %w", err)
		}
	}
	return nil
}

var copyRows = "copy student_import_row (import_id, line, faulty, latin1, student_id, " + sqlColumns("") + ", status) from stdin"

const copyFaults = "copy student_import_fault (import_id, line, cells, faults) from stdin"

// sqlColumns lists the columns of csvColumns, each with a prefix.
func sqlColumns(prefix string) string {
	names := make([]string, len(csvColumns))
	for i, c := range csvColumns {
		names[i] = prefix + c.sql
	}
	return strings.Join(names, ", ")
}

// add puts one record into the chunk.
func (s *stager) add(record csvRecord) {
	if record.broken == nil && !hasText(record.cells) {
		return
	}
	s.read.Add(1)
	s.utf8 = s.utf8 || record.multibyte
	s.faults = s.faults[:0]
	switch n := len(record.cells); {
	case record.broken != nil:
		s.faults = append(s.faults, *record.broken)
	case n != len(s.header.columns):
		s.faults = append(s.faults, RowFault{Code: "wrong-format", Detail: fmt.Sprintf("has %d cells, and the header %d", n, len(s.header.columns))})
	default:
		s.addRow(record)
		if len(s.faults) > 0 {
			cells := make([]string, len(record.cells))
			for i, cell := range record.cells {
				if len(cell) <= longestCell {
					cells[i] = storable(unguardFormula(cell))
				}
			}
			s.addFaults(record.line, cells)
		}
		return
	}
	s.addFaults(record.line, []string{record.shown()})
}

func hasText(cells []string) bool {
	for _, cell := range cells {
		if strings.TrimSpace(cell) != "" {
			return true
		}
	}
	return false
}

// addRow checks the cells of a record that has the header's form.
func (s *stager) addRow(record csvRecord) {
	s.in = Input{}
	var id, status, aadhaar string
	for i, cell := range record.cells {
		column := s.header.columns[i]
		if len(cell) > longestCell {
			s.faults = append(s.faults, RowFault{Column: s.header.names[i], Code: "too-long", Detail: "a cell may have at most 64 KiB"})
			cell = ""
		}
		cell = unguardFormula(cell)
		switch column {
		case ignoredColumn:
		case idColumn:
			id = strings.TrimSpace(cell)
		case statusColumn:
			status = strings.TrimSpace(cell)
		default:
			if csvColumns[column].name == "aadhaarNumber" && isMask(strings.TrimSpace(cell)) {
				aadhaar, cell = strings.TrimSpace(cell), ""
			}
			csvColumns[column].set(&s.in, cell)
		}
	}
	var faults []server.Fault
	s.details, faults = s.rules.Check(s.in)
	if born, err := ParseDate(s.in.DateOfBirth); err == nil && born.Year < 1 { // which PostgreSQL does not count
		faults = append(faults, server.Fault{Field: "dateOfBirth", Code: "out-of-range", Detail: "must be in our era"})
	}
	if aadhaar != "" {
		s.details.AadhaarNumber = aadhaar
	}
	s.judge(faults)
	if id == "" && !s.header.has(mobileColumn) {
		s.faults = append(s.faults, RowFault{"studentId", "required", "must not be empty where there is no column mobile"})
	} else if id != "" && !validID.MatchString(id) {
		id = nobody
	}
	if status != "" && status != string(Active) && status != string(Inactive) {
		s.faults, status = append(s.faults, RowFault{"status", "not-allowed", "must be ACTIVE or INACTIVE"}), ""
	}
	s.addStaged(record, id, status)
}

// nobody is a student id that there cannot be.
const nobody = "-"

// judge keeps the faults of the columns that the file has.
func (s *stager) judge(faults []server.Fault) {
	clear(s.bad)
	for _, f := range faults {
		if column := columnsByName[strings.ToLower(f.Field)]; s.header.has(column) {
			s.bad[column] = true
			s.faults = append(s.faults, RowFault{Column: f.Field, Code: f.Code, Detail: f.Detail})
		}
	}
}

func (s *stager) addStaged(record csvRecord, id, status string) {
	s.staged++
	b := append(s.chunk.rows, s.importID...)
	b = append(b, '\t')
	b = strconv.AppendInt(b, record.line, 10)
	b = appendBool(b, len(s.faults) > 0)
	b = appendBool(b, record.latin1)
	b = appendText(b, id, id == "")
	for i, c := range csvColumns {
		b = appendText(b, c.get(&s.details), s.bad[i] || !s.header.has(i))
	}
	b = appendText(b, status, status == "")
	s.chunk.rows = append(b, '\n')
}

func (s *stager) addFaults(line int64, cells []string) {
	b := append(s.chunk.faults, s.importID...)
	b = append(b, '\t')
	b = strconv.AppendInt(b, line, 10)
	for _, v := range []any{cells, s.faults} {
		encoded, err := json.Marshal(v)
		if err != nil {
			panic(err) // texts always encode
		}
		b = appendText(b, string(encoded), false)
	}
	s.chunk.faults = append(b, '\n')
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, "\tt"...)
	}
	return append(b, "\tf"...)
}

// appendText adds a column in the text format of COPY (PostgreSQL manual, COPY, "Text Format").
func appendText(b []byte, s string, null bool) []byte {
	if null {
		return append(b, "\t\\N"...)
	}
	b = append(b, '\t')
	for {
		special := strings.IndexAny(s, "\\\t\n\r")
		if special < 0 {
			return append(b, s...)
		}
		b = append(b, s[:special]...)
		b = append(b, '\\', map[byte]byte{'\\': '\\', '\t': 't', '\n': 'n', '\r': 'r'}[s[special]])
		s = s[special+1:]
	}
}

// isMask says whether s is an Aadhaar number as callers read one.
func isMask(s string) bool { return len(s) == 14 && s == mask(s) && onlyDigits.MatchString(s[10:]) }

// asUpload says what the caller is told of a body that did not come.
func asUpload(err error) error {
	body, ok := errors.AsType[bodyError](err)
	if !ok {
		return err
	}
	return server.UnreadBody(body.error)
}
