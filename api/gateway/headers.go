package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// safety is what every answer of the gateway says to browsers. Services do not say it: nobody but the gateway is reached by
// strangers, and so it stands in one place.
type safety []header

type header struct {
	name  string // as net/http spells it
	value []string
}

func newSafety(hsts time.Duration) safety {
	s := safety{
		{"X-Content-Type-Options", []string{"nosniff"}},
		{"Referrer-Policy", []string{"no-referrer"}},
		{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}}, // a page sets its own, see /docs
		{"Cross-Origin-Resource-Policy", []string{"same-origin"}},                           // CORS is another matter
	}
	if hsts > 0 {
		s = append(s, header{"Strict-Transport-Security", []string{fmt.Sprintf("max-age=%d", int(hsts.Seconds()))}})
	}
	return s
}

// put says it on an answer that has nothing yet. The values are shared: nothing changes them in place.
func (s safety) put(h http.Header) {
	for _, one := range s {
		h[one.name] = one.value
	}
}

// isOurs reports whether only the gateway sets a header: what an instance says under the same name would stand there twice.
func isOurs(name string) bool {
	switch name {
	case "X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy", "Cross-Origin-Resource-Policy",
		"Strict-Transport-Security", "Ratelimit", "Ratelimit-Policy", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
		"Access-Control-Expose-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age":
		return true
	}
	return false
}

// dropOurs takes them off an instance's answer.
func dropOurs(h http.Header) {
	for name := range h {
		if isOurs(name) {
			delete(h, name)
		}
	}
}

// isBelieved reports whether somebody would believe a header if it came from outside.
func isBelieved(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "X-Original-Url", "X-Original-Uri",
		"X-Rewrite-Url", "X-Http-Method-Override", "X-Method-Override", "X-Sms-Release":
		return true
	}
	return slices.ContainsFunc(believedPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

var believedPrefixes = []string{"X-Forwarded-", "X-User-", "X-Auth-", "X-Remote-"}

// dropForged takes off a request what a caller could forge, under the names that straighten has left.
func dropForged(h http.Header) {
	for name := range h {
		if isBelieved(name) {
			delete(h, name)
		}
	}
}

// usual reports whether a name is one that all servers read alike. net/http has brought it into its usual case.
func usual(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return true
}

// lines counts the header lines of a request.
func lines(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}
