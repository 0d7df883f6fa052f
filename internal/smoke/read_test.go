package smoke

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Read([]byte(`name: My School
colour: blue
variables:
  ok: a${random.letters(8)}
  no: ${random.words(3)}
checks:
  - name: one
    request: {path: api, headers: {authorization: secret}, body: {a: "${nobody}"}}
    expect:
      status: [200, 7]
      within: 11s
      json:
        $.a[: 1
        $.b: {exists: false, equals: 1}
        $.c: {public: true}
        $.d: {matches: "("}
        $.e: {equal: 1}
      headers:
        Age: {min: 3}
  - name: one
    needs: [two]
    request: {path: "/${ok", method: FETCH}
    capture: {id: $.id}
    retry: {times: 1, pause: 1s}
    cleanup:
      - request: {path: "/${id}/${later}"}
`))
	if err == nil {
		t.Fatal("it was read")
	}
	want := []string{
		"line 1: name: 'My School' does not match pattern",
		"line 2: colour: there is no such key",
		"line 5: variables.no: ${random.words(3)} is no generator",
		`line 8: checks[0].request.path: 'api' does not match pattern '^/'`,
		"line 8: checks[0].request.headers.authorization: is set by the runner",
		"line 8: checks[0].request.body: is not for a GET",
		"line 8: checks[0].request: ${nobody} is no generator, no variable, and captured by no check before",
		"line 10: checks[0].expect.status[1]: minimum: got 7, want 100",
		"line 11: checks[0].expect.within: 11s is not above 0s and at most 10s",
		`checks[0].expect.json["$.a["]: jsonpath`,
		`checks[0].expect.json["$.b"]: what must not exist can be nothing else`,
		`checks[0].expect.json["$.c"]: expects nothing`,
		`checks[0].expect.json["$.d"].matches: error parsing regexp`,
		`checks[0].expect.json["$.e"].equal: there is no such key`,
		"line 19: checks[0].expect.headers.Age: a header is a text",
		"line 20: checks[1]: expect is missing",
		"line 20: checks[1].name: another check has this name",
		`line 21: checks[1].needs[0]: no check before has the name "two"`,
		"line 22: checks[1].request.method: value must be one of 'GET'",
		"line 22: checks[1].request: a ${ has no }",
		"line 24: checks[1].retry.times: minimum: got 1, want 2",
		"line 24: checks[1].retry: a check with a cleanup is made once",
		"line 26: checks[1].cleanup[0].request: ${later} is no generator",
	}
	for _, one := range want {
		if !strings.Contains(err.Error(), one) {
			t.Errorf("not named: %s", one)
		}
	}
	if t.Failed() || strings.Count(err.Error(), "\n")+1 != len(want)+1 { // $.e expects nothing, too
		t.Errorf("named were %d:\n%s", strings.Count(err.Error(), "\n")+1, err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("a header's value is shown")
	}
}

func TestWhatIsNoSuite(t *testing.T) {
	t.Parallel()
	const good = "name: a\nchecks: [{name: x, request: {path: /}, expect: {status: 200}}]\n"
	if _, err := Read([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ yaml, says string }{
		"empty":         {"", "line 1: got null, want object"},
		"a list":        {"[]", "line 1: got array, want object"},
		"no YAML":       {"name: [", "it is not YAML: [1:7]"},
		"a key twice":   {good + "name: b\n", `mapping key "name" already defined`},
		"several":       {good + "---\n" + good, "several YAML documents"},
		"no alias":      {"name: *a", `could not find alias "a"`},
		"no number":     {"name: .nan", "what JSON does not know"},
		"too long":      {good + strings.Repeat("#", maxSuite), "at most"},
		"a wrong type":  {"name: a\nchecks: 7", "line 2: checks: got number, want array"},
		"status a text": {strings.Replace(good, "200", "OK", 1), "checks[0].expect.status: got string, want integer or array"},
		"no duration":   {strings.Replace(good, "200}", "200, within: soon}", 1), "within: 'soon' does not match pattern"},
		"number":        {strings.Replace(good, "200}", "200, within: 5}", 1), "within: got number, want string"},
	} {
		if _, err := Read([]byte(test.yaml)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %s", name, err, test.says)
		}
	}
}

func TestAFileIsNamedWithItsFaults(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "school.yaml")
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("name: a\nx: 1\ny: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadFile(path)
	if err == nil || strings.Count(err.Error(), "suite "+path+": line ") != 3 {
		t.Error(err)
	}
}

func TestTheBuiltInSuiteHasNoFault(t *testing.T) {
	t.Parallel()
	if s := Platform(); s.Name != "platform" || len(s.Checks) != 14 || !s.NeedsToken() {
		t.Errorf("%+v", s)
	}
}

func TestTheExampleOfTheDocumentationHasNoFault(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(docs), "```yaml\nname: school")
	example, _, found := strings.Cut("name: school"+after, "```")
	if s, err := Read([]byte(example)); err != nil || !found || len(s.Checks) != 2 {
		t.Errorf("%v: %s", err, example)
	}
}
