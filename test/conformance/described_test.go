package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi/datamodel"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestDocuments holds each document against the OpenAPI Initiative's schema of OpenAPI 3.1 and its own examples against their schemas.
func TestDocuments(t *testing.T) {
	t.Parallel()
	const meta = "https://spec.openapis.org/oas/3.1/schema/2022-10-07"
	content, err := jsonschema.UnmarshalJSON(strings.NewReader(datamodel.OpenAPI31SchemaData))
	if err != nil {
		t.Fatal(err)
	}
	compiler := newCompiler()
	if err := compiler.AddResource(meta, content); err != nil {
		t.Fatal(err)
	}
	openAPI, err := compiler.Compile(meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range products {
		d := start(t, p, newCoverage()).document
		if err := openAPI.Validate(d.root); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		ids := map[string]bool{}
		for _, op := range d.operations {
			if op.ID == "" || ids[op.ID] {
				t.Errorf("%s: %s %s has the operation id %q, which must be there and be its own", p.name, op.method, op.path, op.ID)
			}
			ids[op.ID] = true
			for _, step := range strings.Split(op.path, "/") {
				if name := strings.Trim(step, "{}"); name != step && !op.takes("path", name) {
					t.Errorf("%s: %s does not describe the parameter %s", p.name, op.ID, name)
				}
			}
		}
		for _, wrong := range d.wrongValues(nil, d.root) {
			t.Errorf("%s: %s", p.name, wrong)
		}
	}
}

// wrongValues finds the examples and defaults that their own schemas refuse, and formats that are not asserted.
func (d *document) wrongValues(at []string, node any) (wrong []string) {
	switch node := node.(type) {
	case []any:
		for i, item := range node {
			wrong = append(wrong, d.wrongValues(append(at, fmt.Sprint(i)), item)...)
		}
	case map[string]any:
		inSchema := at
		if _, ok := node["schema"]; ok {
			inSchema = append(at, "schema")
		}
		var values []any
		for _, name := range []string{"example", "default"} {
			if value, ok := node[name]; ok {
				values = append(values, value)
			}
		}
		switch examples := node["examples"].(type) {
		case []any: // of JSON schema
			values = append(values, examples...)
		case map[string]any: // of OpenAPI
			for _, example := range examples {
				if example, ok := example.(map[string]any); ok {
					values = append(values, example["value"])
				}
			}
		}
		if format, ok := node["format"].(string); ok {
			if _, known := formats[format]; !known {
				wrong = append(wrong, fmt.Sprintf("%s: the format %q is not asserted: teach it to the tests in document_test.go", pointer(at...), format))
			}
		}
		if named := len(at) > 0 && (at[len(at)-1] == "properties" || at[len(at)-1] == "responses"); named { // its keys are names
			values = nil
		}
		for _, value := range values {
			if schema, err := d.schemaAt(pointer(inSchema...)); err != nil {
				wrong = append(wrong, err.Error())
			} else if err := schema.Validate(value); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: example or default %v: %v", pointer(at...), value, err))
			}
		}
		for name, child := range node {
			if name != "example" && name != "examples" && name != "default" || strings.HasSuffix(pointer(at...), "/properties") {
				wrong = append(wrong, d.wrongValues(append(at[:len(at):len(at)], name), child)...)
			}
		}
	}
	return wrong
}
