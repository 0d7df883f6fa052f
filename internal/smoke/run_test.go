package smoke

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// suite reads a suite that must have no fault.
func suite(t *testing.T, yaml string) Suite {
	t.Helper()
	s, err := Read([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// system is what is tested. It keeps things by their path, and remembers what was asked.
type system struct {
	*httptest.Server

	mu     sync.Mutex
	asked  []string
	last   http.Header
	things map[string]string
	// answers to "METHOD path", before all else.
	answers map[string]http.HandlerFunc
}

func newSystem(t *testing.T, answers map[string]http.HandlerFunc) *system {
	t.Helper()
	s := &system{things: map[string]string{}, answers: answers}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *system) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := r.Method + " " + r.URL.RequestURI()
	s.asked, s.last = append(s.asked, asked), r.Header
	if answer := s.answers[asked]; answer != nil {
		answer(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	switch r.Method {
	case http.MethodPost:
		path := fmt.Sprintf("%s/%d", r.URL.Path, len(s.things)+1)
		s.things[path] = string(body)
		w.Header().Set("ETag", `"1"`)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id": %d}`, len(s.things))
	case http.MethodPut:
		s.things[r.URL.Path] = string(body)
	case http.MethodDelete:
		if _, there := s.things[r.URL.Path]; !there {
			w.WriteHeader(http.StatusNotFound)
		}
		delete(s.things, r.URL.Path)
	default:
		fmt.Fprint(w, s.things[r.URL.Path])
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// results is a line for each check.
func results(r Report) string {
	var b strings.Builder
	for _, c := range r.Checks {
		switch {
		case c.OK:
			fmt.Fprintf(&b, "%s: ok\n", c.Name)
		case c.LeftOut != "":
			fmt.Fprintf(&b, "%s: left out: %s\n", c.Name, c.LeftOut)
		default:
			fmt.Fprintf(&b, "%s: expected %s, found %s\n", c.Name, c.Expected, c.Found)
		}
	}
	return b.String()
}

func expect(t *testing.T, r Report, lines ...string) {
	t.Helper()
	if diff := cmp.Diff(strings.Join(lines, "\n")+"\n", results(r)); diff != "" {
		t.Error(diff)
	}
	if r.Passed == strings.Contains(results(r), ": expected ") {
		t.Errorf("passed is %v", r.Passed)
	}
}

func TestExpectations(t *testing.T) {
	t.Parallel()
	const body = `{"name": "Meera", "age": 12, "none": null, "tags": ["a", "b"], "address": {"city": "Pune", "pin": "411001"}}`
	s := newSystem(t, map[string]http.HandlerFunc{
		"GET /meera": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"7"`)
			fmt.Fprint(w, body)
		},
		"GET /problem": says(409, `{"title": "Conflict", "detail": "Meera is there"}`),
		"GET /text":    says(200, "Meera"),
		"GET /broken":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	})
	for _, test := range []struct{ path, expect, want string }{
		{"/meera", "{status: 200}", ""},
		{"/meera", "{status: [201, 204]}", "status 201 or 204|status 200"},
		{"/problem", "{status: 200}", "status 200|status 409 (Conflict)"},
		{"/broken", "{status: 200}", "an answer|the connection broke off"},
		{"/text", "{status: 200, json: {$: {exists: true}}}", "a body of JSON|another"},
		{"/meera", "{status: 200, within: 10s}", ""},

		{"/meera", `{status: 200, headers: {ETag: '"7"'}}`, ""},
		{"/meera", `{status: 200, headers: {ETag: '"8"'}}`, `header ETag "\"8\""|another value`},
		{"/meera", `{status: 200, headers: {etag: {matches: '^"[0-9]+"$'}}}`, ""},
		{"/meera", `{status: 200, headers: {ETag: {matches: '^x', public: true}}}`, `header ETag matching ^x|"\"7\""`},
		{"/meera", `{status: 200, headers: {Location: {exists: true}}}`, "header Location|nothing"},
		{"/meera", `{status: 200, headers: {ETag: {exists: false}}}`, "no header ETag|another value"},

		{"/meera", "{status: 200, json: {$.name: Meera, $.age: 12, $.none: null, \"$['address'].city\": Pune}}", ""},
		{"/meera", "{status: 200, json: {$.name: Leela}}", `$.name "Leela"|another value`},
		{"/meera", "{status: 200, json: {$.name: {equals: Leela, public: true}}}", `$.name "Leela"|"Meera"`},
		{"/meera", `{status: 200, json: {$.age: "12"}}`, `$.age "12"|another value`},
		{"/meera", "{status: 200, json: {$.age: null}}", `$.age null|another value`},
		{"/meera", "{status: 200, json: {$.nobody: null}}", `$.nobody null|nothing`},
		{"/meera", "{status: 200, json: {$.tags: {equals: [a, b]}, $.address: {equals: {city: Pune, pin: '411001'}}}}", ""},
		{"/meera", "{status: 200, json: {$.tags: {equals: [b, a], public: true}}}", `$.tags ["b","a"]|["a","b"]`},
		{"/meera", "{status: 200, json: {$: {contains: {age: 12, address: {city: Pune}}}}}", ""},
		{"/meera", "{status: 200, json: {$: {contains: {age: 12, address: {city: Nagpur}}}}}", `$.address.city "Nagpur"|another value`},
		{"/meera", "{status: 200, json: {$: {contains: {surname: Rao}}}}", `$.surname "Rao"|nothing`},
		{"/meera", "{status: 200, json: {$.name: {contains: {a: 1}}}}", `$.name of type object|another value`},
		{"/meera", "{status: 200, json: {$.name: {matches: ^Me}}}", ""},
		{"/meera", "{status: 200, json: {$.age: {matches: '12'}}}", "$.age matching 12|another value"},
		{"/meera", "{status: 200, json: {$.age: {min: 12, max: 12}}}", ""},
		{"/meera", "{status: 200, json: {$.age: {min: 13, public: true}}}", "$.age at least 13|12"},
		{"/meera", "{status: 200, json: {$.age: {max: 1.5}}}", "$.age at most 1.5|another value"},
		{"/meera", "{status: 200, json: {$.name: {min: 1}}}", "$.name at least 1|another value"},
		{"/meera", "{status: 200, json: {$.tags: {type: array}, $.none: {type: 'null'}, $.address: {type: object}}}", ""},
		{"/meera", "{status: 200, json: {$.tags: {type: object}}}", "$.tags of type object|one of type array"},
		{"/meera", "{status: 200, json: {'$.tags[*]': {exists: true}, $.none: {exists: true}, $.x: {exists: false}}}", ""},
		{"/meera", "{status: 200, json: {'$.tags[*]': a}}", `$.tags[*] "a"|2 values`},
		{"/meera", "{status: 200, json: {$.name: {exists: false}}}", "no $.name|another value"},
		{"/meera", "{status: 200, json: {$.x: {exists: true}}}", "$.x|nothing"},
	} {
		report := Runner{Target: Target{URL: s.URL}}.Run(t.Context(), suite(t, "name: s\nchecks:\n- name: c\n  request: {path: "+test.path+"}\n  expect: "+test.expect))
		c := report.Checks[0]
		if c.OK != (test.want == "") || !c.OK && c.Expected+"|"+c.Found != test.want {
			t.Errorf("%s %s: %s, want %s", test.path, test.expect, results(report), test.want)
		}
	}
	slow := Runner{Target: Target{URL: s.URL + "/"}}.Run(t.Context(), suite(t, "name: s\nchecks: [{name: c, request: {path: /meera}, expect: {status: 200, within: 1ns}}]"))
	if c := slow.Checks[0]; c.Expected != "an answer within 1ns" || !strings.HasPrefix(c.Found, "one after ") {
		t.Error(results(slow))
	}
	away := Runner{Target: Target{URL: "http://127.0.0.1:1"}}.Run(t.Context(), suite(t, "name: s\nchecks: [{name: c, request: {path: /}, expect: {status: 200}}]"))
	expect(t, away, "c: expected an answer, found no connection: connect: connection refused")
}

func TestWhatIsCapturedIsUsed(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]http.HandlerFunc{
		"POST /things": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"3"`)
			w.Header().Set(positionHeader, "0/17")
			fmt.Fprint(w, `{"id": "a b/c", "number": 7, "of": {"it's": {"n": 1}}, "list": ["x"], "quote": "it's \"so\""}`)
		},
	})
	r := Runner{Target: Target{URL: s.URL, Token: "secret"}}.Run(t.Context(), suite(t, `
name: s
variables: {made: "m${random.digits(3)}", born: "${date(+1y-2m)}"}
checks:
  - name: make
    request: {method: POST, path: /things, body: {}}
    expect: {status: 200}
    capture: {id: $.id, number: $.number, list: $.list, tag: {header: ETag}, key: "$.list[0]", quote: "$.quote"}
  - name: use
    request: {method: PUT, path: "/things/${id}?q=${id}&b=${born}", headers: {If-Match: "${tag}"}, body: {n: "${number}", t: "n=${number}", l: ["${list}"], m: "${made}"}}
    expect: {status: 200}
  - name: nobody
    request: {path: /anonymous, anonymous: true}
    expect: {status: 200}
  - name: too much
    request: {method: POST, path: /things, body: {}}
    expect: {status: 200, json: {"$.list['${key}']": {exists: false}, "$.number": "${number}", "$.id": {matches: "^${id}$"}}}
    capture: {all: "$.*"}
  - name: in single quotes
    request: {method: POST, path: /things, body: {}}
    expect: {status: 200, json: {"$['${quote}']": {exists: false}}}
  - name: in double quotes
    request: {method: POST, path: /things, body: {}}
    expect: {status: 200, json: {'$["${quote}"]': {exists: false}}}
  - name: without it
    request: {path: "/${all}"}
    expect: {status: 200}
`))
	expect(t, r, "make: ok", "use: ok", "nobody: ok", "too much: expected one value at $.*, found nothing to capture there",
		"in single quotes: ok", `in double quotes: expected $["${quote}"], found a variable's value that breaks the path: put the variable in single quotes`,
		"without it: left out: nothing was captured for all")
	if s.last.Get("Authorization") != "Bearer secret" || s.last.Get(positionHeader) != "0/17" {
		t.Error("the last request had no token, or not the position of the write before")
	}
	if len(s.asked) != 6 || !strings.HasPrefix(s.asked[1], "PUT /things/a%20b%2Fc?q=a+b%2Fc&b=20") {
		t.Errorf("asked %q", s.asked)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(s.things["/things/a b/c"]), &body); err != nil {
		t.Fatal(err)
	}
	made, _ := body["m"].(string)
	delete(body, "m")
	if diff := cmp.Diff(map[string]any{"n": 7.0, "t": "n=7", "l": []any{[]any{"x"}}}, body); diff != "" || len(made) != 4 || made[0] != 'm' {
		t.Errorf("%s %s", made, diff)
	}
}

func TestNoTokenForTheAnonymous(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	one := suite(t, "name: s\nchecks: [{name: c, request: {path: /, anonymous: true}, expect: {status: 200}}]")
	expect(t, Runner{Target: Target{URL: s.URL, Token: "secret"}}.Run(t.Context(), one), "c: ok")
	if s.last.Get("Authorization") != "" || one.NeedsToken() {
		t.Error("a token was sent")
	}
}

func TestChecksThatAreLeftOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]http.HandlerFunc{"GET /down": says(503, "")})
	all := suite(t, `
name: s
checks:
  - {name: a, request: {path: /down}, expect: {status: 200}}
  - {name: b, needs: [a], request: {path: /}, expect: {status: 200}}
  - {name: c, needs: [b], request: {path: /}, expect: {status: 200}}
  - {name: d, environments: [production], request: {path: /down}, expect: {status: 200}}
  - {name: e, needs: [d], request: {path: /}, expect: {status: 200}}
`)
	r := Runner{Target: Target{URL: s.URL, Environment: "staging"}}.Run(t.Context(), all)
	expect(t, r, "a: expected status 200, found status 503", "b: left out: it needs that a", "c: left out: it needs that b", "e: ok")
	if r.Summary() != "1 of 4 checks failed, 2 left out. a: expected status 200, found status 503." {
		t.Error(r.Summary())
	}
	r = Runner{Target: Target{URL: s.URL, Environment: "production"}}.Run(t.Context(), all)
	expect(t, r, "a: expected status 200, found status 503", "b: left out: it needs that a", "c: left out: it needs that b",
		"d: expected status 200, found status 503", "e: left out: it needs that d")
}

func TestRetry(t *testing.T) {
	t.Parallel()
	times := 0
	s := newSystem(t, map[string]http.HandlerFunc{"GET /late": func(w http.ResponseWriter, _ *http.Request) {
		if times++; times%3 != 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}})
	retried := func(n int) Suite {
		return suite(t, fmt.Sprintf("name: s\nchecks: [{name: c, request: {path: /late}, expect: {status: 200}, retry: {times: %d, pause: 1ms}}]", n))
	}
	expect(t, Runner{Target: Target{URL: s.URL}}.Run(t.Context(), retried(3)), "c: ok")
	expect(t, Runner{Target: Target{URL: s.URL}}.Run(t.Context(), retried(2)), "c: expected status 200, found status 503")
	if times != 5 {
		t.Errorf("asked %d times", times)
	}
}

func TestAReleaseMustAnswer(t *testing.T) {
	t.Parallel()
	s := newSystem(t, map[string]http.HandlerFunc{
		"GET /old":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(releaseHeader, "sha256:old") },
		"GET /failed": says(503, ""),
		"GET /new": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(releaseHeader, r.Header.Get(releaseHeader))
		},
	})
	r := Runner{Target: Target{URL: s.URL, Service: "students", Release: "sha256:new"}}.Run(t.Context(), suite(t, `
name: s
checks:
  - {name: old, service: students, request: {path: /old}, expect: {status: 200}}
  - {name: new, service: students, request: {path: /new}, expect: {status: 200}}
  - {name: failed, service: students, request: {path: /failed}, expect: {status: 200}}
  - {name: other, service: settings, request: {path: /old}, expect: {status: 200}}
`))
	expect(t, r, "old: expected an answer of release sha256:new, found one of sha256:old", "new: ok", "failed: expected status 200, found status 503", "other: ok")
}

