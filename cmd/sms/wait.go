package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/backup"
)

const (
	pollInterval = 500 * time.Millisecond
	// patience is how long the platform may be away while a command waits.
	patience = 2 * time.Minute
	// restless is how often a long step says how far it is.
	restless = 5 * time.Second
)

// begin starts an operation by a POST. With wait it shows how it goes on and ends as it does: good are the states that
// are a success.
func (g *globals) begin(cmd *cobra.Command, collection string, body any, wait bool, good ...string) error {
	var started ops.Operation
	if err := g.call(cmd.Context(), http.MethodPost, collection, body, &started); err != nil {
		return err
	}
	return g.begun(cmd, collection, started, wait, good...)
}

// wait shows the progress of the operation at a path on standard error until it has ended, prints it, and returns an
// error unless it ended in one of the good states.
func (g *globals) wait(cmd *cobra.Command, path string, good ...string) error {
	w := &watcher{globals: g, out: cmd.ErrOrStderr()}
	ended, err := w.follow(cmd.Context(), path)
	if err != nil {
		return err
	}
	if err := g.print(cmd, ended, func(t *table) {
		t.row(ended.Kind+" "+ended.ID+":", ended.State+".", ended.Summary)
		for _, toDo := range restoreToDo(ended) {
			t.row("To do: " + toDo)
		}
	}); err != nil {
		return err
	}
	return outcome(ended, good...)
}

// outcome is an error unless an operation ended well.
func outcome(o ops.Operation, good ...string) error {
	if slices.Contains(good, o.State) {
		return nil
	}
	return fmt.Errorf("%s %s of %s ended %s: %s", o.Kind, o.ID, o.Subject, o.State, o.Summary)
}

// watcher follows one operation.
type watcher struct {
	*globals
	out io.Writer
	// screen shows a rollout on a terminal; nil elsewhere.
	screen *screen
	// event is the id of the last event of a stream.
	event string

	shown   map[string]string // step → what was last said of it
	failure string
	moved   time.Time
	// live is what stands on the last line of a terminal, to be replaced; empty elsewhere.
	live      string
	awaySince time.Time
}

func (w *watcher) follow(ctx context.Context, path string) (ops.Operation, error) {
	w.shown, w.moved = map[string]string{}, time.Now()
	look := w.ask
	if strings.HasPrefix(path, rolloutsPath+"/") {
		look = w.listen
		if w.terminal() {
			w.screen = newScreen(w.out.(*os.File))
			defer w.screen.close()
		}
	}
	defer func() {
		if w.live != "" {
			fmt.Fprintln(w.out)
		}
	}()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var o ops.Operation
	for {
		err := look(ctx, path, func(now ops.Operation) {
			o = now
			w.show(o)
		})
		switch {
		case o.EndedAt != nil:
			return o, nil
		case err == nil:
		case ctx.Err() != nil:
			return o, errors.New("stopped waiting; the operation goes on")
		case !away(err):
			return o, err
		default:
			if err := w.gone(err); err != nil {
				return o, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return o, errors.New("stopped waiting; the operation goes on")
		}
	}
}

// ask tells how the operation stands.
func (w *watcher) ask(ctx context.Context, path string, tell func(ops.Operation)) error {
	var o ops.Operation
	err := w.call(ctx, http.MethodGet, path, nil, &o)
	if err == nil {
		w.back()
		tell(o)
	}
	return err
}

// gone says once that the platform is away, and gives up when that lasts.
func (w *watcher) gone(err error) error {
	if w.awaySince.IsZero() {
		w.awaySince = time.Now()
		w.line(fmt.Sprintf("… the platform is away, waiting for it: %v", err))
	}
	if time.Since(w.awaySince) > patience {
		return fmt.Errorf("the platform has been away for %s; the operation goes on when it is back: %w", patience, err)
	}
	return nil
}

func (w *watcher) back() {
	switch {
	case w.awaySince.IsZero():
		return
	case w.screen != nil:
		w.screen.say("")
	default:
		w.line(fmt.Sprintf("… the platform is back after %s", time.Since(w.awaySince).Round(time.Second)))
	}
	w.awaySince = time.Time{}
}

var stepMarks = map[string]string{"running": "▶", "done": "✔", "failed": "✘", "skipped": "–", "cancelled": "■"}

// show says what has changed.
func (w *watcher) show(o ops.Operation) {
	if w.screen != nil {
		w.screen.show(o)
		return
	}
	w.steps(o)
	for _, part := range o.Parts {
		w.steps(part)
	}
	if o.Activity == nil {
		return
	}
	if o.Activity.LastFailure != w.failure {
		w.failure = o.Activity.LastFailure
		if w.failure != "" {
			w.line(fmt.Sprintf("… attempt %d, because the one before failed: %s", o.Activity.Attempt, w.failure))
		}
	}
	said := progressOf(o.Activity.Progress)
	switch {
	case said == "":
	case w.terminal():
		w.live = "… " + printable(said)
		fmt.Fprint(w.out, "\r\x1b[K"+w.live)
	case time.Since(w.moved) > restless:
		w.line("… " + said)
		w.moved = time.Now()
	}
}

// steps says which have changed.
func (w *watcher) steps(o ops.Operation) {
	for i, s := range o.Steps {
		line := stepMarks[s.State] + " " + s.Name
		if s.EndedAt != nil {
			line += " (" + took(s.StartedAt, s.EndedAt) + ")"
		}
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		if key := fmt.Sprint(o.ID, i); w.shown[key] != line {
			w.shown[key] = line
			w.line(line)
			w.moved = time.Now()
		}
	}
	if waits := "… " + o.Summary + " " + hintOf(o); o.Hint != "" && w.shown[o.ID] != waits {
		w.shown[o.ID] = waits
		w.line(waits)
	}
}

// line says something that stays.
func (w *watcher) line(text string) {
	if w.screen != nil {
		w.screen.say(text)
		return
	}
	if w.live != "" {
		fmt.Fprint(w.out, "\r\x1b[K")
		w.live = ""
	}
	fmt.Fprintln(w.out, printable(text))
}

// terminal reports whether a line can be written over.
func (w *watcher) terminal() bool {
	_, is := terminal(w.out)
	return is
}

// progressOf puts what an activity says of itself in words; empty when it says nothing known.
func progressOf(raw json.RawMessage) string {
	var p struct {
		backup.Moved
		// WaitingFor is said by what waits.
		WaitingFor string `json:"waitingFor"`
		// Watching is said by what looks after something.
		Watching string `json:"watching"`
	}
	if json.Unmarshal(raw, &p) != nil {
		return ""
	}
	if p.WaitingFor != "" {
		return "waiting: " + p.WaitingFor
	}
	if p.Watching != "" {
		return "watching: " + p.Watching
	}
	return p.Moved.String()
}
