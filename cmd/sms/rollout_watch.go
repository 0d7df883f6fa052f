package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
)

func newRolloutWatchCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Show how a rollout goes on, and end as it does", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "On a terminal it draws steps, traffic, instances, the analysis and why it waits, and redraws them as they change; elsewhere it says\n" +
			"a line for each change. Ctrl-C ends the view; the rollout goes on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.wait(cmd, rolloutsPath+"/"+url.PathEscape(args[0]), operation.Succeeded)
		},
	}
}

const (
	// silence is how long a stream may say nothing before it counts as broken: three signs of life.
	silence = 15 * time.Second
	// longestEvent bounds one line of a stream, in bytes.
	longestEvent = 16 << 20
)

// listen tells each state of a rollout that its stream of events tells, until the stream ends.
func (w *watcher) listen(ctx context.Context, path string, tell func(ops.Operation)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(requestTimeout, func() { cancel(fmt.Errorf("nothing was heard for %s", requestTimeout)) })
	defer quiet.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if w.event != "" {
		header.Set("Last-Event-ID", w.event)
	}
	res, err := w.send(ctx, http.MethodGet, path+"/events", nil, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return readAnswer(res, "", nil)
	}
	w.back()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, longestEvent)
	var e event
	for lines.Scan() {
		quiet.Reset(silence)
		if !e.take(lines.Text()) || e.name != "rollout" {
			continue
		}
		var o ops.Operation
		if err := json.Unmarshal([]byte(e.data), &o); err != nil {
			return errors.New("the stream of events is not what this program can read: is the platform of this version?")
		}
		w.event = e.id
		if tell(o); o.EndedAt != nil {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return awayError{fmt.Errorf("the stream of events broke off: %w", err)}
	}
	return nil
}

// event is one server-sent event.
type event struct {
	name, id, data string
	whole          bool
}

// take reads a line, and reports whether the event is whole with it. The next line then begins another.
func (e *event) take(line string) bool {
	if e.whole {
		*e = event{id: e.id}
	}
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "event":
		e.name = value
	case "id":
		e.id = value
	case "data":
		e.data = value // the platform sends it in one line
	}
	e.whole = line == ""
	return e.whole
}

// screen draws a rollout over what it has drawn before.
type screen struct {
	out  *os.File
	over chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	shown *ops.Operation
	note  string
	lines int // of what was drawn last
}

// newScreen draws again each second, because times go on, until close.
func newScreen(out *os.File) *screen {
	s := &screen{out: out, over: make(chan struct{})}
	s.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.change(func() {})
			case <-s.over:
				return
			}
		}
	})
	return s
}

func (s *screen) close() {
	close(s.over)
	s.done.Wait()
}

func (s *screen) show(o ops.Operation) { s.change(func() { s.shown = &o }) }

// say puts a sentence below; an empty one takes it away.
func (s *screen) say(note string) { s.change(func() { s.note = note }) }

func (s *screen) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	width, height := viewWidth, 0
	if size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		width, height = min(width, int(size.Col)), int(size.Row)
	}
	v := &view{columns: width, now: time.Now()}
	if s.shown != nil {
		v.operation(*s.shown)
	}
	if s.note != "" {
		v.wrap("", s.note)
	}
	lines := fold(v.lines, height-1)
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[2K" + line + "\n")
	}
	b.WriteString("\x1b[J")
	s.lines = len(lines)
	_, _ = io.WriteString(s.out, b.String()) // a terminal that is gone needs no picture
}

// fold leaves lines out after the title, where the oldest steps are, so that the terminal holds the rest. Without a height all are shown.
func fold(lines []string, height int) []string {
	if height < 3 || len(lines) <= height {
		return lines
	}
	left := len(lines) - height + 1
	return append([]string{lines[0], fmt.Sprintf("… %d lines that this terminal has no room for", left)}, lines[1+left:]...)
}