const twoThings = `
name: s
variables: {name: "n${random.letters(4)}"}
checks:
  - name: first
    request: {method: POST, path: /things, body: {a: 1}}
    expect: {status: 201}
    capture: {one: $.id, secret: {header: ETag}}
    cleanup:
      - {request: {path: "/things/${one}"}}
      - {request: {method: DELETE, path: "/things/${one}"}}
  - name: second
    request: {method: PUT, path: /named, body: {b: "${secret}"}}
    expect: {status: 200}
    cleanup: [{request: {method: DELETE, path: /named}}]
  - {name: third, request: {path: /last}, expect: {status: 418}}
`

func TestCleanup(t *testing.T) {
	t.Parallel()
	tidy := []string{"POST /things", "PUT /named", "GET /last", "DELETE /named", "GET /things/1", "DELETE /things/1"}
	run := func(s *system, ctx context.Context) (r Report, kept []string) {
		t.Helper()
		r = Runner{Target: Target{URL: s.URL}, Keep: func(left []Leftover) {
			raw, err := json.Marshal(left)
			if err != nil {
				t.Error(err)
			}
			kept = append(kept, string(raw))
		}}.Run(ctx, suite(t, twoThings))
		return r, kept
	}

	s := newSystem(t, nil)
	r, kept := run(s, t.Context())
	expect(t, r, "first: ok", "second: ok", "third: expected status 418, found status 200")
	if !slices.Equal(s.asked, tidy) || len(s.things) != 0 {
		t.Errorf("asked %q, left %v", s.asked, s.things)
	}
	const first, second = `{"suite":"s","check":"first","values":{"one":1}}`, `{"suite":"s","check":"second","values":{}}`
	if diff := cmp.Diff([]string{"[" + first + "]", "[" + first + "," + second + "]", "[" + first + "]", "[]"}, kept); diff != "" {
		t.Error(diff)
	}

	ctx, cancel := context.WithCancel(t.Context())
	s = newSystem(t, map[string]http.HandlerFunc{"GET /last": func(http.ResponseWriter, *http.Request) { cancel() }})
	run(s, ctx)
	if !slices.Equal(s.asked, tidy) || len(s.things) != 0 {
		t.Errorf("cancelled: asked %q, left %v", s.asked, s.things)
	}

	// Refused: what is there under the name is somebody else's.
	s = newSystem(t, map[string]http.HandlerFunc{"PUT /named": says(409, "")})
	s.things["/named"] = "mine"
	run(s, t.Context())
	if s.things["/named"] != "mine" || len(s.things) != 1 {
		t.Errorf("refused: left %v", s.things)
	}

	// No answer: it may be there.
	s = newSystem(t, map[string]http.HandlerFunc{"PUT /named": says(500, "")})
	s.things["/named"] = "of the run"
	run(s, t.Context())
	if len(s.things) != 0 {
		t.Errorf("failed: left %v", s.things)
	}

	s = newSystem(t, map[string]http.HandlerFunc{"DELETE /named": says(500, ""), "GET /last": says(418, "")})
	r, _ = run(s, t.Context())
	expect(t, r, "first: ok", "second: ok", "third: ok", "cleaned up after: second: expected status 2xx, 404 or 410, found status 500")
	if len(s.things) != 1 {
		t.Errorf("left %v", s.things)
	}
}

