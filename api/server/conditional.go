package server

import (
	"maps"
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

// responses documents what no type tells: streamed answers, and 304 of a conditional operation.
func (op Operation) responses() map[string]*huma.Response {
	all := map[string]*huma.Response{}
	maps.Copy(all, op.Responses)
	if op.Conditional {
		all["304"] = &huma.Response{Description: "The caller has this already."}
	}
	return all
}
