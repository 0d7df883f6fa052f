package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

var (
	seed     = flag.Uint64("seed", 20261123, "of the generated requests")
	requests = flag.Int("requests", 10_000, "how many requests are generated")
)

// callers send the generated requests side by side.
const callers = 8

// TestGeneratedRequests sends requests, valid and broken, made from the documents: none may be answered 5xx, and every answer
// must be one that the document promises.
func TestGeneratedRequests(t *testing.T) {
	t.Parallel()
	seen := newCoverage()
	var targets []target
	for _, p := range products {
		s := start(t, p, seen)
		for _, op := range s.operations {
			targets = append(targets, target{s, op, s.samples(t, op)})
		}
	}
	t.Logf("%d requests, seed %d: repeat with -seed and -requests", *requests, *seed)
	numbers := make(chan uint64)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for n := range numbers {
				g := generator{rand.New(rand.NewPCG(*seed, n))}
				to := targets[g.IntN(len(targets))]
				r := g.request(to)
				res, err := r.send(to.service)
				switch {
				case err != nil:
					t.Errorf("request %d: %v\n%s", n, err, r)
				case res.StatusCode >= 500:
					t.Errorf("request %d: %d\n%s", n, res.StatusCode, r)
				}
			}
		})
	}
	for n := range *requests {
		numbers <- uint64(n)
	}
	close(numbers)
	wg.Wait()
	for _, to := range targets {
		statuses := slices.Sorted(maps.Keys(seen.count[to.op.ID]))
		line := fmt.Sprintf("%-26s", to.op.ID)
		for _, status := range statuses {
			line += fmt.Sprintf(" %d×%d", status, seen.count[to.op.ID][status])
		}
		t.Log(line)
		if *requests >= 10_000 && (statuses[0] > 299 || statuses[len(statuses)-1] < 400) {
			t.Errorf("%s was answered %v only: the generator does not reach it", to.op.ID, statuses)
		}
	}
}

// target is an operation and requests that it accepts, once each.
type target struct {
	service *service
	op      *operation
	valid   []*request
}

const samplesEach = 40

func (s *service) samples(t *testing.T, op *operation) []*request {
	valid := make([]*request, samplesEach)
	for i := range valid {
		valid[i] = s.valid(t, op)
		if also := cases[op.ID].also; len(also) > 0 && i%2 == 1 {
			also[i/2%len(also)](t, s, valid[i])
		}
	}
	return valid
}

type generator struct{ *rand.Rand }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

// request is one that the target accepts, or has accepted, with some changes, or none.
func (g generator) request(to target) *request {
	r := *pick(g, to.valid)
	r.header = r.header.Clone()
	if g.chance(25) {
		r.token = pick(g, []string{"clerk", "viewer", "operator", "none", "garbage", "expired", "forged"})
	}
	changes := []func(target, *request){g.changeQuery, g.changeQuery, g.changeHeader, g.changePath, g.changeMethod}
	if r.isJSON() {
		changes = append(changes, g.changeFields, g.changeFields, g.changeFields, g.changeFields, g.changeFields, g.changeBody)
	} else {
		changes = append(changes, g.changeQuery, g.changeQuery, g.changeText)
	}
	for range pick(g, []int{0, 1, 1, 1, 1, 2, 2, 3, 5}) {
		pick(g, changes)(to, &r)
	}
	return &r
}

func (g generator) changeMethod(_ target, r *request) {
	r.method = pick(g, []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodTrace, "BREW"})
}

// changePath puts something odd in the place of one step of the path, or adds one.
func (g generator) changePath(_ target, r *request) {
	steps := strings.Split(r.path, "/")
	i := len(steps) - 1 - g.IntN(min(3, len(steps)-1))
	odd := []string{"", ".", "..", "%00", "%ff%fe", "%2F", "%2e%2e", "%25", "a%20b", "%F0%9F%98%80", ";a=b", "0", "-1", "1", "9223372036854775807",
		"9223372036854775808", "1e3", "1.0", "STU-2026-00001", "stu-2026-00001", "STU-2026-999999999999999999999", "statistics", "status", "history",
		"settings", "category", "ACADEMIC", strings.Repeat("x", 5000), steps[i] + "%0A", steps[i] + "%2Fhistory", strings.ToLower(steps[i])}
	if g.chance(70) {
		steps[i] = pick(g, odd)
	} else {
		steps = slices.Insert(steps, i, pick(g, odd))
	}
	if r.path = strings.Join(steps, "/"); strings.HasPrefix(r.path, "//") { // which would name a host
		r.path = "/api" + r.path
	}
}

// changeQuery adds a parameter: one of the operation's with a value around its bounds, one twice, or one that there is not.
func (g generator) changeQuery(to target, r *request) {
	parameters := slices.DeleteFunc(slices.Clone(to.op.Parameters), func(p parameter) bool { return p.In != "query" })
	name, value := pick(g, []string{"x", "", "%00", "page", "size", "sort", "Status", "a[b]", "%F0%9F%98%80"}), url.QueryEscape(g.text())
	if len(parameters) > 0 && g.chance(85) {
		p := pick(g, parameters)
		name = p.Name
		value = url.QueryEscape(plain(g.value(to.service, p.Name, p.Schema)))
	}
	added := pick(g, []string{name + "=" + value, name + "=" + value, name + "=" + value, name + "=" + value, name, name + "=", name + "=%zz", name + "=a;b",
		name + "=" + value + "&" + name + "=" + url.QueryEscape(g.text())})
	r.query = strings.Trim(r.query+"&"+added, "&")
}

