package student

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/text/encoding/charmap"
	"pgregory.net/rapid"
)

// readAll cuts a file into lines of text: the line, the cells, and what is wrong.
func readAll(t interface {
	Helper()
	Fatal(...any)
}, src io.Reader, comma byte, cs charset) (rows []string) {
	t.Helper()
	r := newCSVReader(src, cs)
	r.comma = comma
	if err := r.skipMark(); err != nil {
		t.Fatal(err)
	}
	for {
		record, err := r.next()
		if err == io.EOF {
			return rows
		} else if err != nil {
			t.Fatal(err)
		}
		row := fmt.Sprintf("%d %q", record.line, record.cells)
		if record.broken != nil {
			row = fmt.Sprintf("%d %s: %s", record.line, record.broken.Code, record.shown())
		}
		rows = append(rows, row)
	}
}

func TestCSVForm(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"line ends":         {"a,b\r\nc,d\ne,f", []string{`1 ["a" "b"]`, `2 ["c" "d"]`, `3 ["e" "f"]`}},
		"mark":              {"\ufeff\"a\",b\n", []string{`1 ["a" "b"]`}},
		"quotes":            {"\"a,\"\"b\"\"\r\nc\",d\r\n\"\"\n,\n", []string{`1 ["a,\"b\"\r\nc" "d"]`, `3 [""]`, `4 ["" ""]`}},
		"empty lines":       {"\n\r\na\n\nb\n\n", []string{`3 ["a"]`, `5 ["b"]`}},
		"quote in a cell":   {"a\"b,c\nd,e\n", []string{`1 wrong-format: a"b,c`, `2 ["d" "e"]`}},
		"text after quote":  {"\"a\nb\"c,d\ne\n", []string{"1 wrong-format: \"a\nb\"c,d", `3 ["e"]`}},
		"text after, end":   {"\"a\"b", []string{`1 wrong-format: "a"b`}},
		"never closed":      {"a,\"b\nc,d\ne,f\n", []string{`1 wrong-format: a,"b`, `2 ["c" "d"]`, `3 ["e" "f"]`}},
		"closed at the end": {"a,\"b\"", []string{`1 ["a" "b"]`}},
		"lone CR":           {"a\rb,\"c\"\r", []string{`1 ["a\rb" "c"]`}},
		"nothing":           {"", nil},
		"latin1 by row":     {"Ren\xe9,x\nRen\u00e9,y\n\"\xe9\"\"\",z\n", []string{`1 ["René" "x"]`, `2 ["René" "y"]`, `3 ["é\"" "z"]`}},
		"split by a comma":  {"\xc3,\xa9\n", []string{`1 ["Ã" "©"]`}},
	} {
		for way, src := range map[string]io.Reader{
			"at once": strings.NewReader(test.file), "in drops": iotest.OneByteReader(strings.NewReader(test.file)),
			"with the end": iotest.DataErrReader(strings.NewReader(test.file)),
		} {
			if got := readAll(t, src, ',', unknownCharset); !slices.Equal(got, test.want) {
				t.Errorf("%s, %s: %q, want %q", name, way, got, test.want)
			}
		}
	}
	if got := readAll(t, strings.NewReader("\xe9\n"), ',', utf8Charset); !slices.Equal(got, []string{"1 wrong-encoding: é"}) {
		t.Errorf("said to be UTF-8: %q", got)
	}
	if got := readAll(t, strings.NewReader("\u00e9\n"), ',', latin1Charset); !slices.Equal(got, []string{`1 ["Ã©"]`}) {
		t.Errorf("said to be Latin-1: %q", got)
	}
}

func TestCSVLimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", longestRecord+10)
	for name, test := range map[string]struct {
		file string
		want []string
	}{
		"a long line":          {"a\n" + long + "\nb\n", []string{`1 ["a"]`, `2 too-long: `, `3 ["b"]`}},
		"a long line, the end": {"a\n" + long, []string{`1 ["a"]`, `2 too-long: `}},
		"a quote not closed":   {"\"" + strings.Repeat("y\n", longestRecord) + "z", nil},
	} {
		reader := strings.NewReader(test.file)
		got := readAll(t, reader, ',', unknownCharset)
		if test.want == nil { // the first line, and then every other
			if len(got) != longestRecord+1 || got[0] != "1 too-long: " || got[1] != `2 ["y"]` {
				t.Errorf("%s: %d rows, %q", name, len(got), got[:2])
			}
		} else if !slices.Equal(got, test.want) {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	r := newCSVReader(strings.NewReader(strings.Repeat(long+"\n", 20)), unknownCharset)
	for {
		if _, err := r.next(); err != nil {
			break
		}
	}
	if len(r.buf) > 4*longestRecord {
		t.Errorf("%d bytes in memory", len(r.buf))
	}
}

// TestCSVProperty writes files as RFC 4180 says and reads them back, however they are cut on their way.
func TestCSVProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		comma := rapid.SampledFrom([]byte{',', ';', '\t'}).Draw(t, "comma")
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end")
		isLatin1 := rapid.Bool().Draw(t, "latin1")
		cell := rapid.StringOf(rapid.SampledFrom([]rune("ab é'\",;\t\n\r=")))
		rows := rapid.SliceOfN(rapid.SliceOfN(cell, 2, 4), 0, 6).Draw(t, "rows")
		var file strings.Builder
		var want []string
		line := 1
		for _, row := range rows {
			want = append(want, fmt.Sprintf("%d %q", line, row))
			for i, cell := range row {
				if i > 0 {
					file.WriteByte(comma)
				}
				if strings.ContainsAny(cell, "\"\r\n"+string(comma)) || rapid.Bool().Draw(t, "quoted") {
					cell = `"` + strings.ReplaceAll(cell, `"`, `""`) + `"`
				}
				file.WriteString(cell)
			}
			file.WriteString(end)
			line += strings.Count(strings.Join(row, ""), "\n") + 1
		}
		encoded := file.String()
		if isLatin1 {
			var err error
			if encoded, err = charmap.Windows1252.NewEncoder().String(encoded); err != nil {
				t.Fatal(err)
			}
		}
		src := io.Reader(strings.NewReader(encoded))
		if rapid.Bool().Draw(t, "drops") {
			src = iotest.OneByteReader(src)
		}
		if got := readAll(t, src, comma, unknownCharset); !slices.Equal(got, want) {
			t.Fatalf("%q\nread as %q\nwant %q", encoded, got, want)
		}
	})
}

func TestFormulaGuard(t *testing.T) {
	t.Parallel()
	for cell, guarded := range map[string]string{"=1+1": "'=1+1", "+91": "'+91", "-": "'-", "@x": "'@x", "\tx": "'\tx", "'=x": "''=x",
		"''-x": "'''-x", "": "", "'": "'", "'a": "'a", "a=b": "a=b", "''": "''"} {
		if got := guardFormula(cell); got != guarded {
			t.Errorf("%q is guarded as %q, want %q", cell, got, guarded)
		}
		if got := unguardFormula(guarded); got != cell {
			t.Errorf("%q comes back as %q", cell, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		cell := rapid.StringOf(rapid.SampledFrom([]rune("'=+-@\t\rab"))).Draw(t, "cell")
		if got := unguardFormula(guardFormula(cell)); got != cell {
			t.Fatalf("%q comes back as %q", cell, got)
		}
	})
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"mobile,FIRSTNAME, Address.Street ,pincode\n1\n": "",
		"studentId;status;age;version\n1\n":              "",
		"firstName\tmobile\n1\n":                         "",
		"":                                               " required",
		"\n\n":                                           " required",
		"mobile\n":                                       " required",
		"mobile\n\n":                                     " required",
		"mobile,nick,Mobile,street,address.street,\n1\n": "nick unknown-field, Mobile duplicate, address.street duplicate,  unknown-field",
		fullRow(1) + "\n" + fullRow(2) + "\n":            " required",
		"firstName\n1\n":                                 "mobile required",
		"\"mobile\n1\n":                                  " wrong-format",
		"m\x00o\x00b\x00\n":                              " wrong-encoding",
	} {
		_, _, _, faults, err := openCSV(strings.NewReader(header), unknownCharset)
		var got []string
		for _, f := range faults {
			got = append(got, f.Field+" "+f.Code)
		}
		if err != nil || strings.Join(got, ", ") != want {
			t.Errorf("%q: %q (%v), want %q", header, got, err, want)
		}
	}
}
