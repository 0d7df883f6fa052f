package smoke

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theory/jsonpath"
)

// reserved are the headers that the runner sets itself.
var reserved = []string{"Authorization", "Host", "Content-Length", releaseHeader, positionHeader}

// suite adds what a schema cannot say.
func (f *faults) suite(s Suite) {
	known := map[string]bool{}
	for name, text := range s.Variables {
		f.references([]string{"variables", name}, text, nil)
		known[name] = true
	}
	var before []string
	for i, c := range s.Checks {
		at := place{"checks", strconv.Itoa(i)}
		if slices.Contains(before, c.Name) {
			f.add(at.key("name"), "another check has this name")
		}
		for n, need := range c.Needs {
			if !slices.Contains(before, need) {
				f.add(at.key("needs", strconv.Itoa(n)), "no check before has the name %q", need)
			}
		}
		before = append(before, c.Name)
		f.request(at.key("request"), c.Request, known)
		f.expect(at.key("expect"), c.Expect, known)
		f.capture(at.key("capture"), c.Capture, known)
		if c.Retry != nil {
			f.duration(at.key("retry", "pause"), c.Retry.Pause)
			if len(c.Cleanup) > 0 {
				f.add(at.key("retry"), "a check with a cleanup is made once: it might make several things")
			}
		}
		f.cleanup(at.key("cleanup"), c.Cleanup, maps.Clone(known)) // what it captures stays with it
	}
}

// place is keys and indexes from the root.
type place []string

func (p place) key(more ...string) place { return append(slices.Clone(p), more...) }

func (f *faults) cleanup(at place, steps []Step, known map[string]bool) {
	for i, step := range steps {
		f.request(at.key(strconv.Itoa(i), "request"), step.Request, known)
		f.capture(at.key(strconv.Itoa(i), "capture"), step.Capture, known)
	}
}

func (f *faults) request(at place, r Request, known map[string]bool) {
	f.references(at, r, known)
	for name := range r.Headers {
		if slices.ContainsFunc(reserved, func(h string) bool { return strings.EqualFold(h, name) }) {
			f.add(at.key("headers", name), "is set by the runner")
		}
	}
	if r.Body != nil && (r.Method == "" || r.Method == http.MethodGet || r.Method == http.MethodHead) {
		f.add(at.key("body"), "is not for a %s: say which method", orGet(r.Method))
	}
}

func (f *faults) expect(at place, e Expect, known map[string]bool) {
	f.references(at, e, known)
	if e.Within != 0 {
		f.duration(at.key("within"), e.Within)
	}
	for name, v := range e.Headers {
		f.value(at.key("headers", name), v)
		if v.Equals != nil && v.Equals[0] != '"' || v.Contains != nil || v.Type != "" || v.Min != nil || v.Max != nil {
			f.add(at.key("headers", name), "a header is a text: say equals with a text, matches or exists")
		}
	}
	for path, v := range e.JSON {
		f.path(at.key("json", path), path)
		f.value(at.key("json", path), v)
	}
}

func (f *faults) value(at place, v Value) {
	says := v.Equals != nil || v.Contains != nil || v.Matches != "" || v.Type != "" || v.Min != nil || v.Max != nil
	switch {
	case v.Exists == nil && !says:
		f.add(at, "expects nothing: say equals, contains, matches, type, min, max or exists")
	case v.Exists != nil && !*v.Exists && says:
		f.add(at, "what must not exist can be nothing else")
	}
	if _, err := regexp.Compile(reference.ReplaceAllString(v.Matches, "x")); err != nil {
		f.add(at.key("matches"), "%s", err)
	}
}

// capture takes what is captured as known from there on.
func (f *faults) capture(at place, all map[string]Source, known map[string]bool) {
	for name, source := range all {
		if source.Header == "" {
			f.references(at.key(name), source.Path, known)
			f.path(at.key(name), source.Path)
		}
	}
	for name := range all {
		known[name] = true
	}
}

func (f *faults) path(at place, path string) {
	if _, err := jsonpath.Parse(reference.ReplaceAllString(path, "x")); err != nil {
		f.add(at, "%s", err)
	}
}

func (f *faults) duration(at place, d Duration) {
	if d <= 0 || time.Duration(d) > requestTimeout {
		f.add(at, "%s is not above 0s and at most %s", time.Duration(d), requestTimeout)
	}
}

// references adds the ${…} in the strings of v that mean nothing.
func (f *faults) references(at place, v any, known map[string]bool) {
	if text := jsonText(v); strings.Count(text, "${") != len(reference.FindAllString(text, -1)) {
		f.add(at, "a ${ has no }")
	}
	for _, name := range referencesOf(v) {
		if _, generated := generate(name, time.Time{}); generated || known[name] {
			continue
		}
		if known == nil {
			f.add(at, "${%s} is no generator: those are random.letters(8), random.digits(8) and date(-10y-1d)", name)
		} else {
			f.add(at, "${%s} is no generator, no variable, and captured by no check before", name)
		}
	}
}

// referencesOf lists what the strings of v refer to, each once.
func referencesOf(v any) []string {
	var names []string
	for _, match := range reference.FindAllStringSubmatch(jsonText(v), -1) {
		if !slices.Contains(names, match[1]) {
			names = append(names, match[1])
		}
	}
	return names
}

func orGet(method string) string {
	if method == "" {
		return http.MethodGet
	}
	return method
}