// changeHeader sets a header of the operation, or one that means something to HTTP or to the platform.
func (g generator) changeHeader(to target, r *request) {
	headers := slices.DeleteFunc(slices.Clone(to.op.Parameters), func(p parameter) bool { return p.In != "header" })
	if len(headers) > 0 && g.chance(30) {
		p := pick(g, headers)
		r.header.Set(p.Name, printable(plain(g.value(to.service, p.Name, p.Schema))))
		return
	}
	name := pick(g, []string{"If-Match", "If-Match", "If-None-Match", "Idempotency-Key", "X-Request-ID", "Traceparent", "Accept", "Content-Type",
		"Content-Type", "Content-Encoding", "Accept-Encoding", "Range", "X-SMS-Synthetic", "X-User-Role", "Cookie", "Accept-Language"})
	values := map[string][]string{
		"If-Match":        {`"1"`, `"2"`, `"3"`, `"0"`, `"-1"`, "*", `W/"1"`, `"1", "2"`, "1", `""`, `"`, `"9223372036854775808"`},
		"If-None-Match":   {`"1"`, "*", `W/"1"`},
		"Idempotency-Key": {"key-1", "key-2", "", "a b", `"quoted"`, strings.Repeat("k", 300)},
		"Traceparent":     {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-0-0-0", "ff"},
		"Accept": {"application/json", "application/xml", "text/html", "*/*", "application/json;q=0", "application/cbor", "application/problem+json",
			"text/csv", "nonsense", "a/b;q=x"},
		"Content-Type": {"application/json; charset=utf-8", "application/json; charset=utf-16", "application/merge-patch+json", "text/plain", "text/csv", "x",
			"", "application/cbor", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "application/json;;", "+json"},
		"Content-Encoding": {"gzip", "identity"}, "Accept-Encoding": {"gzip", "br;q=1", "identity;q=0"}, "Range": {"bytes=0-1"},
		"X-SMS-Synthetic": {"true", "false", "yes", "TRUE", ""}, "X-User-Role": {"admin"},
	}[name]
	r.header.Set(name, pick(g, append(values, g.headerText())))
	if g.chance(10) {
		r.header.Add(name, g.headerText())
	}
	if g.chance(10) {
		r.header.Del(name)
	}
}

// headerText is text that may stand in a header.
func (g generator) headerText() string {
	return printable(pick(g, []string{g.text(), "x", "true", "1", strings.Repeat("h", 2000), "a,b;c=d", "${jndi:ldap://x}", "%00"}))
}

// printable leaves out control characters, which no header may hold.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, text[:min(2000, len(text))])
}

// plain is a JSON value as a query or header has it: without quotes.
func plain(value any) string {
	switch value := value.(type) {
	case raw:
		return strings.Trim(string(value), `"`)
	case object:
		return string(value.encode())
	}
	return fmt.Sprint(value)
}

// changeFields changes the fields of the body, as its schema suggests.
func (g generator) changeFields(to target, r *request) {
	if object, ok := fieldsOf(r.body); ok {
		content := to.op.RequestBody.Content[r.header.Get("Content-Type")]
		var schema map[string]any
		if content != nil {
			schema = to.service.resolve(content.Schema)
		}
		r.body = g.changeObject(to.service, schema, object).encode()
	}
}

// changeBody spoils the body as a whole.
func (g generator) changeBody(_ target, r *request) {
	deep := pick(g, []int{50, 5_000, 20_000})
	whole := string(r.body)
	r.body = []byte(pick(g, []string{"", " ", "null", "true", "0", `""`, "[]", "{}", "[{}]", "{", `{"a"}`, "\xef\xbb\xbf" + whole, whole + "x", whole + whole,
		whole[:g.IntN(len(whole)+1)], strings.Repeat("[", deep), strings.Repeat(`{"a":`, deep), strings.Repeat("[", deep) + strings.Repeat("]", deep),
		`{"firstName":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}", "\xff\xfe{\x00}\x00", strings.ReplaceAll(whole, `"`, "'"), "// x\n" + whole,
		whole + strings.Repeat(" ", 2*maxBodyBytes), strings.ReplaceAll(whole, "a", "\xff"), strings.ReplaceAll(whole, "a", "\x00"),
		strings.ReplaceAll(whole, "a", `\u0061`), "NaN", "-", "1e999", `{"":""}`, "{}{}", "\x1f\x8b\x08\x00"}))
	r.unannounced = g.chance(20)
}

// changeText changes a few bytes of a body that is no JSON, or gives a body to a request that has none.
func (g generator) changeText(_ target, r *request) {
	body := bytes.Clone(r.body)
	for range 1 + g.IntN(5) {
		at := g.IntN(len(body) + 1)
		body = slices.Concat(body[:at], []byte(pick(g, []string{"", ",", ";", "\n", "\r\n", "\"", "\x00", "\xff", "\t", "é", g.text()})), body[min(len(body), at+g.IntN(3)):])
	}
	if g.chance(5) {
		body = append(body, bytes.Repeat([]byte("x\n"), maxBodyBytes)...)
	}
	r.body, r.unannounced = body, g.chance(20)
}

// text is a text that has been trouble somewhere.
func (g generator) text() string {
	return pick(g, []string{"", " ", "a", "Asha", "\x00", "a\x00b", "\n", "\u202e", "\u200b", "e\u0301", "\ufeff", "\U0001f600", "\U0010ffff", "\xff", "\xc3\x28",
		"'; drop table student; --", "%", "_", "\\", "%s%n", "<script>", "null", "true", "0", "-1", "1.5", "2016-06-30", "9876543210", "ACTIVE", "createdAt,desc",
		"STU-2026-00001", strings.Repeat("x", 51), strings.Repeat("\u0301", 300), strings.Repeat("é", 3000), "Аша", "आशा", "\u0660\u0661"})
}
