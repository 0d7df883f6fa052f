package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/school-sms/sms/api/server"
)

const problemType = "https://api.school.com/problems/"

// problemNames are those of the public interface.
var problemNames = []string{"validation-error", "invalid-age", "duplicate-mobile", "duplicate-setting", "not-found", "concurrent-update",
	"precondition-required", "unauthorized", "forbidden", "rate-limited", "payload-too-large", "conflict", "unavailable", "internal-error"}

// plainHeaders need not be documented: they belong to HTTP, Cache-Control is the same on every answer, and X-Sms-Route is for the
// gateway, which passes it on to nobody.
var plainHeaders = []string{"Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", server.RouteHeader}

// answer is what came back for a request.
type answer struct {
	op     *operation // nil where the document has none for the request
	method string
	url    *url.URL
	status int
	header http.Header
	body   []byte
}

// faults says everything in which the answer departs from the document.
func (d *document) faults(a answer) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	id := a.header.Get("X-Request-Id")
	if id == "" {
		fault("no X-Request-ID")
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" && strings.HasPrefix(a.url.Path, "/api/") {
		fault("Cache-Control %q, want no-store", got)
	}
	if a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == "" {
		fault("401 without WWW-Authenticate")
	}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status == http.StatusServiceUnavailable && (err != nil || seconds < 1) {
		fault("503 with Retry-After %q", a.header.Get("Retry-After"))
	}
	if a.status >= 400 && a.method != http.MethodHead {
		faults = append(faults, problemFaults(a)...)
	}
	if a.op == nil {
		return append(faults, d.strayFaults(a)...)
	}
	return append(faults, documentFaults(a)...)
}

// documentFaults compares the answer to what the document says of the operation's responses.
func documentFaults(a answer) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	promised, ok := a.op.Responses[strconv.Itoa(a.status)]
	if !ok {
		fault("%s does not document %d", a.op.ID, a.status)
		return faults
	}
	for name, header := range promised.Headers {
		values := a.header.Values(name)
		switch {
		case len(values) > 1:
			fault("header %s is given %d times", name, len(values))
		case len(values) == 1:
			if err := header.check.Validate(scalar(header.Schema, values[0])); err != nil {
				fault("header %s: %v", name, err)
			}
		case header.Required:
			fault("header %s is missing", name)
		}
	}
	for name := range a.header {
		documented := func(known string) bool { return http.CanonicalHeaderKey(known) == name }
		if !slices.Contains(plainHeaders, name) && !slices.ContainsFunc(keys(promised.Headers), documented) {
			fault("%s %d does not document the header %s", a.op.ID, a.status, name)
		}
	}
	sent := a.header.Get("Content-Type")
	if len(promised.Content) == 0 {
		if len(a.body) > 0 || sent != "" {
			fault("a body of type %q where none is documented", sent)
		}
		return faults
	}
	mediaType, _, _ := mime.ParseMediaType(sent)
	body, ok := promised.Content[mediaType]
	if !ok {
		fault("content type %q, documented are %q", sent, keys(promised.Content))
		return faults
	}
	value, err := decoded(mediaType, a.body)
	if err != nil {
		fault("the body is no %s: %v", mediaType, err)
	} else if err := body.check.Validate(value); err != nil {
		fault("the body: %v", err)
	}
	return faults
}

// decoded makes of a body what a schema can be checked against.
func decoded(mediaType string, body []byte) (any, error) {
	switch {
	case !utf8.Valid(body):
		return nil, fmt.Errorf("not UTF-8")
	case mediaType == "application/json" || strings.HasSuffix(mediaType, "+json"):
		return jsonschema.UnmarshalJSON(bytes.NewReader(body))
	case strings.HasPrefix(mediaType, "text/"):
		return string(body), nil
	}
	return nil, fmt.Errorf("a type that the tests cannot read: teach them in answer_test.go")
}

// scalar reads a header's value as its schema's type.
func scalar(schema map[string]any, value string) any {
	switch schema["type"] {
	case "integer", "number":
		if json.Valid([]byte(value)) {
			return json.Number(value)
		}
	case "boolean":
		return value == "true"
	}
	return value
}

// problemFaults checks what holds for every error answer.
func problemFaults(a answer) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		fault("content type %q of a problem", got)
	}
	var p struct {
		Type, Title, Detail, Instance, RequestID string
		Status                                   int
		Errors                                   []struct{ Field, Code, Detail string }
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		fault("no problem: %v", err)
		return faults
	}
	name, ok := strings.CutPrefix(p.Type, problemType)
	if !ok || !slices.Contains(problemNames, name) {
		fault("type %q is none of the public interface", p.Type)
	}
	if p.Status != a.status || p.Title == "" || p.Detail == "" {
		fault("status %d, title %q, detail %q", p.Status, p.Title, p.Detail)
	}
	if p.RequestID != a.header.Get("X-Request-Id") || p.Instance != a.url.EscapedPath() {
		fault("request id %q, instance %q", p.RequestID, p.Instance)
	}
	for _, e := range p.Errors {
		if e.Code == "" || e.Detail == "" {
			fault("an error with code %q and detail %q", e.Code, e.Detail)
		}
	}
	if a.status == http.StatusUnprocessableEntity && len(p.Errors) == 0 {
		fault("422 that names no fault")
	}
	if a.status == http.StatusInternalServerError && (p.Detail != "internal error" || len(p.Errors) > 0) {
		fault("500 that says more than \"internal error\"")
	}
	return faults
}

// strayFaults is for requests that the document has no operation for.
func (d *document) strayFaults(a answer) (faults []string) {
	_, methods := d.match(a.method, a.url.Path)
	want := http.StatusNotFound
	if len(methods) > 0 {
		want = http.StatusMethodNotAllowed
	}
	for _, method := range methods { // gin may name more: those of a sibling path that has a parameter
		if a.status == want && !slices.Contains(strings.Split(a.header.Get("Allow"), ", "), method) {
			faults = append(faults, fmt.Sprintf("Allow %q lacks %s", a.header.Get("Allow"), method))
		}
	}
	if a.status != want && a.status != http.StatusUnauthorized {
		faults = append(faults, fmt.Sprintf("status %d for what is not in the document, want %d", a.status, want))
	}
	if a.method == http.MethodHead && len(a.body) > 0 {
		faults = append(faults, "a body after HEAD")
	}
	return faults
}

func keys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
