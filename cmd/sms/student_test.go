package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/student"
)

// eraser answers an erasure, and notes what was asked for.
type eraser struct{ asked []string }

func (e *eraser) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]string
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.asked = append(e.asked, strings.Join([]string{r.Method, r.URL.Path, body["confirm"], body["reason"], r.Header.Get("Authorization")}, " "))
	_ = json.NewEncoder(w).Encode(student.Erasure{StudentID: body["confirm"], Version: 2, ErasedBy: "admin",
		ErasedAt: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), RequestID: "r", Reason: body["reason"]})
}

func TestEraseStudent(t *testing.T) {
	t.Parallel()
	const id, why = "STU-2026-00001", "--reason=letter 17"
	for name, test := range map[string]struct {
		args  []string
		typed string
		// wrong is what the error says; empty: the student is erased.
		wrong string
	}{
		"typed":           {[]string{id, why}, id + "\n", ""},
		"typed at an end": {[]string{id, why}, id, ""},
		"in a script":     {[]string{id, why, "--confirm=" + id}, "", ""},
		"typed wrong":     {[]string{id, why}, "STU-2026-00002\n", "nothing was erased"},
		"just Enter":      {[]string{id, why}, "\n", "nothing was erased"},
		"nobody types":    {[]string{id, why}, "", "--confirm"},
		"confirmed wrong": {[]string{id, why, "--confirm=yes"}, "", "nothing was erased"},
		"not confirmed":   {[]string{id, why, "--confirm="}, id + "\n", "nothing was erased"},
		"no reason":       {[]string{id, "--reason= "}, id + "\n", "--reason"},
		"no id":           {[]string{why}, id + "\n", "arg"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &eraser{}
			server := httptest.NewServer(e)
			t.Cleanup(server.Close)
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs strings.Builder
			root := newRootCommand()
			root.SetIn(strings.NewReader(test.typed))
			root.SetOut(&out)
			root.SetErr(&errs)
			root.SetArgs(append(append([]string{"student", "erase"}, test.args...), "--server", server.URL, "--token-file", token, "-o", "json"))
			err := root.ExecuteContext(t.Context())
			if test.wrong != "" {
				if _, usage := errors.AsType[usageError](err); !usage || !strings.Contains(err.Error(), test.wrong) || len(e.asked) > 0 {
					t.Errorf("got %v, want wrong usage about %q; asked for %q", err, test.wrong, e.asked)
				}
				return
			}
			var erased student.Erasure
			if err != nil || json.Unmarshal([]byte(out.String()), &erased) != nil || erased.StudentID != id {
				t.Errorf("%v: %s", err, out.String())
			}
			if want := "POST /api/v1/students/" + id + "/erasure " + id + " letter 17 Bearer secret"; strings.Join(e.asked, "\n") != want {
				t.Errorf("asked for %q, want %q", e.asked, want)
			}
			if (test.typed != "") != strings.Contains(errs.String(), "nothing can undo") {
				t.Errorf("the question is %q", errs.String())
			}
		})
	}
}

func TestEraseStudentTwice(t *testing.T) {
	t.Parallel()
	gone := map[string]any{"status": http.StatusGone, "detail": "this student was erased on 2026-11-23T02:00:00Z"}
	_, _, err := run(t, []func(http.ResponseWriter){status(http.StatusGone, gone)}, "student", "erase", "STU-2026-00001", "--reason", "x", "--confirm", "STU-2026-00001")
	if _, usage := errors.AsType[usageError](err); err == nil || usage || err.Error() != gone["detail"] {
		t.Errorf("got %v", err)
	}
	out, _, err := run(t, []func(http.ResponseWriter){status(http.StatusOK, student.Erasure{StudentID: "STU-2026-00001"})},
		"student", "erase", "STU-2026-00001", "--reason", "x", "--confirm", "STU-2026-00001")
	if err != nil || !strings.HasPrefix(out, "STU-2026-00001 was erased") {
		t.Errorf("%v: %s", err, out)
	}
}
