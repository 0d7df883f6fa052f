package server

import (
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// ReadInput is embedded in the input of a read that answers 304 to a caller who has the representation already.
type ReadInput struct {
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of what you have: 304 when it is still the one." example:"\"1\""`
}

// Status is 304 when the caller has what etag names, and else 200. Weak tags match too, as does "*" (RFC 9110, section 13.1.2).
func (in ReadInput) Status(etag string) int {
	for tag := range strings.SplitSeq(in.IfNoneMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return http.StatusNotModified
		}
	}
	return http.StatusOK
}

// notModified documents the answer that a conditional operation has besides its own.
func notModified(conditional bool) map[string]*huma.Response {
	if !conditional {
		return nil
	}
	return map[string]*huma.Response{"304": {Description: "The caller has this already."}}
}
