package student

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// What one row may hold at most, in bytes: so much, and no more, of a file is in memory.
const (
	longestRecord = 1 << 20
	longestCell   = 64 << 10
)

// charset is how a file's bytes are read.
type charset string

// The charsets. Latin-1 is read as Windows-1252, which holds it (WHATWG Encoding Standard, section 4.2).
const (
	unknownCharset charset = "" // UTF-8 row by row, and Latin-1 what is not
	utf8Charset    charset = "utf-8"
	latin1Charset  charset = "iso-8859-1"
)

// csvReader cuts a file into records (RFC 4180) with either line end. A record that breaks the form is returned as broken, and the
// next one starts at a later line.
type csvReader struct {
	src     io.Reader
	comma   byte
	charset charset

	buf     []byte
	at, end int // buf[at:end] is read and not cut yet
	eof     bool
	line    int64 // of buf[at]; the first is 1

	text  []byte   // the cells of the record that is being cut, one after the other
	ends  []int    // where each ends in text
	cells []string // the last record's
}

// csvRecord is valid until the next one is read.
type csvRecord struct {
	line int64
	// raw is the record as it stands in the file, empty when it is too long.
	raw []byte
	// cells are decoded. A broken record has none.
	cells []string
	// broken says what is wrong with the record's form.
	broken *RowFault
	// latin1 says that the record is not UTF-8, and multibyte that it is, with more than ASCII, where the charset is not known.
	latin1, multibyte bool
}

func newCSVReader(src io.Reader, cs charset) *csvReader {
	return &csvReader{src: src, comma: ',', charset: cs, buf: make([]byte, 64<<10), line: 1}
}

