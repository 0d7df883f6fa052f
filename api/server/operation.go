package server

import (
	"context"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

// Operation is one documented, role-checked route.
type Operation struct {
	// ID names the operation in the document, in kebab case.
	ID      string
	Method  string
	Path    string
	Summary string
	// Status of success; 0 means 200, or 204 where the output has no body.
	Status int
	// Roles that may call, besides admin, which may call everything. Empty: every role.
	Roles []identity.Role
	// Errors lists the statuses that the operation answers besides those that every operation has.
	Errors []int
	// Conditional says that the operation answers 304 to If-None-Match: its input embeds ReadInput.
	Conditional bool
	// Accepts is the media type of a body that is not JSON. Another is refused (415); the input reads the body by itself.
	Accepts string
	// MaxBodyBytes bounds the body where the server's own limit does not fit; 0 is the server's.
	MaxBodyBytes int64
	// Responses documents answers whose body is streamed, by status.
	Responses map[string]*huma.Response
	// TellsPosition says that a GET tells of writes that were made without an answer of their own, as all other methods do.
	TellsPosition bool
	// Context, when set, gives the input's resolvers what they need besides the input.
	Context func(context.Context) context.Context
	// Fast, when set, answers requests that have no query string in place of the handler, without what huma costs. It must
	// answer what the handler would; its error is answered as the handler's.
	Fast func(*gin.Context) error
}

// Register adds an operation to the server's routes and document.
func Register[I, O any](s *Server, op Operation, handler func(context.Context, *I) (*O, error)) {
	errs := append([]int{http.StatusUnauthorized, http.StatusUnprocessableEntity, http.StatusInternalServerError,
		http.StatusServiceUnavailable}, op.Errors...)
	if op.refusesSomebody() {
		errs = append(errs, http.StatusForbidden)
	}
	if op.Accepts != "" || takesBody[I]() {
		errs = append(errs, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType)
	}
	description := "Any role."
	if len(op.Roles) > 0 {
		names := []string{string(identity.Admin)}
		for _, r := range op.Roles {
			if r != identity.Admin {
				names = append(names, string(r))
			}
		}
		description = "Roles: " + strings.Join(names, ", ") + "."
	}
	tells := op.Method != http.MethodGet || op.TellsPosition
	var body *huma.RequestBody
	if op.Accepts != "" {
		body = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{op.Accepts: {Schema: &huma.Schema{Type: huma.TypeString}}}}
	}
	if op.MaxBodyBytes > 0 {
		s.bodyLimits[op.Method+" "+strings.NewReplacer("{", ":", "}", "").Replace(op.Path)] = op.MaxBodyBytes
		description += fmt.Sprintf(" The body may have at most %d bytes.", op.MaxBodyBytes)
	}
	huma.Register(s.API, huma.Operation{
		OperationID: op.ID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: description,
		Tags: []string{s.Info.Service}, DefaultStatus: op.Status, Errors: errs,
		RequestBody: body, Responses: op.responses(), Metadata: map[string]any{tellsPosition: tells},
		Security: []map[string][]string{{"token": {}}},
		Middlewares: huma.Middlewares{requireRole(s.API, op.Roles), requireMediaType(s.API, op.Accepts), findUnknownParameters, withContext(op.Context),
			answerFast(s.API, op.Fast)},
		// The server's own limit answers first; huma refuses a body of just its limit.
		MaxBodyBytes: s.cfg.MaxBodyBytes + 1,
		// huma's deadline stays on the connection and would cancel a handler that works longer; the server has its own.
		BodyReadTimeout: -1,
	}, func(ctx context.Context, in *I) (*O, error) {
		if faults := unknownParameters(ctx); len(faults) > 0 {
			return nil, fill(ctx, Invalid(faults...))
		}
		out, err := handler(ctx, in)
		if err != nil && postgres.ReadAgain(ctx, err) { // the replica failed, not the request
			out, err = handler(ctx, in)
		}
		if err != nil {
			return nil, fill(ctx, AsProblem(err))
		}
		if tells {
			s.tellPosition(ctx)
		}
		return out, nil
	})
}

// refusesSomebody says whether there is a role that may not call.
func (op Operation) refusesSomebody() bool {
	return len(op.Roles) > 0 && slices.ContainsFunc(identity.Roles(), func(r identity.Role) bool {
		return r != identity.Admin && !slices.Contains(op.Roles, r)
	})
}

