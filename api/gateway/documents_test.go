package gateway

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const studentDocument = `{"openapi":"3.1.0","paths":{
	"/api/v1/students":{"get":{"operationId":"search","responses":{"200":{"$ref":"#/components/schemas/Page"}}}},
	"/api/v1/configurations/evil":{"get":{}},
	"/internal":{"get":{}}},
	"components":{"schemas":{"Page":{"type":"object"},"Problem":{"type":"object"},"List":{"$ref":"#/components/schemas/Page"}},
		"securitySchemes":{"token":{"type":"http"}}}}`

const configurationDocument = `{"openapi":"3.1.0","paths":{
	"/api/v1/configurations/settings":{"get":{"operationId":"search","responses":{"200":{"$ref":"#/components/schemas/List"}}}}},
	"components":{"schemas":{"Page":{"type":"array"},"Problem":{"type":"object"},"List":{"$ref":"#/components/schemas/Page"}},
		"securitySchemes":{"token":{"type":"http"}}}}`

func TestMergedDocument(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, testConfig, "production")
	p.set("student-service", nil, newBackend(t, "s", "r", say(studentDocument)).Instance)
	p.set("configuration-service", nil, newBackend(t, "c", "r", say(configurationDocument)).Instance)
	p.await("student-service", 1)
	p.await("configuration-service", 1)

	got := p.do("", "GET", "/openapi.json", "")
	var merged struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components map[string]map[string]map[string]string
	}
	if err := json.Unmarshal([]byte(got.body), &merged); err != nil {
		t.Fatalf("%v: %s", err, got.body)
	}
	if paths := slices.Sorted(maps.Keys(merged.Paths)); strings.Join(paths, " ") != "/api/v1/configurations/settings /api/v1/students" {
		t.Errorf("paths %v", paths)
	}
	if id := merged.Paths["/api/v1/configurations/settings"]["get"].OperationID; id != "configuration_service_search" {
		t.Errorf("operation id %q", id)
	}
	schemas := merged.Components["schemas"]
	want := "List Page Problem configuration_service_List configuration_service_Page"
	if names := slices.Sorted(maps.Keys(schemas)); strings.Join(names, " ") != want {
		t.Errorf("schemas %v", names)
	}
	if ref := schemas["configuration_service_List"]["$ref"]; ref != "#/components/schemas/configuration_service_Page" {
		t.Errorf("reference %s", ref)
	}
	if !strings.Contains(got.body, `{"$ref":"#/components/schemas/configuration_service_List"}`) {
		t.Error("an operation still refers to the other service's schema")
	}

	var inYAML map[string]any
	text := p.do("", "GET", "/openapi.yaml", "").body
	if err := yaml.Unmarshal([]byte(text), &inYAML); err != nil || len(inYAML["paths"].(map[string]any)) != 2 {
		t.Errorf("%v: %s", err, text)
	}
	if got := p.do("", "GET", "/docs", ""); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if got := p.do("", "GET", "/openapi-3.0.json", ""); got.status != 404 {
		t.Errorf("%+v", got)
	}
}
