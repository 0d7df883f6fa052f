package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/api/ops"
	plans "github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/rollout"
)

// Columns of the view of a rollout, in cells of a terminal.
const (
	viewWidth  = 80 // at most
	labelWidth = 9
	barWidth   = 30
	timeWidth  = 8
	nameWidth  = 30 // what is longer is cut
	valueWidth = 12
)

// view gathers the lines of a rollout or plan as of now, none of them wider than its columns.
type view struct {
	columns int
	now     time.Time
	lines   []string
}

func (v *view) operation(o ops.Operation) {
	v.spread(fmt.Sprintf("rollout %s: %s in %s", o.ID, o.Subject, o.Environment), o.State+" "+v.lasted(o.StartedAt, o.EndedAt))
	v.body(o)
	for _, part := range o.Parts {
		v.line("")
		v.operation(part)
	}
}

func (v *view) body(o ops.Operation) {
	var out rollout.Outcome // empty until it is told
	var plan rollout.PlanOutcome
	var progress activities.Progress
	_ = json.Unmarshal(o.Outcome, &out)
	_ = json.Unmarshal(o.Outcome, &plan)
	if o.Activity != nil {
		_ = json.Unmarshal(o.Activity.Progress, &progress)
	}
	moves := out.From != "" && out.To != "" && out.From != out.To
	if moves {
		v.wrap("release", shortDigest(out.From)+" → "+shortDigest(out.To))
	}
	for _, part := range plan.Services {
		v.wrap("release", shortDigest(part.Release)+" of "+part.Service)
	}
	v.line("")
	for _, s := range o.Steps {
		v.step(s)
	}
	if moves {
		full := barWidth * min(max(out.Weight, 0), 100) / 100
		v.line("")
		v.wrap("traffic", fmt.Sprintf("%s%s %d %% new, %d %% stable", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), out.Weight, 100-out.Weight))
	}
	if len(o.Parts) == 0 { // else they say it
		v.instances(progress.Instances, out)
		if progress.Analysis != nil {
			v.findings(progress.Analysis.Findings)
		}
	}
	v.reasons(o, plan, progress)
}

func (v *view) step(s ops.Step) {
	text := stepMarks[s.State] + " " + s.Name
	failed := s.State == "failed"
	if s.Detail != "" && !failed {
		text += ": " + s.Detail
	}
	v.spread(text, v.lasted(s.StartedAt, s.EndedAt))
	if s.Detail != "" && failed {
		v.hang("  ", s.Detail)
	}
}

func (v *view) instances(all []target.Instance, out rollout.Outcome) {
	if len(all) == 0 {
		return
	}
	const ready, restarts = 7, 10
	row := func(name, release, is, n string) {
		v.line(column(name, nameWidth) + column(release, 2*valueWidth) + column(is, ready) + column(n, restarts))
	}
	v.line("")
	row("INSTANCE", "RELEASE", "READY", "RESTARTS")
	for _, i := range all {
		release := shortDigest(i.Release)
		switch i.Release {
		case out.To:
			release += " new"
		case out.From:
			release += " stable"
		}
		is := "yes"
		if !i.Ready {
			is = "no"
		}
		row(i.Name, release, is, fmt.Sprint(i.Restarts))
		if i.Failure != "" {
			v.hang("  ", i.Failure)
		}
	}
}

func (v *view) findings(all []plans.Finding) {
	if len(all) == 0 {
		return
	}
	row := func(rule, release, stable, limit, verdict string) {
		v.line(column(rule, nameWidth-valueWidth) + column(release, valueWidth) + column(stable, valueWidth) + column(limit, valueWidth) + column(verdict, valueWidth+1))
	}
	v.line("")
	row("RULE", "NEW", "STABLE", "LIMIT", "VERDICT")
	for _, f := range all {
		row(f.Rule, orDefault(f.Release, "-"), orDefault(f.Stable, "-"), orDefault(f.Limit, "-"), string(f.Verdict))
		if f.Verdict != plans.Passed {
			v.hang("  ", f.Detail)
		}
	}
}

