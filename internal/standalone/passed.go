package standalone

import (
	"slices"
	"strings"
)

// passedPrefixes begin the names of the services' own settings that `sms up` hands on from its environment: how the gateways
// treat their callers, and whose tokens are taken.
var passedPrefixes = []string{"GATEWAY_", "IDENTITY_OIDC_"}

// Passed returns what of an environment is handed on to the services, as NAME=VALUE, in order.
func Passed(environ []string) []string {
	var passed []string
	for _, entry := range environ {
		handsOn := func(prefix string) bool { return strings.HasPrefix(entry, prefix) }
		if _, value, _ := strings.Cut(entry, "="); value != "" && slices.ContainsFunc(passedPrefixes, handsOn) {
			passed = append(passed, entry)
		}
	}
	slices.Sort(passed)
	return passed
}
