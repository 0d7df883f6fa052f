package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/api/ops"
	plans "github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/rollout"
)

var (
	began    = time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	stable   = "sha256:" + strings.Repeat("a", 64)
	next     = "sha256:" + strings.Repeat("b", 64)
	decision = rollout.Decision{User: "meera", Reason: "the office calls", What: rollout.PauseUpdate, At: began.Add(9 * time.Second)}
)

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// watched is a rollout at 10 %, paused, with an instance that is not well.
func watched(t *testing.T) ops.Operation {
	ended := began.Add(300 * time.Millisecond)
	analysis := activities.Analysis{Verdict: plans.Inconclusive, Findings: []plans.Finding{
		{Rule: "error rate", Verdict: plans.Passed, Release: "0 %", Stable: "0.2 %", Limit: "1 %", Detail: "0 % of 90 requests, at most 1 % allowed"},
		{Rule: "memory", Verdict: plans.Inconclusive, Detail: "is not known"},
	}}
	return ops.Operation{
		ID: "4g8k2m0x7c", Kind: "rollout", Environment: "staging", Subject: "student-service", State: "waiting", StartedBy: "arjun", StartedAt: began,
		Summary: "Paused by meera: the office calls", Hint: "`sms rollout resume 4g8k2m0x7c --reason …` lets it go on.",
		Steps: []ops.Step{
			{Name: "Import the release", State: "done", Detail: "bbbbbbbbbbbb", StartedAt: began, EndedAt: &ended},
			{Name: "Give it 10 % of the traffic for 5s", State: "running", StartedAt: began.Add(time.Second)},
		},
		Outcome: raw(t, rollout.Outcome{From: stable, To: next, Weight: 10, Decisions: []rollout.Decision{decision}}),
		Activity: &ops.Activity{Name: "WatchRelease", Attempt: 2, LastFailure: "the worker that did it stopped answering", Progress: raw(t, activities.Progress{
			Watching: analysis.String(), Analysis: &analysis, Instances: []target.Instance{
				{Name: "staging/student-service-1", Release: stable, Ready: true},
				{Name: "staging/student-service-2", Release: next, Restarts: 1, Failure: "exit status 3"},
			}})},
	}
}

// gated is a plan that waits for an approval, or with a part for its rollout.
func gated(t *testing.T, parts ...ops.Operation) ops.Operation {
	return ops.Operation{ID: "sdkpf0cjt9", Kind: "rollout", Environment: "staging, production", Subject: "student-service", State: "waiting",
		StartedBy: "arjun", StartedAt: began, Hint: "`sms rollout approve sdkpf0cjt9 --reason …` lets it go on, by any operator but arjun.", Summary: "Waits until 2026-11-24T02:00:00Z for an approval of plan 602bb76a6b6a4e91.",
		Steps: []ops.Step{{Name: "Wait for an approval of plan 602bb76a6b6a4e91", State: "running", StartedAt: began}}, Parts: parts,
		Outcome: raw(t, rollout.PlanOutcome{Hash: "602bb76a6b6a4e91", Services: []plans.Part{{Service: "student-service", Release: next}}})}
}

func TestTheViewOfARollout(t *testing.T) {
	t.Parallel()
	want := `rollout 4g8k2m0x7c: student-service in staging                       waiting 12s
release  aaaaaaaaaaaa → bbbbbbbbbbbb

✔ Import the release: bbbbbbbbbbbb                                         300ms
▶ Give it 10 % of the traffic for 5s                                         11s

traffic  ███░░░░░░░░░░░░░░░░░░░░░░░░░░░ 10 % new, 90 % stable

INSTANCE                      RELEASE                 READY  RESTARTS
staging/student-service-1     aaaaaaaaaaaa stable     yes    0
staging/student-service-2     bbbbbbbbbbbb new        no     1
  exit status 3

RULE              NEW         STABLE      LIMIT       VERDICT
error rate        0 %         0.2 %       1 %         passed
memory            -           -           -           inconclusive
  is not known

now      Paused by meera: the office calls
         sms rollout resume 4g8k2m0x7c --reason … lets it go on.
tries    attempt 2 of WatchRelease, because the one before failed: the worker
         that did it stopped answering
decided  ` + decision.At.Local().Format(time.TimeOnly) + ` pause by meera: the office calls
`
	if diff := cmp.Diff(want, drawRollout(watched(t), began.Add(12*time.Second), viewWidth)); diff != "" {
		t.Error(diff)
	}
}

