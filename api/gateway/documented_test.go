package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTheDocumentTellsOfTheDoor(t *testing.T) {
	t.Parallel()
	const problem = `{"application/problem+json":{"schema":{"$ref":"#/components/schemas/Problem"}}}`
	cfg := testConfig
	cfg.Door = DoorConfig{UserRate: 500, UserBurst: 1000, LimitedClients: 1000}
	p := newPlatform(t, cfg, "staging")
	p.set("student-service-staging", nil, newBackend(t, "s", "r", say(`{"openapi":"3.1.0","paths":{"/api/v1/students":{
		"get":{"responses":{"200":{"description":"OK"},"503":{"description":"away","content":`+problem+`}}},"parameters":[]}},
		"components":{"schemas":{"Problem":{"type":"object"}}}}`)).Instance)
	p.await("student-service", 1)
	got := p.do("", "GET", "/openapi.json", "")
	var read struct {
		Info  struct{ Description string }
		Paths map[string]struct {
			Get struct {
				Responses map[string]struct {
					Headers map[string]any
					Content json.RawMessage
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(got.body), &read); err != nil {
		t.Fatalf("%v: %s", err, got.body)
	}
	limited := read.Paths["/api/v1/students"].Get.Responses["429"]
	if string(limited.Content) != problem || len(limited.Headers) != 3 || len(read.Paths["/api/v1/students"].Get.Responses) != 3 {
		t.Errorf("%s", got.body)
	}
	for _, want := range []string{"Below /api/v1/students, admin, clerk, operator and viewer read, and admin, clerk and operator write.",
		"Below /api/v1/configurations, admin, clerk, operator and viewer read, and none but admin write."} {
		if !strings.Contains(read.Info.Description, want) {
			t.Errorf("%q does not say %q", read.Info.Description, want)
		}
	}
	if strings.Contains(read.Info.Description, "/api/v1/ops") {
		t.Error("staging tells of operations")
	}
}
