package gateway

import (
	"fmt"
	"strings"

	"github.com/school-sms/sms/internal/identity"
)

// describeDoor adds to a merged document what the gateway does before a service is asked: who passes, and who is limited.
func describeDoor(all document, routes []route, cfg DoorConfig) {
	if info := object(all["info"]); info != nil {
		info["description"] = fmt.Sprintf("%v\n\n%s", info["description"], rolesInWords(routes))
	}
	if cfg.UserRate == 0 {
		return
	}
	for _, item := range object(all["paths"]) {
		for _, operation := range object(item) {
			responses := object(object(operation)["responses"])
			if responses == nil || responses["429"] != nil {
				continue
			}
			limited := map[string]any{"description": "Too Many Requests", "headers": map[string]any{
				"Retry-After":      integer("Seconds until a request is allowed again."),
				"RateLimit":        words("What is left for the caller: r requests, and t seconds until all is there again or, when none is left, until the next."),
				"RateLimit-Policy": words("The limit: q requests at once, which come back within w seconds. Both are sent with every answer to a known caller."),
			}}
			if content, ok := object(responses["503"])["content"]; ok { // the shape of all problems
				limited["content"] = clone(content)
			}
			responses["429"] = limited
		}
	}
}

func integer(doc string) map[string]any {
	return map[string]any{"description": doc, "required": true, "schema": map[string]any{"type": "integer"}}
}

func words(doc string) map[string]any {
	return map[string]any{"description": doc, "required": true, "schema": map[string]any{"type": "string"}}
}

// rolesInWords is the table of routes, a sentence each.
func rolesInWords(routes []route) string {
	sentences := []string{"Who passes the gateway; some operations ask for more."}
	for _, r := range routes {
		sentences = append(sentences, fmt.Sprintf("Below %s, %s read, and %s write.", r.prefix, rolesOf(r.read), rolesOf(r.write)))
	}
	return strings.Join(sentences, "\n")
}

// rolesOf lists roles as people do, admin first.
func rolesOf(roles []identity.Role) string {
	names := []string{string(identity.Admin)}
	for _, role := range roles {
		names = append(names, string(role))
	}
	if len(names) == 1 {
		return "none but admin"
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