func TestTheViewOfAPlan(t *testing.T) {
	t.Parallel()
	waiting := drawRollout(gated(t), began, viewWidth)
	contains(t, waiting, "release  bbbbbbbbbbbb of student-service", "Waits until 2026-11-24T02:00:00Z", "sms rollout approve sdkpf0cjt9", "but arjun")
	contains(t, drawRollout(gated(t, watched(t)), began, viewWidth), "rollout sdkpf0cjt9", "rollout 4g8k2m0x7c", "10 % new, 90 % stable", "INSTANCE")
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, part := range all {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

func TestNoLineOfTheViewIsTooWide(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"long": strings.Repeat("its instance ended ", 30), "one word": strings.Repeat("x", 300), "wide": strings.Repeat("学校", 90), "combining": strings.Repeat("e\u0301", 200),
		"marks": strings.Repeat("✔▶█", 90), "escapes": "\x1b[2J\x1b[31m" + strings.Repeat("\u202ered\r", 40), "broken": strings.Repeat("\xff", 200), "": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := watched(t)
			o.Subject, o.Summary, o.Activity.LastFailure = text, text, text
			o.Steps[0].Detail, o.Steps[1].Name = text, text
			o.Steps = append(o.Steps, ops.Step{Name: "fails", State: "failed", Detail: text})
			o.Activity.Progress = raw(t, activities.Progress{WaitingFor: text, Instances: []target.Instance{{Name: text, Release: text, Failure: text}},
				Analysis: &activities.Analysis{Unread: text, Findings: []plans.Finding{{Rule: text, Release: text, Stable: text, Limit: text, Detail: text}}}})
			for _, columns := range []int{20, 40, viewWidth} {
				for line := range strings.Lines(drawRollout(gated(t, o), began, columns)) {
					line = strings.TrimSuffix(line, "\n")
					if cells(line) > columns || strings.ContainsAny(line, "\x1b\r\u202e") {
						t.Errorf("%d cells of at most %d: %q", cells(line), columns, line)
					}
				}
			}
		})
	}
}

func TestCells(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "abc": 3, "✔ ▶ █": 5, "学校": 4, "e\u0301": 1, "é": 1, "…": 1, "→": 1} {
		if got := cells(text); got != want {
			t.Errorf("%q takes %d cells, want %d", text, got, want)
		}
	}
}

func TestFoldKeepsTheTitleAndTheEnd(t *testing.T) {
	t.Parallel()
	lines := strings.Split("title 1 2 3 4 5", " ")
	if diff := cmp.Diff([]string{"title", "… 3 lines that this terminal has no room for", "4", "5"}, fold(lines, 4)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(lines, fold(lines, 6)); diff != "" {
		t.Error(diff)
	}
}

// stream is a rollout's events, of which a test sends one after the other; a nil one breaks the connection.
type stream struct {
	events chan *ops.Operation
	last   chan string // Last-Event-ID of each connection
}

func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.last <- r.Header.Get("Last-Event-ID")
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "retry: 250\n\n: goes on\n\n")
	w.(http.Flusher).Flush()
	for {
		select {
		case o := <-s.events:
			if o == nil {
				panic(http.ErrAbortHandler)
			}
			data, _ := json.Marshal(o) // has no error: it is read from JSON
			fmt.Fprintf(w, "event: rollout\nid: %s\ndata: %s\n\n", o.Summary, data)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// seen reads a terminal until it shows a text.
type seen struct {
	t    *testing.T
	term *os.File
	text bytes.Buffer
}

func (s *seen) until(what string) {
	s.t.Helper()
	_ = s.term.SetReadDeadline(time.Now().Add(30 * time.Second))
	buffer := make([]byte, 4096)
	for !strings.Contains(s.text.String(), what) {
		n, err := s.term.Read(buffer)
		if err != nil {
			s.t.Fatalf("%v before the terminal shows %q: %q", err, what, s.text.String())
		}
		s.text.Write(buffer[:n])
	}
}

// watchOn watches a rollout on a pseudo-terminal.
func watchOn(ctx context.Context, t *testing.T, s *stream) (*seen, <-chan error) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	term, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = term.Close(), tty.Close() })
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 70}); err != nil {
		t.Fatal(err)
	}
	root := newRootCommand()
	root.SetOut(tty)
	root.SetErr(tty)
	root.SetArgs([]string{"rollout", "watch", "4g8k", "--server", server.URL, "--token-file", token})
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	return &seen{t: t, term: term}, ended
}