// reasons say why it waits, what somebody can do about it, and what people have decided.
func (v *view) reasons(o ops.Operation, plan rollout.PlanOutcome, progress activities.Progress) {
	v.line("")
	var step ops.Step
	if n := len(o.Steps); n > 0 {
		step = o.Steps[n-1]
	}
	switch {
	case o.EndedAt != nil:
		v.wrap("ended", o.Summary)
	case step.Name == "" || !strings.HasPrefix(o.Summary, step.Name):
		v.wrap("now", o.Summary)
	}
	if o.EndedAt == nil {
		if o.Hint != "" {
			v.wrap("", hintOf(o))
		}
		if progress.WaitingFor != "" && len(o.Parts) == 0 {
			v.wrap("waits", progress.WaitingFor)
		}
		if progress.Analysis != nil && progress.Analysis.Unread != "" {
			v.wrap("waits", progress.Analysis.Unread)
		}
		if a := o.Activity; a != nil && a.LastFailure != "" && len(o.Parts) == 0 {
			v.wrap("tries", fmt.Sprintf("attempt %d of %s, because the one before failed: %s", a.Attempt, a.Name, a.LastFailure))
		}
	}
	for _, d := range plan.Decisions {
		v.wrap("decided", fmt.Sprintf("%s %s by %s: %s", d.At.Local().Format(time.TimeOnly), d.What, d.User, d.Reason))
	}
	for len(v.lines) > 0 && v.lines[len(v.lines)-1] == "" {
		v.lines = v.lines[:len(v.lines)-1]
	}
}

func (v *view) lasted(from time.Time, to *time.Time) string {
	if to == nil {
		return max(v.now.Sub(from), 0).Truncate(time.Second).String()
	}
	return took(from, to)
}

// line adds a line, cut where it is too wide.
func (v *view) line(text string) {
	v.lines = append(v.lines, cut(strings.TrimRight(printable(text), " "), v.columns))
}

// spread puts a text at the left and a short one at the right.
func (v *view) spread(left, right string) {
	room := max(v.columns-max(timeWidth, cells(right))-1, 0)
	v.line(column(left, room+1) + strings.Repeat(" ", max(timeWidth-cells(right), 0)) + right)
}

// wrap puts a text behind a label, in as many lines as it takes.
func (v *view) wrap(label, text string) { v.hang(column(label, labelWidth), text) }

// hang puts a text behind a head, and its further lines below it.
func (v *view) hang(head, text string) {
	room := max(v.columns-cells(head), 1)
	line := ""
	for word := range strings.FieldsSeq(printable(text)) {
		for {
			joined := strings.TrimPrefix(line+" "+word, " ")
			if cells(joined) <= room {
				line = joined
				break
			}
			if line == "" { // a word that is wider than the room
				line = whole(word, room)
				word = word[len(line):]
			}
			v.line(head + line)
			head, line = strings.Repeat(" ", cells(head)), ""
		}
	}
	v.line(head + line)
}

// column is a text cut or filled to a width, the last cell of which is empty.
func column(text string, wide int) string {
	text = cut(printable(text), wide-1)
	return text + strings.Repeat(" ", wide-cells(text))
}

// cut shortens a text to so many cells, and shows that.
func cut(text string, most int) string {
	if cells(text) <= most || most < 1 {
		return text
	}
	return whole(text, most-1) + "…"
}

// whole is as much of a text's beginning as fits into so many cells, and at least one character.
func whole(text string, most int) string {
	n := 0
	for at, r := range text {
		if n += cellsOf(r); n > most && at > 0 {
			return text[:at]
		}
	}
	return text
}

// cells is how many columns of a terminal a text takes.
func cells(text string) int {
	n := 0
	for _, r := range text {
		n += cellsOf(r)
	}
	return n
}

// cellsOf is 2 for wide characters (Unicode Standard Annex 11) and 0 for marks that combine with the one before.
func cellsOf(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// printable takes out what would move a terminal's cursor, change its colours or turn its lines around: what people write reaches the terminals of others.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, text)
}
