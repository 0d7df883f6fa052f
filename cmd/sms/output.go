package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
)

// gap is the space between two columns.
const gap = 2

// table is what people see.
type table struct {
	w *tabwriter.Writer
	// columns of the terminal that it is drawn on; 0 when it is not drawn on one, and nothing has to fit.
	columns int
}

// row adds a line.
func (t *table) row(cells ...string) {
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) rows(all [][]string) {
	for _, cells := range all {
		t.row(cells...)
	}
}

// more says that there are other pages.
func (t *table) more(p ops.Paging) {
	if !p.Last {
		t.row(fmt.Sprintf("page %d of %d, %d in all", p.Page, p.TotalPages, p.TotalElements))
	}
}

// print writes a value: as JSON for programs, or as the table that draw makes of it.
func (g *globals) print(cmd *cobra.Command, value any, draw func(*table)) error {
	if g.output == outputJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	}
	return drawTable(cmd.OutOrStdout(), draw)
}

func drawTable(w io.Writer, draw func(*table)) error {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)}
	if file, ok := terminal(w); ok {
		_, t.columns, _ = pty.Getsize(file)
	}
	draw(t)
	return t.w.Flush()
}

// leastCut is what is left of a cell that is cut.
const leastCut = 16

// terminal is the terminal that is written to, if it is one.
func terminal(w io.Writer) (*os.File, bool) {
	file, ok := w.(*os.File)
	return file, ok && isatty.IsTerminal(file.Fd())
}

// fitted adds rows. The last cells are sentences: on a terminal they are cut, so that a line of it holds a row.
func (t *table) fitted(rows [][]string) {
	if t.columns > 0 {
		fit(rows, t.columns)
	}
	t.rows(rows)
}

func fit(rows [][]string, columns int) {
	widths := map[int]int{}
	for _, cells := range rows {
		for i, cell := range cells[:len(cells)-1] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell)+gap)
		}
	}
	left := columns
	for _, width := range widths {
		left -= width
	}
	left = max(left, leastCut)
	for _, cells := range rows {
		last := &cells[len(cells)-1]
		if runes := []rune(*last); len(runes) > left {
			*last = strings.TrimRight(string(runes[:left-1]), " ,;:.") + "…"
		}
	}
}

// when is a time of this machine's zone.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// whenAt is a time in a zone by its IANA name, as a schedule's times are meant.
func whenAt(t time.Time, zone string) string {
	location, err := time.LoadLocation(zone)
	if err != nil {
		return when(t)
	}
	return t.In(location).Format("2006-01-02 15:04:05 MST")
}

// took is how long something ran, or runs.
func took(start time.Time, end *time.Time) string {
	if end == nil {
		return time.Since(start).Round(time.Second).String()
	}
	return end.Sub(start).Round(100 * time.Millisecond).String()
}
