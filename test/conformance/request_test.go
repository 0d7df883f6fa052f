package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// request is a request that is being made up.
type request struct {
	op     *operation // what it was made for
	method string
	path   string // as sent: escaped
	query  string // as sent
	header http.Header
	token  string // names one of the service's
	body   []byte // nil for none
	// unannounced sends the body in chunks, without its length.
	unannounced bool
	// at is where it is sent; nil for the service that it was made for.
	at *service
	// cut, when set, sends all but the end of the body.
	cut cutShort
}

// newRequest is a request of an admin, with a JSON body if there is one.
func newRequest(method, path, body string) *request {
	r := &request{method: method, path: path, header: http.Header{}, token: string(identity.Admin)}
	if body != "" {
		r.header.Set("Content-Type", "application/json")
		r.body = []byte(body)
	}
	return r
}

// valid makes a request that the operation accepts, with what is required and no more.
func (s *service) valid(t *testing.T, op *operation) *request {
	t.Helper()
	r := newRequest(op.method, op.path, "")
	r.op = op
	query := url.Values{}
	for _, p := range op.Parameters {
		switch {
		case p.In == "path":
			r.path = strings.ReplaceAll(r.path, "{"+p.Name+"}", url.PathEscape(fmt.Sprint(s.sample(t, p.Name, p.Schema))))
		case p.In == "header" && (p.Required || p.Name == "If-Match"):
			r.header.Set(p.Name, fmt.Sprint(s.sample(t, p.Name, p.Schema)))
		case p.In == "query" && p.Required:
			query.Set(p.Name, fmt.Sprint(s.sample(t, p.Name, p.Schema)))
		}
	}
	r.query = query.Encode()
	for _, mediaType := range keys(op.RequestBody.Content)[:min(1, len(op.RequestBody.Content))] {
		content := op.RequestBody.Content[mediaType]
		r.header.Set("Content-Type", mediaType)
		if strings.HasSuffix(mediaType, "json") {
			r.body, _ = json.Marshal(s.sample(t, "", content.Schema))
		} else {
			r.body = []byte(fmt.Sprint(content.Example))
		}
	}
	if prepare := cases[op.ID].prepare; prepare != nil {
		prepare(t, s, r)
	}
	return r
}

// sample makes a value of a schema: what must be new or must exist is told by its name, the rest by the document.
func (s *service) sample(t *testing.T, name string, schema map[string]any) any {
	schema = s.resolve(schema)
	if from, ok := existing[name]; ok && s.named(from.operation) != nil {
		return s.create(t, from.operation, from.field)
	}
	if unique, ok := fresh[name]; ok {
		return fmt.Sprintf(unique, s.number.Add(1))
	}
	for _, known := range []string{"enum", "examples"} {
		if values, ok := schema[known].([]any); ok && len(values) > 0 {
			return values[0]
		}
	}
	for _, known := range []string{"const", "default", "minimum"} {
		if value, ok := schema[known]; ok {
			return value
		}
	}
	switch typeOf(schema) {
	case "object":
		object := map[string]any{}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			property, _ := properties[name.(string)].(map[string]any)
			object[name.(string)] = s.sample(t, name.(string), property)
		}
		return object
	case "array":
		return []any{}
	case "integer", "number":
		return 1
	case "boolean":
		return false
	}
	return "text"
}

// typeOf is the schema's type, the first that is not null.
func typeOf(schema map[string]any) string {
	switch named := schema["type"].(type) {
	case string:
		return named
	case []any:
		if i := slices.IndexFunc(named, func(v any) bool { return v != "null" }); i >= 0 {
			return fmt.Sprint(named[i])
		}
	}
	return ""
}

func (r *request) send(s *service) (*http.Response, error) {
	target := s.base + r.path
	if r.query != "" {
		target += "?" + r.query
	}
	var body io.Reader
	switch {
	case r.unannounced:
		body = io.MultiReader(bytes.NewReader(r.body))
	case r.body != nil:
		body = bytes.NewReader(r.body)
	}
	ctx := context.Background()
	if r.cut != "" {
		ctx = context.WithValue(ctx, cutShort(""), r.cut)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if token := s.tokens[r.token]; token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return s.client.Do(req)
}

// String is the request as curl would send it. The token's name stands for the token.
func (r *request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "curl -i --path-as-is -g -X %s %s", r.method, shellQuoted("http://SERVICE"+r.path+"?"+r.query))
	if r.token != "none" {
		fmt.Fprintf(&b, " -H 'Authorization: Bearer <%s>'", r.token)
	}
	for _, name := range keys(r.header) {
		for _, value := range r.header[name] {
			fmt.Fprintf(&b, " -H %s", shellQuoted(name+": "+value))
		}
	}
	if r.unannounced {
		b.WriteString(" -H 'Transfer-Encoding: chunked'")
	}
	if r.body != nil {
		fmt.Fprintf(&b, " --data-binary %s", shellQuoted(string(r.body)))
	}
	if r.cut != "" {
		b.WriteString(" # " + string(r.cut))
	}
	return b.String()
}

// shellQuoted writes a text as bash reads it. Only the beginning of a long one is shown: the seed has the rest.
func shellQuoted(text string) string {
	const most = 600 // bytes
	if len(text) > most {
		return shellQuoted(text[:most]) + fmt.Sprintf("…and so on, %d bytes", len(text))
	}
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\'' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return "$'" + b.String() + "'"
}

// cutShort sends all of a request but the last byte of its body, which net/http's client would not do.
type cutShort string

const (
	stalls    cutShort = "the body stalls before its last byte"
	breaksOff cutShort = "the body breaks off before its last byte"
)

func (how cutShort) RoundTrip(r *http.Request) (*http.Response, error) {
	whole, err := httputil.DumpRequestOut(r, true)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.URL.Host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(whole[:len(whole)-1]); err != nil {
		return nil, err
	}
	if how == breaksOff {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return nil, err
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, err
}
