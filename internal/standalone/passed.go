package standalone

import (
	"slices"
	"strings"
)

// passedPrefixes begin the names of the services' own settings that `sms up` hands on from its environment: how the gateways
// treat their callers, whose tokens are taken, how backups are made, who is told and what is asked.
var passedPrefixes = []string{"GATEWAY_", "IDENTITY_OIDC_", "BACKUP_", "OPS_WEBHOOKS_", "PROMETHEUS_"}

// Passes reports whether `sms up` hands a setting on to the services.
func Passes(name string) bool {
	return slices.ContainsFunc(passedPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// Passed returns what of an environment is handed on to the services, as NAME=VALUE, in order.
func Passed(environ map[string]string) []string {
	var passed []string
	for name, value := range environ {
		if value != "" && Passes(name) {
			passed = append(passed, name+"="+value)
		}
	}
	slices.Sort(passed)
	return passed
}