func TestWatchDrawsOnATerminalAndOutlivesABrokenStream(t *testing.T) {
	t.Parallel()
	s := &stream{events: make(chan *ops.Operation), last: make(chan string, 10)}
	terminal, ended := watchOn(t.Context(), t, s)
	o := watched(t)
	s.events <- &o
	terminal.until("10 % new, 90 % stable")
	terminal.until("decided")
	s.events <- nil
	terminal.until("the platform is away")
	if first, second := <-s.last, <-s.last; first != "" || second != o.Summary {
		t.Errorf("came with the ids %q and %q, want none and that of the last event", first, second)
	}
	over := began.Add(time.Minute)
	o.State, o.Summary, o.EndedAt = "rolled-back", "student-service stays on aaaaaaaaaaaa: error rate 12 %.", &over
	s.events <- &o
	terminal.until("rolled-back 1m0s")
	terminal.until("rollout 4g8k2m0x7c:")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "ended rolled-back") {
		t.Errorf("the command ended with %v", err)
	}
	contains(t, terminal.text.String(), "\x1b[23A\r\x1b[2Krollout")
	for line := range strings.SplitSeq(terminal.text.String(), "\x1b[2K") {
		if drawn, _, _ := strings.Cut(line, "\r"); cells(drawn) > 70 {
			t.Errorf("%q is wider than the terminal", drawn)
		}
	}
}

func TestCtrlCLeavesTheView(t *testing.T) {
	t.Parallel()
	s := &stream{events: make(chan *ops.Operation), last: make(chan string, 10)}
	ctx, interrupt := context.WithCancel(t.Context())
	terminal, ended := watchOn(ctx, t, s)
	o := watched(t)
	s.events <- &o
	terminal.until("10 % new")
	interrupt()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the operation goes on") {
		t.Errorf("ended with %v", err)
	}
}

func TestWatchSaysLinesElsewhere(t *testing.T) {
	t.Parallel()
	over := began.Add(time.Minute)
	o := watched(t)
	done := o
	done.State, done.EndedAt, done.Activity = "succeeded", &over, nil
	out, said, err := run(t, []func(http.ResponseWriter){func(w http.ResponseWriter) {
		for _, o := range []ops.Operation{o, done} {
			data, _ := json.Marshal(o)
			fmt.Fprintf(w, "event: rollout\nid: 1\ndata: %s\n\n", data)
		}
		fmt.Fprint(w, "event: end\ndata: succeeded\n\n")
	}}, "rollout", "watch", "4g8k")
	if err != nil || strings.Contains(said, "\x1b") {
		t.Errorf("%v, and %q should hold plain lines", err, said)
	}
	contains(t, said, "✔ Import the release (300ms): bbbbbbbbbbbb\n", "▶ Give it 10 % of the traffic for 5s\n", "attempt 2")
	contains(t, out, "rollout 4g8k2m0x7c:")
}

func TestWatchOfNoRollout(t *testing.T) {
	t.Parallel()
	_, _, err := run(t, []func(http.ResponseWriter){status(404, map[string]any{"status": 404, "detail": `there is no operation "x" of this kind`})}, "rollout", "watch", "x")
	if problem, ok := errors.AsType[*problemError](err); !ok || problem.Status != 404 {
		t.Errorf("ended with %v", err)
	}
}

func drawRollout(o ops.Operation, now time.Time, columns int) string {
	v := &view{columns: columns, now: now}
	v.operation(o)
	return strings.Join(v.lines, "\n") + "\n"
}
