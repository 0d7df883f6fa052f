package student

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/school-sms/sms/api/server"
)

// RowFault is one thing wrong with a line. Its detail never repeats a value of the file.
type RowFault struct {
	Column string `json:"column" doc:"A field of a student; empty for the whole row."`
	Code   string `json:"code" doc:"For programs."`
	Detail string `json:"detail" doc:"For people."`
}

// csvColumn is a field of a student as CSV files and the table name it.
type csvColumn struct {
	name, sql string
	optional  bool
	set       func(*Input, string)
	get       func(*Details) string
}

// csvColumns are the fields that an import writes besides the status. The names are those of the rules' faults.
var csvColumns = []csvColumn{
	{"firstName", "first_name", false, func(in *Input, s string) { in.FirstName = s }, func(d *Details) string { return d.FirstName }},
	{"lastName", "last_name", false, func(in *Input, s string) { in.LastName = s }, func(d *Details) string { return d.LastName }},
	{"dateOfBirth", "date_of_birth", false, func(in *Input, s string) { in.DateOfBirth = s }, func(d *Details) string { return d.DateOfBirth.String() }},
	{"address.street", "street", false, func(in *Input, s string) { in.Address.Street = s }, func(d *Details) string { return d.Street }},
	{"address.city", "city", false, func(in *Input, s string) { in.Address.City = s }, func(d *Details) string { return d.City }},
	{"address.state", "state", false, func(in *Input, s string) { in.Address.State = s }, func(d *Details) string { return d.State }},
	{"address.pinCode", "pin_code", false, func(in *Input, s string) { in.Address.PinCode = s }, func(d *Details) string { return d.PinCode }},
	{"address.country", "country", false, func(in *Input, s string) { in.Address.Country = s }, func(d *Details) string { return d.Country }},
	{"mobile", "mobile", false, func(in *Input, s string) { in.Mobile = s }, func(d *Details) string { return d.Mobile }},
	{"email", "email", true, func(in *Input, s string) { in.Email = &s }, func(d *Details) string { return d.Email }},
	{"fatherNameOrGuardian", "guardian_name", false, func(in *Input, s string) { in.FatherNameOrGuardian = s }, func(d *Details) string { return d.GuardianName }},
	{"motherName", "mother_name", false, func(in *Input, s string) { in.MotherName = s }, func(d *Details) string { return d.MotherName }},
	{"caste", "caste", false, func(in *Input, s string) { in.Caste = s }, func(d *Details) string { return d.Caste }},
	{"moles", "moles", true, func(in *Input, s string) { in.Moles = &s }, func(d *Details) string { return d.Moles }},
	{"aadhaarNumber", "aadhaar_number", true, func(in *Input, s string) { in.AadhaarNumber = &s }, func(d *Details) string { return d.AadhaarNumber }},
}

// What a column of a file can be besides one of csvColumns.
const (
	idColumn      = -1
	statusColumn  = -2
	ignoredColumn = -3
)

// ignoredColumns are what an export or a list of rejected rows holds and no import writes.
var ignoredColumns = []string{"age", "createdAt", "createdBy", "updatedAt", "updatedBy", "version", errorsColumn}

const errorsColumn = "errors"

// columnsByName finds a column by its name in lower case, with and without "address.".
var columnsByName = func() map[string]int {
	found := map[string]int{"studentid": idColumn, "status": statusColumn}
	for _, name := range ignoredColumns {
		found[strings.ToLower(name)] = ignoredColumn
	}
	for i, c := range csvColumns {
		name := strings.ToLower(c.name)
		found[name] = i
		if short, ok := strings.CutPrefix(name, "address."); ok {
			if _, taken := found[short]; !taken {
				found[short] = i
			}
		}
	}
	return found
}()

var mobileColumn = columnsByName["mobile"]

// csvHeader says what the columns of a file are.
type csvHeader struct {
	// names are those of the file.
	names []string
	// columns are indexes of csvColumns, or one of the constants above.
	columns []int
}

// has says whether the file has a column.
func (h csvHeader) has(column int) bool { return slices.Contains(h.columns, column) }

// readHeader understands the names of a header, in any order and case. The faults are for the caller; they repeat no line that is no
// header, which may be a student.
func readHeader(names []string) (csvHeader, []server.Fault) {
	h := csvHeader{names: make([]string, len(names)), columns: make([]int, len(names))}
	var faults []server.Fault
	unknown := 0
	for i, name := range names {
		name = strings.TrimSpace(name)
		column, known := columnsByName[strings.ToLower(name)]
		switch {
		case !known:
			faults = append(faults, server.Fault{Field: name, Code: "unknown-field",
				Detail: fmt.Sprintf("column %d is named for no field of a student", i+1)})
		case column != ignoredColumn && slices.Contains(h.columns[:i], column):
			faults = append(faults, server.Fault{Field: name, Code: "duplicate",
				Detail: fmt.Sprintf("column %d is named for a field that a column before it has", i+1)})
		}
		if !known {
			column = ignoredColumn
			unknown++
		}
		h.names[i], h.columns[i] = name, column
	}
	if unknown == len(names) {
		return h, []server.Fault{{Code: "required", Detail: "the first line names no field of a student: it must be a header"}}
	}
	if !h.has(idColumn) && !h.has(mobileColumn) {
		faults = append(faults, server.Fault{Field: "mobile", Code: "required",
			Detail: "the header must have a column mobile or studentId, to tell who a row is about"})
	}
	return h, faults
}

// findComma is what separates the cells of a header: the most frequent of comma, semicolon and tab.
func findComma(header []byte) byte {
	best, most := byte(','), 0
	for _, candidate := range []byte{',', ';', '\t'} {
		if n := bytes.Count(header, []byte{candidate}); n > most {
			best, most = candidate, n
		}
	}
	return best
}

// openCSV reads the header of a file. A file without one, or without a row, has faults.
func openCSV(src io.Reader, cs charset) (r *csvReader, h csvHeader, first csvRecord, faults []server.Fault, err error) {
	r = newCSVReader(src, cs)
	if err = r.skipMark(); err != nil {
		return
	}
	line := r.buf[r.at:r.at]
	for !r.eof && r.end < longestCell {
		if line = bytes.TrimLeft(r.buf[r.at:r.end], "\r\n"); bytes.IndexByte(line, '\n') >= 0 {
			break
		}
		if err = r.fill(); err != nil {
			return
		}
	}
	r.comma = findComma(line[:lineLength(line)])
	record, err := r.next()
	switch {
	case err == io.EOF:
		return r, h, first, []server.Fault{{Code: "required", Detail: "the file is empty"}}, nil
	case err != nil:
		return
	case record.broken != nil:
		return r, h, first, []server.Fault{{Code: record.broken.Code, Detail: "the header: " + record.broken.Detail}}, nil
	case bytes.IndexByte(record.raw, 0) >= 0:
		return r, h, first, []server.Fault{{Code: "wrong-encoding", Detail: "the header is not text: save the file as UTF-8"}}, nil
	}
	if h, faults = readHeader(record.cells); len(faults) > 0 {
		return
	}
	if first, err = r.next(); err == io.EOF {
		return r, h, first, []server.Fault{{Code: "required", Detail: "the file has a header and no row"}}, nil
	}
	return
}
