package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/api/ops"
)

// answers replies to requests in turn; the last answer stays.
type answers struct {
	mu   sync.Mutex
	next []func(http.ResponseWriter)
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answer := a.next[0]
	if len(a.next) > 1 {
		a.next = a.next[1:]
	}
	answer(w)
}

func status(code int, body any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(body)
	}
}

func backupIn(state, summary string, ended bool) ops.Operation {
	start := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	o := ops.Operation{ID: "abc", Kind: "backup", Subject: "student_db", State: state, Summary: summary, StartedAt: start,
		Steps: []ops.Step{{Name: "Dump student_db", State: "running", StartedAt: start}}}
	if ended {
		end := start.Add(time.Second)
		o.EndedAt, o.Steps[0].EndedAt, o.Steps[0].State = &end, &end, "done"
	}
	return o
}

// run runs the command line against answers.
func run(t *testing.T, next []func(http.ResponseWriter), args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = runTo(t, &out, &errs, next, args...)
	return out.String(), errs.String(), err
}

func runTo(t *testing.T, out, errs io.Writer, next []func(http.ResponseWriter), args ...string) error {
	t.Helper()
	server := httptest.NewServer(&answers{next: next})
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := newRootCommand()
	root.SetOut(out)
	root.SetErr(errs)
	root.SetArgs(append(args, "--server", server.URL, "--token-file", token))
	return root.ExecuteContext(t.Context())
}

func TestWaitEndsAsTheOperationDoes(t *testing.T) {
	t.Parallel()
	away := status(http.StatusServiceUnavailable, map[string]string{"detail": "ops-service cannot answer for now"})
	for name, test := range map[string]struct {
		last ops.Operation
		fail bool
	}{
		"verified": {backupIn("verified", "Verified: 95 MB.", true), false},
		"failed":   {backupIn("failed", "The disk is full.", true), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, progress, err := run(t, []func(http.ResponseWriter){
				status(http.StatusAccepted, backupIn("running", "", false)), status(http.StatusOK, backupIn("running", "", false)), away, away,
				status(http.StatusOK, test.last),
			}, "backup", "run", "student_db", "--wait")
			if (err != nil) != test.fail {
				t.Errorf("ended with %v", err)
			}
			if _, usage := errors.AsType[usageError](err); usage {
				t.Error("a failed operation is no wrong usage")
			}
			for _, said := range []string{"▶ Dump student_db", "the platform is away", "the platform is back", "✔ Dump student_db (1s)"} {
				if !strings.Contains(progress, said) {
					t.Errorf("progress %q does not say %q", progress, said)
				}
			}
			if !strings.Contains(out, test.last.Summary) {
				t.Errorf("output %q does not say how it ended", out)
			}
		})
	}
}

func TestErrorsAreSentences(t *testing.T) {
	t.Parallel()
	problem := map[string]any{"status": 422, "title": "Validation error", "detail": "the request has 1 fault",
		"errors": []map[string]string{{"field": "database", "detail": `there is no database "x"; known are student_db`}}}
	_, _, err := run(t, []func(http.ResponseWriter){status(422, problem)}, "backup", "run", "x")
	if err == nil || err.Error() != "the request has 1 fault\n  - database: there is no database \"x\"; known are student_db" {
		t.Errorf("got %v", err)
	}
	_, _, err = run(t, []func(http.ResponseWriter){status(409, map[string]any{"status": 409, "detail": "backup abc runs already"})}, "backup", "run", "x")
	if err == nil || err.Error() != "backup abc runs already" {
		t.Errorf("got %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"backup run", "backup show a b", "backup list --nothing", "smoke run --env a --url b", "smoke run --junit x.xml", "schedule set x", "backup list -o yaml", "moon"} {
		_, _, err := run(t, []func(http.ResponseWriter){status(200, nil)}, strings.Fields(args)...)
		if _, usage := errors.AsType[usageError](err); !usage {
			t.Errorf("sms %s: %v, want wrong usage", args, err)
		}
	}
}

func TestJSONIsTheAnswer(t *testing.T) {
	t.Parallel()
	page := ops.Page{Content: []ops.Operation{backupIn("verified", "Verified.", true)}, Paging: ops.Paging{Size: 20, TotalElements: 1, TotalPages: 1, First: true, Last: true}}
	out, _, err := run(t, []func(http.ResponseWriter){status(200, page)}, "backup", "list", "-o", "json")
	var got ops.Page
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got.Content) != 1 || got.Content[0].ID != "abc" {
		t.Errorf("%v: %s", err, out)
	}
	out, _, err = run(t, []func(http.ResponseWriter){status(200, page)}, "backup", "list")
	if err != nil || !strings.Contains(out, "DATABASE") || !strings.Contains(out, "student_db") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestShowSaysWhatCanBeDone about an operation that waits for somebody.
func TestShowSaysWhatCanBeDone(t *testing.T) {
	t.Parallel()
	waiting := ops.Operation{ID: "abc", Kind: "rollout", State: "waiting", Summary: "Waits for an approval.", Hint: "`sms rollout approve abc --reason …` lets it go on."}
	out, _, err := run(t, []func(http.ResponseWriter){status(http.StatusOK, waiting)}, "rollout", "show", "abc")
	if want := "sms rollout approve abc --reason … lets it go on."; err != nil || !strings.Contains(out, want) {
		t.Errorf("%v, no %q in\n%s", err, want, out)
	}
}
