package conformance

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestTheCheckSees makes sure that the other tests would notice: each answer here lies in one way.
func TestTheCheckSees(t *testing.T) {
	t.Parallel()
	d, err := readDocument([]byte(`{"openapi": "3.1.0", "paths": {"/api/v1/pupils/{id}": {"get": {"operationId": "get-pupil", "responses": {
		"200": {"headers": {"ETag": {"required": true, "schema": {"type": "string"}}, "X-Count": {"schema": {"type": "integer"}},
			"X-Request-ID": {"schema": {"type": "string"}}}, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pupil"}}}},
		"204": {"headers": {"X-Request-ID": {"schema": {"type": "string"}}}},
		"503": {"headers": {"X-Request-ID": {"schema": {"type": "string"}}, "Retry-After": {"schema": {"type": "string"}}},
			"content": {"application/problem+json": {"schema": {"type": "object"}}}}}}}},
		"components": {"schemas": {"Pupil": {"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
			"name": {"type": "string", "maxLength": 5}, "born": {"type": "string", "format": "date"}, "seen": {"type": "string", "format": "date-time"},
			"version": {"type": "integer", "format": "int64"}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	const problem = `{"type":"https://api.school.com/problems/unavailable","title":"Unavailable","status":503,"detail":"later","instance":"/api/v1/pupils/7","requestId":"r"}`
	problemHeaders := "Content-Type: application/problem+json\nRetry-After: 2"
	for _, test := range []struct {
		status        int
		headers, body string
		want          string // within the one fault; empty for none
	}{
		{200, "", `{"name":"Asha","born":"2016-06-30","seen":"2016-06-30T10:00:00Z","version":9223372036854775807}`, ""},
		{200, "X-Count: 7", `{"name":"Asha"}`, ""},
		{201, "", `{"name":"Asha"}`, "does not document 201"},
		{200, "", `{"name":"Asha","more":1}`, "more"},
		{200, "", `{"name":"Asha","born":"2016-02-30"}`, "born"},
		{200, "", `{"name":"Asha","seen":"2016-06-30T10:00:00+05:30"}`, "UTC"},
		{200, "", `{"name":"Asha","version":9223372036854775808}`, "version"},
		{200, "", `{"name":"Ashalata"}`, "name"},
		{200, "", `{}`, "name"},
		{200, "", `{"name":"Asha"} {}`, "no application/json"},
		{200, "", "{\"name\":\"\xff\"}", "not UTF-8"},
		{200, "Content-Type: text/html", `{"name":"Asha"}`, "text/html"},
		{200, "ETag: ", `{"name":"Asha"}`, "ETag is missing"},
		{200, "X-Count: many", `{"name":"Asha"}`, "X-Count"},
		{200, "X-Secret: 1", `{"name":"Asha"}`, "X-Secret"},
		{200, "Cache-Control: public", `{"name":"Asha"}`, "no-store"},
		{200, "X-Request-ID: ", `{"name":"Asha"}`, "no X-Request-ID"},
		{204, "ETag: \nContent-Type: ", "", ""},
		{204, "ETag: \nContent-Type: ", "x", "where none is documented"},
		{503, problemHeaders + "\nETag: ", problem, ""},
		{503, problemHeaders + "\nETag: \nRetry-After: ", problem, "Retry-After"},
		{503, problemHeaders + "\nETag: ", strings.Replace(problem, "unavailable", "broken", 1), "public interface"},
		{503, problemHeaders + "\nETag: ", strings.Replace(problem, "503", "500", 1), "status 500"},
		{503, problemHeaders + "\nETag: ", strings.Replace(problem, `"r"`, `"other"`, 1), "request id"},
	} {
		a := answer{op: d.operations[0], method: http.MethodGet, url: &url.URL{Path: "/api/v1/pupils/7"}, status: test.status, body: []byte(test.body),
			header: http.Header{"Cache-Control": {"no-store"}, "Content-Type": {"application/json"}, "Etag": {`"1"`}, "X-Request-Id": {"r"}}}
		for line := range strings.SplitSeq(test.headers, "\n") {
			if name, value, _ := strings.Cut(line, ": "); value != "" {
				a.header.Set(name, value)
			} else {
				a.header.Del(name)
			}
		}
		faults := d.faults(a)
		if test.want == "" && len(faults) > 0 || test.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], test.want)) {
			t.Errorf("%d %s %s: faults %q, want %q", test.status, test.headers, test.body, faults, test.want)
		}
	}
}
