// Package conformance holds the services to their own documents: every answer that a test here provokes is checked against the
// service's /openapi.json, every response that the document promises must be provoked, and thousands of generated requests may
// find nothing else. A new operation is covered as soon as it is in the document; what cannot be told from there is a line in
// cases_test.go.
package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is a service's /openapi.json, ready to check answers against.
type document struct {
	root       any
	schemas    map[string]any // of the components
	operations []*operation
	compiler   *jsonschema.Compiler
}

type operation struct {
	ID          string `json:"operationId"`
	Parameters  []parameter
	RequestBody struct{ Content map[string]*member }
	Responses   map[string]struct{ Headers, Content map[string]*member }

	method, path string
}

type parameter struct {
	Name, In string
	Required bool
	Schema   map[string]any
}

// member is a header or a body of one content type.
type member struct {
	Required bool
	Schema   map[string]any
	Example  any

	check *jsonschema.Schema
}

// address is what the compiler of schemas knows the document by.
const address = "https://document/openapi.json"

func readDocument(content []byte) (*document, error) {
	var parsed struct {
		Paths      map[string]map[string]*operation
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	d := &document{root: root, schemas: parsed.Components.Schemas, compiler: newCompiler()}
	if err := d.compiler.AddResource(address, root); err != nil {
		return nil, err
	}
	for path, methods := range parsed.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			d.operations = append(d.operations, op)
			for status, response := range op.Responses {
				for kind, members := range map[string]map[string]*member{"headers": response.Headers, "content": response.Content} {
					for name, m := range members {
						at := pointer("paths", path, method, "responses", status, kind, name, "schema")
						if m.check, err = d.schemaAt(at); err != nil {
							return nil, err
						}
					}
				}
			}
		}
	}
	slices.SortFunc(d.operations, func(a, b *operation) int { return strings.Compare(a.ID, b.ID) })
	return d, nil
}

// pointer is a JSON pointer (RFC 6901).
func pointer(steps ...string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	return b.String()
}

// schemaAt compiles the schema at a pointer into the document.
func (d *document) schemaAt(pointer string) (*jsonschema.Schema, error) {
	return d.compiler.Compile(address + "#" + strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D").Replace(pointer))
}

// resolve follows a reference to a component.
func (d *document) resolve(schema map[string]any) map[string]any {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		schema, _ = d.schemas[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any)
	}
}

// named finds an operation by its id.
func (d *document) named(id string) *operation {
	i := slices.IndexFunc(d.operations, func(op *operation) bool { return op.ID == id })
	if i < 0 {
		return nil
	}
	return d.operations[i]
}

// match finds the operation that a request is for, and the methods that its path takes. Words of a path go before parameters.
func (d *document) match(method, path string) (found *operation, methods []string) {
	most := -1
	for _, op := range d.operations {
		words, ok := op.matches(path)
		if ok && !slices.Contains(methods, op.method) {
			methods = append(methods, op.method)
		}
		if ok && op.method == method && words > most {
			most, found = words, op
		}
	}
	return found, methods
}

func (op *operation) matches(path string) (words int, ok bool) {
	have, want := strings.Split(path, "/"), strings.Split(op.path, "/")
	if len(have) != len(want) {
		return 0, false
	}
	for i, step := range want {
		switch {
		case step == have[i]:
			words++
		case !strings.HasPrefix(step, "{") || have[i] == "" && i == len(want)-1: // "a//b" is a/{empty}/b, "a/" is no a/{empty}
			return 0, false
		}
	}
	return words, true
}

func (op *operation) takes(in, name string) bool {
	return slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.In == in && strings.EqualFold(p.Name, name) })
}

// formats are those that the compiler asserts: its own, and those added here (OpenAPI 3.1, section 4.4).
var formats = map[string]func(any) error{
	"date": nil, "email": nil, "uri": nil, "uri-reference": nil, "uuid": nil,
	"int32": wholeNumber(32), "int64": wholeNumber(64), "date-time": utc,
	"double": func(v any) error {
		if n, ok := v.(json.Number); ok {
			_, err := n.Float64()
			return err
		}
		return nil
	},
}

func newCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for name, check := range formats {
		if check != nil {
			c.RegisterFormat(&jsonschema.Format{Name: name, Validate: check})
		}
	}
	return c
}

func wholeNumber(bits int) func(any) error {
	return func(v any) error {
		if n, ok := v.(json.Number); ok {
			_, err := strconv.ParseInt(n.String(), 10, bits)
			return err
		}
		return nil
	}
}

// utc holds what the documents say of times.
func utc(v any) error {
	text, ok := v.(string)
	if !ok {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		return fmt.Errorf("%q is not as RFC 3339 has it", text)
	}
	if !strings.HasSuffix(text, "Z") {
		return errors.New("not in UTC")
	}
	return nil
}