// skipMark passes over a byte order mark, which says that the file is UTF-8.
func (r *csvReader) skipMark() error {
	for r.end < len(byteOrderMark) && !r.eof {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if bytes.HasPrefix(r.buf[:r.end], []byte(byteOrderMark)) {
		r.at, r.charset = len(byteOrderMark), utf8Charset
	}
	return nil
}

const byteOrderMark = "\ufeff"

// next returns the next record that is not an empty line, or io.EOF, or the error of reading.
func (r *csvReader) next() (csvRecord, error) {
	for {
		n, broken := r.cut()
		switch {
		case n < 0 && r.end-r.at <= longestRecord:
			if err := r.fill(); err != nil {
				return csvRecord{}, err
			}
			continue
		case n < 0 || n > longestRecord:
			return r.overlong()
		case n == 0:
			return csvRecord{}, io.EOF
		}
		record := csvRecord{line: r.line, raw: r.buf[r.at : r.at+n], broken: broken}
		r.at += n
		r.line += int64(bytes.Count(record.raw, []byte{'\n'}))
		if broken == nil && len(r.ends) == 1 && len(r.text) == 0 && record.raw[0] != '"' {
			continue
		}
		r.decode(&record)
		return record, nil
	}
}

// cut finds the cells of the record at the start of what is read, and how long the record is with its line end: 0 at the end of the
// file, below 0 when more has to be read to know.
func (r *csvReader) cut() (n int, broken *RowFault) {
	w, i := r.buf[r.at:r.end], 0
	r.text, r.ends = r.text[:0], r.ends[:0]
	if len(w) == 0 {
		return r.atEnd(0), nil
	}
	for {
		if i < len(w) && w[i] == '"' {
			if i = r.quoted(w, i+1); i < 0 {
				if !r.eof {
					return -1, nil
				}
				if len(w) > longestRecord { // which is what is said when the end of the file is not in sight
					return len(w), nil
				}
				return lineLength(w), &RowFault{Code: "wrong-format", Detail: "a quote is opened and never closed"}
			}
		} else {
			stop := bytes.IndexByte(w[i:], '\n')
			if stop < 0 && !r.eof {
				return -1, nil
			} else if stop < 0 {
				stop = len(w) - i
			}
			cell := w[i : i+stop]
			if comma := bytes.IndexByte(cell, r.comma); comma >= 0 {
				cell = cell[:comma]
			} else {
				cell = bytes.TrimSuffix(cell, []byte{'\r'})
			}
			if bytes.IndexByte(cell, '"') >= 0 {
				return i + min(stop+1, len(w)-i), &RowFault{Code: "wrong-format", Detail: "a quote stands in a cell that does not start with one"}
			}
			r.text = append(r.text, cell...)
			i += len(cell)
		}
		r.ends = append(r.ends, len(r.text))
		rest := w[i:]
		switch {
		case len(rest) > 0 && rest[0] == r.comma:
			i++
		case len(rest) > 0 && rest[0] == '\n':
			return i + 1, nil
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 2, nil
		case len(rest) == 0 || len(rest) == 1 && rest[0] == '\r':
			return r.atEnd(len(w)), nil
		default:
			stop := bytes.IndexByte(rest, '\n')
			if stop < 0 {
				return r.atEnd(len(w)), &RowFault{Code: "wrong-format", Detail: textAfterQuote}
			}
			return i + stop + 1, &RowFault{Code: "wrong-format", Detail: textAfterQuote}
		}
	}
}

const textAfterQuote = "text follows a closed quote"

// atEnd is n when the file ends there, and otherwise asks for more.
func (r *csvReader) atEnd(n int) int {
	if r.eof {
		return n
	}
	return -1
}

// quoted takes the cell whose opening quote stands before w[i] and returns where it ends, behind the closing one, or -1.
func (r *csvReader) quoted(w []byte, i int) int {
	for {
		quote := bytes.IndexByte(w[i:], '"')
		if quote < 0 || i+quote+1 == len(w) && !r.eof { // whether it is doubled, the next byte tells
			return -1
		}
		r.text = append(r.text, w[i:i+quote]...)
		i += quote + 1
		if i == len(w) || w[i] != '"' {
			return i
		}
		r.text = append(r.text, '"')
		i++
	}
}

// fill reads more. What is read at once grows with what waits, so that a long record that comes in drops is not cut over and over.
func (r *csvReader) fill() error {
	copy(r.buf, r.buf[r.at:r.end])
	r.at, r.end = 0, r.end-r.at
	if r.end == len(r.buf) {
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	for least := r.end + 1 + r.end/4; r.end < min(least, len(r.buf)); {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if err == io.EOF {
			r.eof = true
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// overlong passes over the first line of a record that does not end within the limit.
func (r *csvReader) overlong() (csvRecord, error) {
	record := csvRecord{line: r.line, broken: &RowFault{Code: "too-long", Detail: "a row may have at most 1 MiB; or a quote is not closed"}}
	r.line++
	for {
		if stop := bytes.IndexByte(r.buf[r.at:r.end], '\n'); stop >= 0 {
			r.at += stop + 1
			return record, nil
		}
		r.at = r.end
		if r.eof {
			return record, nil
		}
		if err := r.fill(); err != nil {
			return csvRecord{}, err
		}
	}
}

func lineLength(w []byte) int {
	if stop := bytes.IndexByte(w, '\n'); stop >= 0 {
		return stop + 1
	}
	return len(w)
}

// decode makes text of the cells that were cut.
func (r *csvReader) decode(record *csvRecord) {
	ascii := !bytes.ContainsFunc(record.raw, func(c rune) bool { return c >= utf8.RuneSelf })
	valid := ascii || utf8.Valid(record.raw)
	record.multibyte = valid && !ascii && r.charset == unknownCharset
	record.latin1 = !valid && r.charset == unknownCharset
	if record.broken != nil {
		return
	}
	r.cells = r.cells[:0]
	if record.latin1 || !ascii && r.charset == latin1Charset {
		start := 0
		for _, end := range r.ends {
			r.cells = append(r.cells, latin1(r.text[start:end]))
			start = end
		}
		record.cells = r.cells
		return
	}
	if !valid {
		record.broken = &RowFault{Code: "wrong-encoding", Detail: "is not UTF-8"}
		return
	}
	all, start := string(r.text), 0
	for _, end := range r.ends {
		r.cells = append(r.cells, all[start:end])
		start = end
	}
	record.cells = r.cells
}

func latin1(text []byte) string {
	decoded, _ := charmap.Windows1252.NewDecoder().Bytes(text) // every byte is a character, or U+FFFD, which the rules refuse
	return string(decoded)
}

// shown is a broken record as text that PostgreSQL takes; nothing of one that is longer than a cell may be.
func (record csvRecord) shown() string {
	if len(record.raw) > longestCell {
		return ""
	}
	text := bytes.TrimRight(record.raw, "\r\n")
	if !utf8.Valid(text) {
		return storable(latin1(text))
	}
	return storable(string(text))
}

// storable is s without what a jsonb cannot hold.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

const formulaStarts = "=+-@\t\r"

// startsFormula says whether a spreadsheet would take s for a formula, or would but for apostrophes before it.
func startsFormula(s string) bool {
	s = strings.TrimLeft(s, "'")
	return s != "" && strings.IndexByte(formulaStarts, s[0]) >= 0
}

// guardFormula keeps a spreadsheet from running a cell (OWASP, CSV Injection). unguardFormula takes it back.
func guardFormula(s string) string {
	if startsFormula(s) {
		return "'" + s
	}
	return s
}

func unguardFormula(s string) string {
	if strings.HasPrefix(s, "'") && startsFormula(s) {
		return s[1:]
	}
	return s
}
