package gateway

import (
	"net/http"
	"strings"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// route says which service answers below a path, and who may ask. The service checks again, and more finely.
type route struct {
	// prefix is the path without a slash at its end; it and everything below it belong to the service.
	prefix  string
	service string
	// production says that only the production gateway has this route: the platform operates itself from there.
	production bool
	// read and write are the roles besides admin that may look and change.
	read, write []identity.Role
}

// table is everything that the gateway routes, and who besides admin passes. It stands in the document that the gateway serves too.
// Operators reach students because smoke tests need one: student-service shows them, and lets them write, synthetic ones only.
var table = []route{
	{
		prefix: "/api/v1/students", service: "student-service",
		read:  []identity.Role{identity.Clerk, identity.Operator, identity.Viewer},
		write: []identity.Role{identity.Clerk, identity.Operator},
	},
	{
		prefix: "/api/v1/configurations", service: "configuration-service",
		read:  []identity.Role{identity.Clerk, identity.Operator, identity.Viewer},
		write: nil,
	},
	{
		prefix: "/api/v1/ops", service: "ops-service", production: true,
		read:  []identity.Role{identity.Operator, identity.Viewer},
		write: []identity.Role{identity.Operator},
	},
}

// methods that are routed; the rest of HTTP is for this hop only or not used by the services.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// routesOf returns the part of the table that the gateway of an environment serves.
func routesOf(environment string) []route {
	var routes []route
	for _, r := range table {
		if !r.production || environment == discovery.Production {
			routes = append(routes, r)
		}
	}
	return routes
}

// app is the name that the route's instances have in the registry.
func (r route) app(environment string) string {
	if r.production {
		return r.service
	}
	return discovery.App(r.service, environment)
}

// holds reports whether a path belongs to the route.
func (r route) holds(path string) bool {
	rest, found := strings.CutPrefix(path, r.prefix)
	return found && (rest == "" || rest[0] == '/')
}

// allows reports whether a caller may use a method on the route.
func (r route) allows(caller identity.Principal, method string) bool {
	if method == http.MethodGet || method == http.MethodHead {
		return caller.Is(r.read...)
	}
	return caller.Is(r.write...)
}

// tricks are parts of a path as sent that mean one thing to one reader and another to the next, so that a check here and
// a route there could disagree: empty and dot segments, parameters, and separators and dots in disguise.
var tricks = []string{"//", ";", `\`, "%2e", "%2f", "%5c", "%3b", "%25", "%00"}

// tricky reports whether a path, as it was sent, holds a trick.
func tricky(escaped string) bool {
	if isUsual(escaped) {
		return false
	}
	escaped = strings.ToLower(escaped)
	for _, trick := range tricks {
		if strings.Contains(escaped, trick) {
			return true
		}
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// isUsual reports whether a path is one of those that nearly all are: of segments that begin with a letter or digit and go on with
// these, hyphens and underscores. No trick can be in it.
func isUsual(escaped string) bool {
	begins := false
	for i := range len(escaped) {
		switch c := escaped[i]; {
		case c == '/' && !begins:
			begins = true
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', (c == '-' || c == '_') && !begins:
			begins = false
		default:
			return false
		}
	}
	return true
}
