package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/smoke"
)

// asSMS makes the test binary the command, so that there is a process with an exit code and signals.
const asSMS = "SMS_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asSMS) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sms is the command as a process.
func sms(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.CommandContext(t.Context(), self, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = []string{asSMS + "=1", "SMS_DATA_DIR=" + t.TempDir()}, stdout, stderr
	return cmd, stdout, stderr
}

// school is something to test: it makes one thing, and can be told to keep silent.
type school struct {
	*httptest.Server
	things  atomic.Int32
	reached chan struct{} // a request that is not answered
}

func newSchool(t *testing.T) *school {
	t.Helper()
	s := &school{reached: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /things", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s.things.Add(1)
		fmt.Fprint(w, `{"id": "x"}`)
	})
	mux.HandleFunc("DELETE /things/x", func(http.ResponseWriter, *http.Request) { s.things.Add(-1) })
	mux.HandleFunc("GET /actuator/health", func(w http.ResponseWriter, _ *http.Request) {
		const up = `{"status": "UP", "details": {"instances": 1}}`
		fmt.Fprintf(w, `{"status": "UP", "components": {"student-service": %s, "configuration-service": %s}}`, up, up)
	})
	mux.HandleFunc("GET /name", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"name": "Meera <Rao>"}`) })
	mux.HandleFunc("GET /silent", func(_ http.ResponseWriter, r *http.Request) {
		s.reached <- struct{}{}
		<-r.Context().Done()
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// put writes a file of a test.
func put(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const made = `
name: school
checks:
  - name: a thing can be made
    request: {method: POST, path: /things, body: {}}
    expect: {status: 200}
    capture: {id: $.id}
    cleanup: [{request: {method: DELETE, path: "/things/${id}"}}]
`

func TestSmokeCheckNeedsNoPlatform(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	token := put(t, "secret\n")
	good := put(t, made)
	bad := put(t, made+`
  - {name: the name, request: {path: /name}, expect: {status: 200, json: {$.name: {equals: A & B, public: true}}}}
  - {name: more, needs: [the name], request: {path: /name}, expect: {status: 200}}
`)
	faulty := put(t, "name: x\nchecks: []\ncolour: blue\n")
	junit := filepath.Join(t.TempDir(), "smoke.xml")
	for name, test := range map[string]struct {
		args   []string
		exit   int
		stdout []string
		stderr []string
	}{
		"passes":           {[]string{"--suite", good, "--token-file", token}, 0, []string{"✔ school: a thing can be made", "All 1 checks passed"}, nil},
		"fails":            {[]string{"--suite", bad, "--token-file", token, "--junit", junit}, 1, []string{"✘ school: the name", "– school: more"}, []string{`expected $.name "A & B", found "Meera <Rao>"`}},
		"JSON":             {[]string{"--suite", good, "--token-file", token, "-o", "json"}, 0, []string{`"passed": true`, `"durationMs"`}, nil},
		"JUnit to stdout":  {[]string{"--suite", good, "--token-file", token, "--junit", "-"}, 0, []string{`<testcase name="a thing can be made" classname="school"`}, nil},
		"the built-in":     {[]string{"--token-file", token}, 1, []string{"✔ platform: student-service is up", "✘ platform: a student can be created", "– platform: the student is gone"}, []string{"expected status 401, found status 404"}},
		"faulty":           {[]string{"--suite", faulty}, 2, nil, []string{"line 2: checks: minItems", "line 3: colour: there is no such key"}},
		"no token":         {[]string{"--suite", good}, 2, nil, []string{"--token-file"}},
		"no such token":    {[]string{"--suite", good, "--token-file", "/nowhere"}, 1, nil, []string{"/nowhere"}},
		"twice":            {[]string{"--suite", good, "--suite", good, "--token-file", token}, 2, nil, []string{"another suite has the name"}},
		"nowhere to write": {[]string{"--suite", good, "--token-file", token, "--junit", "/nowhere/x.xml"}, 1, nil, []string{"write the JUnit report"}},
		"no URL":           {[]string{"--url", "ftp://x"}, 2, nil, []string{"--url"}},
	} {
		cmd, stdout, stderr := sms(t, append([]string{"smoke", "check", "--url", s.URL}, test.args...)...)
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != test.exit {
			t.Errorf("%s: exit %d, want %d\n%s%s", name, code, test.exit, stdout, stderr)
		}
		for _, want := range test.stdout {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: %s\nwant %s", name, stdout, want)
			}
		}
		for _, want := range test.stderr {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: %s\nwant %s", name, stderr, want)
			}
		}
		if left := s.things.Load(); left != 0 {
			t.Errorf("%s: %d things left", name, left)
		}
		if strings.Contains(stdout.String()+stderr.String(), "secret") {
			t.Errorf("%s: the token was shown", name)
		}
	}
	raw, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	readJUnit(t, raw, 3, 1, `expected $.name "A & B", found "Meera <Rao>"`)
}

// readJUnit reads a report back as a CI system would.
func readJUnit(t *testing.T, raw []byte, tests, failures int, message string) {
	t.Helper()
	var report struct {
		Suites []struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Cases    []struct {
				Failure struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &report); err != nil || len(report.Suites) != 1 {
		t.Fatalf("%v: %s", err, raw)
	}
	one := report.Suites[0]
	if one.Tests != tests || one.Failures != failures || one.Cases[1].Failure.Message != message {
		t.Errorf("%s", raw)
	}
}

func TestAnInterruptedSmokeCheckCleansUp(t *testing.T) {
	t.Parallel()
	s := newSchool(t)
	suite := put(t, made+"\n  - {name: silent, request: {path: /silent}, expect: {status: 200}}\n")
	cmd, stdout, stderr := sms(t, "smoke", "check", "--url", s.URL, "--suite", suite, "--token-file", put(t, "secret"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-s.reached
	if s.things.Load() != 1 {
		t.Error("nothing was made")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || s.things.Load() != 0 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit %d, %d things left\n%s%s", cmd.ProcessState.ExitCode(), s.things.Load(), stdout, stderr)
	}
}

func TestReportsOfThePlatformAsJUnit(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(smoke.Report{URL: "http://x", Checks: []smoke.Result{{Suite: "platform", Name: "up", OK: true}, {Suite: "platform", Name: "read", Expected: "a", Found: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	ended := backupIn("failed", "1 of 2 checks failed.", true)
	ended.Outcome = raw
	out, _, err := run(t, []func(http.ResponseWriter){status(http.StatusOK, ended)}, "smoke", "show", "abc", "--junit", "-")
	if err != nil {
		t.Fatal(err)
	}
	readJUnit(t, []byte(out), 2, 1, "expected a, found b")

	out, progress, err := run(t, []func(http.ResponseWriter){status(http.StatusAccepted, backupIn("running", "", false)), status(http.StatusOK, ended)},
		"smoke", "run", "--wait", "--junit", "-")
	if err == nil || !strings.Contains(progress, "1 of 2 checks failed.") {
		t.Errorf("%v: %s", err, progress)
	}
	readJUnit(t, []byte(out), 2, 1, "expected a, found b")

	_, _, err = run(t, []func(http.ResponseWriter){status(http.StatusOK, ops.Operation{ID: "abc", State: "cancelled", Summary: "Cancelled."})}, "smoke", "show", "abc", "--junit", "-")
	if err == nil || !strings.Contains(err.Error(), "has no report: it is cancelled") {
		t.Error(err)
	}
}

func TestTheBuiltInSuiteIsPrinted(t *testing.T) {
	t.Parallel()
	out, _, err := run(t, nil, "smoke", "suite")
	if _, faults := smoke.Read([]byte(out)); err != nil || faults != nil {
		t.Error(err, faults)
	}
	if out, _, err = run(t, nil, "smoke", "suite", "--schema"); err != nil || !json.Valid([]byte(out)) {
		t.Error(err, out)
	}
}