// takesBody says whether huma reads a body into an I.
func takesBody[I any]() bool {
	_, parsed := reflect.TypeFor[I]().FieldByName("Body")
	_, raw := reflect.TypeFor[I]().FieldByName("RawBody")
	return parsed || raw
}

// completeDocument adds the headers that the server sends whatever the operation, and those that a 304 has in common with the
// answer that it saves (RFC 9110, section 15.4.5). A body that is kept as it came is still accepted as JSON only.
func completeDocument(_ *huma.OpenAPI, op *huma.Operation) {
	if op.RequestBody != nil && op.RequestBody.Content["application/json"] != nil {
		delete(op.RequestBody.Content, "application/octet-stream")
	}
	if saved, ok := op.Responses["304"]; ok {
		saved.Headers = maps.Clone(op.Responses["200"].Headers)
	}
	header := func(doc string) *huma.Param {
		return &huma.Param{Description: doc, Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	for status, response := range op.Responses {
		if response.Headers == nil {
			response.Headers = map[string]*huma.Param{}
		}
		response.Headers[requestIDHeader] = header("Names this request in the logs: the caller's own id where a valid one was sent.")
		switch status {
		case "401":
			response.Headers["WWW-Authenticate"] = header("How to send a token (RFC 6750, section 3).")
		case "503":
			response.Headers["Retry-After"] = header("Seconds to wait before the next try.")
		}
	}
}

// requireRole refuses callers without one of the roles, before anything of the request is read.
func requireRole(api huma.API, roles []identity.Role) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		caller := identity.FromContext(ctx.Context())
		if len(roles) > 0 && !caller.Is(roles...) {
			_ = huma.WriteErr(api, ctx, http.StatusForbidden, fmt.Sprintf("role %q may not do this", caller.Role))
			return
		}
		next(ctx)
	}
}

// requireMediaType refuses bodies of another type than the operation reads.
func requireMediaType(api huma.API, accepted string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if accepted != "" {
			if sent, _, err := mime.ParseMediaType(ctx.Header("Content-Type")); err != nil || sent != accepted {
				_ = huma.WriteErr(api, ctx, http.StatusUnsupportedMediaType, "send the body as "+accepted)
				return
			}
		}
		next(ctx)
	}
}

type unknownKey struct{}

// findUnknownParameters notes what of the query string would be passed over in silence: parameters that the operation does not
// have, a second value of one, and what cannot be read. They are named together with the other faults; huma's own check would
// name the unknown ones alone.
func findUnknownParameters(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	if u.RawQuery == "" {
		next(ctx)
		return
	}
	faults := unknownParameters(ctx.Context())
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		faults = append(faults, Fault{Code: "wrong-format", Detail: "the query string cannot be read"})
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		i := slices.IndexFunc(ctx.Operation().Parameters, func(p *huma.Param) bool { return p.In == "query" && p.Name == name })
		if i < 0 {
			faults = append(faults, Fault{Field: name, Code: "unknown-field", Detail: "is not a query parameter of this operation"})
		} else if len(query[name]) > 1 && ctx.Operation().Parameters[i].Schema.Type != huma.TypeArray {
			faults = append(faults, Fault{Field: name, Code: "duplicate", Detail: "is given more than once"})
		}
	}
	if len(faults) > 0 {
		ctx = huma.WithValue(ctx, unknownKey{}, faults)
	}
	next(ctx)
}

func unknownParameters(ctx context.Context) []Fault {
	faults, _ := ctx.Value(unknownKey{}).([]Fault)
	return faults
}

func withContext(add func(context.Context) context.Context) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if add != nil {
			ctx = huma.WithContext(ctx, add(ctx.Context()))
		}
		next(ctx)
	}
}

func answerFast(api huma.API, answer func(*gin.Context) error) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c := humagin.Unwrap(ctx)
		if answer == nil || c.Request.URL.RawQuery != "" || c.Request.URL.ForceQuery || len(unknownParameters(ctx.Context())) > 0 {
			next(ctx)
			return
		}
		err := answer(c)
		if err != nil && postgres.ReadAgain(ctx.Context(), err) { // the replica has gone
			err = answer(c)
		}
		if err != nil {
			_ = huma.WriteErr(api, ctx, 0, "", AsProblem(err))
		}
	}
}
