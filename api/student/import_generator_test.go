package student

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/text/encoding/charmap"
)

// csvFile is a generated file, and what is in it.
type csvFile struct {
	encoded string
	comma   string
	header  []string
	rows    []csvRow
}

type csvRow struct {
	line   int64
	cells  []string
	broken string // as it stands in the file
}

type generator struct {
	*rand.Rand
	students []Record
}

func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// file draws the columns, the rows, and how they are written down.
func (g *generator) file() csvFile {
	file := csvFile{comma: g.pick(",", ";", "\t")}
	for _, column := range csvColumns {
		if column.name == "mobile" || !g.oneIn(12) && !(column.optional && g.oneIn(3)) {
			file.header = append(file.header, g.pick(column.name, strings.TrimPrefix(column.name, "address."), strings.ToUpper(column.name)))
		}
	}
	for _, name := range []string{"studentId", "status", "age", "version"} {
		if g.oneIn(2) {
			file.header = append(file.header, name)
		}
	}
	g.Shuffle(len(file.header), func(i, j int) { file.header[i], file.header[j] = file.header[j], file.header[i] })

	end, isLatin1 := g.pick("\n", "\r\n"), g.oneIn(3)
	var text strings.Builder
	if !isLatin1 && g.oneIn(2) {
		text.WriteString("\ufeff")
	}
	text.WriteString(strings.Join(file.header, file.comma) + end)
	line, faulty := int64(2), g.oneIn(2)
	for range 1 + g.IntN(12) {
		row := csvRow{line: line, cells: g.row(file.header, faulty)}
		if faulty && g.oneIn(12) {
			row.broken = g.pick(`"a"b`, `a"b`, "a"+file.comma+"b", strings.Repeat("x"+file.comma, 40))
			row.cells = nil
			text.WriteString(row.broken + end)
		} else {
			text.WriteString(g.written(row.cells, file.comma) + end)
		}
		file.rows = append(file.rows, row)
		line += int64(strings.Count(strings.Join(row.cells, ""), "\n")) + 1
		if g.oneIn(10) {
			text.WriteString(g.pick("", strings.Repeat(file.comma, len(file.header)-1)) + end)
			line++
		}
	}
	file.encoded = text.String()
	if isLatin1 {
		encoded, err := charmap.Windows1252.NewEncoder().String(file.encoded)
		if err == nil { // a student of before may have a name that it cannot write
			file.encoded = encoded
		}
	}
	return file
}

func (g *generator) written(cells []string, comma string) string {
	written := make([]string, len(cells))
	for i, cell := range cells {
		cell = guardFormula(cell)
		if strings.ContainsAny(cell, "\"\r\n"+comma) || g.oneIn(4) {
			cell = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
		}
		written[i] = cell
	}
	return strings.Join(written, comma)
}

// row draws somebody new or one of the students, by id or by mobile, with some cells changed.
func (g *generator) row(header []string, faulty bool) []string {
	in := Input{FirstName: g.pick("Asha", "René", "  Ravi ", "O'Brien"), LastName: g.pick("Patil", "D'Souza", "Müller"),
		DateOfBirth: fmt.Sprintf("20%02d-%02d-%02d", 9+g.IntN(14), 1+g.IntN(11), 1+g.IntN(28)),
		Address:     Address{Street: g.pick("12 Lake Road", "=1+1", "a, b; \"c\"", "'-x"), City: "Pune", State: "Maharashtra", PinCode: "411001", Country: "India"},
		Mobile:      fmt.Sprintf("9%09d", g.IntN(400)), FatherNameOrGuardian: "Ravi Patil", MotherName: "Meera Patil", Caste: g.pick("General", "OBC")}
	if g.oneIn(2) {
		in.Email, in.AadhaarNumber, in.Moles = pointer("a@example.com"), pointer(fmt.Sprintf("%012d", g.IntN(1000))), pointer("left cheek")
	}
	id, status := "", g.pick("", "ACTIVE", "ACTIVE", "INACTIVE")
	if len(g.students) > 0 && g.oneIn(2) {
		known := g.students[g.IntN(len(g.students))]
		in, id = inputOf(known.Details), known.StudentID
		if in.AadhaarNumber != nil && g.oneIn(2) {
			in.AadhaarNumber = pointer(mask(*in.AadhaarNumber))
		}
		if g.oneIn(6) {
			status = string(Inactive)
		} else {
			status = g.pick("", string(known.Status))
		}
		switch {
		case g.oneIn(3):
			id = ""
		case g.oneIn(8):
			in.Mobile = fmt.Sprintf("9%09d", g.IntN(400))
		}
		if g.oneIn(3) {
			in.Address.City, in.Caste = g.pick("Pune", "Mumbai"), g.pick("General", "OBC")
		}
	}
	cells := make([]string, len(header))
	for i, name := range header {
		switch column := columnsByName[strings.ToLower(name)]; {
		case column == idColumn:
			cells[i] = id
		case column == statusColumn:
			cells[i] = status
		case column == ignoredColumn:
			cells[i] = g.pick("", "7")
		default:
			cells[i] = g.cell(column, in, faulty)
		}
		if faulty && g.oneIn(60) && columnsByName[strings.ToLower(name)] == idColumn {
			cells[i] = g.pick("STU-2026-99999", "nobody", " ")
		}
	}
	return cells
}

func (g *generator) cell(column int, in Input, faulty bool) string {
	value := csvCell(column, in)
	if faulty && g.oneIn(40) {
		return g.pick("", "  ", "x", "1", strings.Repeat("x", 260), "a\nb", "2016-02-30", "1950-01-01", "2031-01-01", "9000000001", "XXXX-XXXX-9999", "0000-01-01", "@")
	}
	return value
}

// csvCell is what a file says of an input.
func csvCell(column int, in Input) string {
	optional := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	switch csvColumns[column].name {
	case "dateOfBirth":
		return in.DateOfBirth
	case "email":
		return optional(in.Email)
	case "moles":
		return optional(in.Moles)
	case "aadhaarNumber":
		return optional(in.AadhaarNumber)
	case "firstName":
		return in.FirstName
	case "lastName":
		return in.LastName
	case "address.street":
		return in.Address.Street
	case "address.city":
		return in.Address.City
	case "address.state":
		return in.Address.State
	case "address.pinCode":
		return in.Address.PinCode
	case "address.country":
		return in.Address.Country
	case "mobile":
		return in.Mobile
	case "fatherNameOrGuardian":
		return in.FatherNameOrGuardian
	case "motherName":
		return in.MotherName
	default:
		return in.Caste
	}
}