// Of two releases one answers nothing: which of them is tested does not matter.
func TestCleanupGoesToTheReleaseThatWorks(t *testing.T) {
	t.Parallel()
	for name, works := range map[string]string{"the tested one": "sha256:new", "another": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *system
			s = newSystem(t, map[string]http.HandlerFunc{"DELETE /named": func(w http.ResponseWriter, r *http.Request) {
				if asked := r.Header.Get(releaseHeader); asked != works {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.Header().Set(releaseHeader, works)
				delete(s.things, "/named")
			}})
			r := Runner{Target: Target{URL: s.URL, Service: "a", Release: "sha256:new"}}.Run(t.Context(), suite(t, `
name: s
checks:
  - {name: c, service: a, request: {method: PUT, path: /named, body: {b: 1}}, expect: {status: 418}, cleanup: [{request: {method: DELETE, path: /named}}]}`))
			if len(r.Checks) != 1 || len(s.things) != 0 {
				t.Errorf("left %v: %+v", s.things, r.Checks)
			}
		})
	}
}

func TestWhatADeadRunHasLeftIsCleanedUpFirst(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.things["/things/9"] = "left"
	left := []Leftover{{"s", "first", map[string]any{"one": 9.0}}, {"s", "gone", nil}, {"s", "second", map[string]any{}}}
	var now []Leftover
	r := Runner{Target: Target{URL: s.URL}, Left: left, Keep: func(l []Leftover) { now = l }}.Run(t.Context(), suite(t, twoThings))
	expect(t, r, "cleaned up after: gone: expected a cleanup in the suite, found none: it has been changed since", "first: ok", "second: ok",
		"third: expected status 418, found status 200")
	if !slices.Equal(s.asked[:4], []string{"DELETE /named", "GET /things/9", "DELETE /things/9", "POST /things"}) || len(s.things)+len(now) != 0 {
		t.Errorf("asked %q, left %v %v", s.asked, s.things, now)
	}
}

func TestARunEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := newSystem(t, map[string]http.HandlerFunc{"GET /": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	}})
	// Each of the pauses would outlast the test's own limit together.
	r := Runner{Target: Target{URL: s.URL}}.Run(ctx, suite(t, "name: s\nchecks: [{name: c, request: {path: /}, expect: {status: 200}, retry: {times: 100, pause: 10s}}]"))
	if len(s.asked) != 1 || r.Passed {
		t.Errorf("asked %d times", len(s.asked))
	}

	late, stop := context.WithTimeout(t.Context(), 0)
	defer stop()
	expect(t, Runner{Target: Target{URL: s.URL}}.Run(late, suite(t, "name: s\nchecks: [{name: c, request: {path: /}, expect: {status: 200}}]")),
		"c: expected time for it, found none: a run may take 2m30s")
}
