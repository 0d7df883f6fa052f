package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/internal/postgres"
)

const problemTypeBase = "https://api.school.com/problems/"

// Problem is the one shape of every error answer: RFC 9457 problem details. It is also the error that services return.
type Problem struct {
	Type      string  `json:"type" format:"uri" doc:"Names the kind of problem."`
	Title     string  `json:"title" doc:"The kind of problem in words."`
	Status    int     `json:"status" doc:"HTTP status."`
	Detail    string  `json:"detail,omitempty" doc:"What happened this time, and what to do."`
	Instance  string  `json:"instance,omitempty" format:"uri-reference" doc:"The path that was asked for."`
	RequestID string  `json:"requestId,omitempty" doc:"Names this request in the logs."`
	Errors    []Fault `json:"errors,omitempty" doc:"Every fault of the input."`

	// RetryAfter, in seconds, is sent as a header when above zero.
	RetryAfter int `json:"-"`
	// cause is logged, never sent.
	cause error
}

// Fault is one thing wrong with the input.
type Fault struct {
	Field  string `json:"field" doc:"Path of the field, as in the request; empty for the whole body."`
	Code   string `json:"code" doc:"For programs."`
	Detail string `json:"detail" doc:"For people."`

	// Alone names the problem when this is the only fault; empty means validation-error.
	Alone string `json:"-"`
}

// Error makes a Fault returnable from a huma resolver.
func (f Fault) Error() string { return f.Detail }

func (p *Problem) Error() string {
	if p.cause != nil {
		return fmt.Sprintf("%s: %v", p.Detail, p.cause)
	}
	return p.Detail
}

// Unwrap returns what caused the problem, for errors.Is and the log.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus is what huma asks for.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is what huma asks for (RFC 9457, section 3).
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders is what huma asks for.
func (p *Problem) GetHeaders() http.Header {
	if p.RetryAfter <= 0 {
		return nil
	}
	return http.Header{"Retry-After": {fmt.Sprint(p.RetryAfter)}}
}

// NewProblem makes a problem of a name from the public interface.
func NewProblem(status int, name, detail string, faults ...Fault) *Problem {
	return &Problem{
		Type: problemTypeBase + name, Title: strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "-", " "),
		Status: status, Detail: detail, Errors: faults,
	}
}

// NotFound says that what was asked for does not exist.
func NotFound(detail string) *Problem { return NewProblem(http.StatusNotFound, "not-found", detail) }

// Conflict says that the state of what is there forbids the request.
func Conflict(detail string) *Problem { return NewProblem(http.StatusConflict, "conflict", detail) }

// Forbidden says that the caller's role does not allow the request.
func Forbidden(detail string) *Problem { return NewProblem(http.StatusForbidden, "forbidden", detail) }

// Unauthorized says that no valid token came with the request.
func Unauthorized(detail string) *Problem {
	return NewProblem(http.StatusUnauthorized, "unauthorized", detail)
}

// Invalid names every fault of the input.
func Invalid(faults ...Fault) *Problem {
	return NewProblem(http.StatusUnprocessableEntity, invalidName(faults), faultCount(len(faults)), faults...)
}

func invalidName(faults []Fault) string {
	if len(faults) == 1 && faults[0].Alone != "" {
		return faults[0].Alone
	}
	return "validation-error"
}

// TooLarge says that the body is longer than limit, in bytes.
func TooLarge(limit int64) *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, "payload-too-large", fmt.Sprintf("a body may have at most %d bytes", limit))
}

// UnreadBody says why a body that a handler reads by itself did not come to its end.
func UnreadBody(err error) *Problem {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return TooLarge(tooLarge.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return NewProblem(http.StatusRequestTimeout, "validation-error", "the body stopped coming")
	}
	return NewProblem(http.StatusBadRequest, "validation-error", "the body ended before it was complete")
}

// Unavailable says that something the service stands on is away for now.
func Unavailable(detail string, cause error) *Problem {
	p := NewProblem(http.StatusServiceUnavailable, "unavailable", detail)
	p.RetryAfter, p.cause = 2, cause
	return p
}

// PreconditionRequired says that a write came without If-Match (RFC 6585, section 3).
func PreconditionRequired() *Problem {
	return NewProblem(http.StatusPreconditionRequired, "precondition-required",
		"send If-Match with the ETag that you last read")
}

// ConcurrentUpdate says that the resource has changed since the caller read it.
func ConcurrentUpdate() *Problem {
	return NewProblem(http.StatusPreconditionFailed, "concurrent-update",
		"somebody has changed this since you read it: read it again and repeat your change")
}

func faultCount(n int) string {
	if n == 1 {
		return "the request has 1 fault"
	}
	return fmt.Sprintf("the request has %d faults", n)
}

// problemNames gives the name of the public interface for a status that huma or gin decided on.
var problemNames = map[int]string{
	400: "validation-error", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "not-found", 406: "validation-error",
	408: "validation-error", 409: "conflict", 412: "concurrent-update", 413: "payload-too-large", 415: "validation-error",
	422: "validation-error", 428: "precondition-required", 429: "rate-limited", 503: "unavailable", 504: "unavailable",
}

// AsProblem turns any error into the answer for it. Unknown errors say "internal error" and nothing more.
func AsProblem(err error) *Problem {
	if problem, ok := errors.AsType[*Problem](err); ok {
		return problem
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return TooLarge(tooLarge.Limit)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable("the answer took too long, try again", err)
	}
	if postgres.Unavailable(err) {
		return Unavailable("the database cannot be reached for now, try again", err)
	}
	p := NewProblem(http.StatusInternalServerError, "internal-error", "internal error")
	p.cause = err
	return p
}

func init() {
	huma.ValidateStrictCasing = true // "FirstName" is an unknown field, though encoding/json would take it
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		if status == http.StatusUnprocessableEntity {
			for _, fault := range unknownParameters(ctx.Context()) {
				errs = append(errs, fault)
			}
		}
		problem := fill(ctx.Context(), problemOf(status, msg, errs))
		for name, values := range problem.GetHeaders() {
			ctx.SetHeader(name, values[0])
		}
		return problem
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError { return problemOf(status, msg, errs) }
}

// unreadableBody is what huma says with status 500 when reading the body fails, which is the caller's doing.
const unreadableBody = "cannot read request body"

// problemOf sees four cases: a problem that a resolver returned, a body that cannot be read, faults that huma's
// validation and the resolvers found, and a bare status.
func problemOf(status int, msg string, errs []error) *Problem {
	for _, err := range errs {
		if problem, ok := errors.AsType[*Problem](err); ok {
			return problem
		}
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return TooLarge(tooLarge.Limit)
		}
	}
	if msg == unreadableBody {
		return UnreadBody(errors.Join(errs...))
	}
	name, known := problemNames[status]
	if !known {
		return AsProblem(errors.Join(append([]error{errors.New(msg)}, errs...)...))
	}
	faults := faultsOf(errs)
	switch {
	case status == http.StatusUnprocessableEntity:
		return Invalid(faults...)
	case status == http.StatusBadRequest && len(faults) == 0:
		faults = []Fault{{Code: "required", Detail: msg}}
	}
	if len(faults) > 0 {
		msg = faultCount(len(faults))
	}
	return NewProblem(status, name, msg, faults...)
}

// faultsOf keeps the first fault of each field, and none of what lies below a faulty one: a rule that fails because the
// field is missing or of another type adds nothing.
func faultsOf(errs []error) []Fault {
	var faults []Fault
	seen := map[string]bool{}
	for _, err := range errs {
		fault := Fault{Code: "invalid", Detail: err.Error()}
		if f, ok := errors.AsType[Fault](err); ok {
			if seen[wholeBody] {
				continue
			}
			fault = f
		} else if detail, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			fault = schemaFault(detail)
			seen[wholeBody] = seen[wholeBody] || detail.Location == wholeBody && fault.Field == ""
		}
		if fault.Field == "" || !seenAbove(seen, fault.Field) {
			faults = append(faults, fault)
		}
		seen[fault.Field] = true
	}
	return faults
}

// wholeBody is where huma locates a body that is no JSON or no object. No rule can say anything then.
const wholeBody = "body"

func seenAbove(seen map[string]bool, field string) bool {
	for {
		if seen[field] {
			return true
		}
		dot := strings.LastIndexByte(field, '.')
		if dot < 0 {
			return false
		}
		field = field[:dot]
	}
}

// schemaFault translates a fault that huma's schema validation found. The value is left out: it may be personal.
func schemaFault(detail *huma.ErrorDetail) Fault {
	_, field, _ := strings.Cut(detail.Location, ".") // body.firstName, query.size, path.id, header.If-Match
	fault := Fault{Field: field, Code: "invalid", Detail: detail.Message}
	before, _, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%")
	if name, ok := strings.CutPrefix(detail.Message, before); ok {
		name, _, _ = strings.Cut(name, " ")
		if field != "" {
			name = field + "." + name
		}
		return Fault{Field: name, Code: "required", Detail: "is required"}
	}
	if field == "" && strings.Contains(detail.Message, "content type") {
		return Fault{Code: "wrong-type", Detail: "send the body as application/json"}
	}
	for _, c := range schemaCodes {
		if before, _, _ := strings.Cut(c.message, "%"); strings.HasPrefix(detail.Message, before) {
			fault.Code = c.code
			break
		}
	}
	if fault.Code == "unknown-field" {
		fault.Detail = "is not a field that can be written"
	} else if field == "" && fault.Code == "invalid" {
		fault.Code, fault.Detail = "not-json", "the body is not valid JSON: "+detail.Message
	}
	return fault
}

var schemaCodes = []struct{ message, code string }{
	{validation.MsgUnexpectedProperty, "unknown-field"},
	{validation.MsgExpectedMinLength, "too-short"},
	{validation.MsgExpectedMaxLength, "too-long"},
	{validation.MsgExpectedMinimumNumber, "too-small"},
	{validation.MsgExpectedMaximumNumber, "too-large"},
	{validation.MsgExpectedOneOf, "not-allowed"},
	{validation.MsgExpectedRFC3339Date, "not-a-date"},
	{validation.MsgExpectedMatchPattern, "wrong-format"},
	{validation.MsgExpectedBePattern, "wrong-format"},
	{validation.MsgExpectedRFC5322Email, "wrong-format"},
	{validation.MsgExpectedString, "wrong-type"},
	{validation.MsgExpectedInteger, "wrong-type"},
	{validation.MsgExpectedNumber, "wrong-type"},
	{validation.MsgExpectedBoolean, "wrong-type"},
	{validation.MsgExpectedObject, "wrong-type"},
	{validation.MsgExpectedArray, "wrong-type"},
	{"required ", "required"}, // parameters, see huma.Register
	{"invalid integer", "wrong-type"},
	{"invalid boolean", "wrong-type"},
	{"invalid float", "wrong-type"},
}

// fill adds what only the request knows, and logs what the caller is not told.
func fill(ctx context.Context, p *Problem) *Problem {
	filled, request := *p, requestFrom(ctx)
	filled.Instance, filled.RequestID = request.path(), request.id
	if p.Status >= http.StatusInternalServerError && p.cause != nil {
		level := slog.LevelError
		if errors.Is(p.cause, context.Canceled) { // the caller has gone
			level = slog.LevelDebug
		}
		slog.Log(ctx, level, "a request failed", "error", p.cause.Error(), "http.request.id", request.id, "url.path", request.path)
	}
	return &filled
}

// WriteProblem answers a plain gin or net/http request with the problem for err.
func WriteProblem(c *gin.Context, err error) {
	p := fill(c.Request.Context(), AsProblem(err))
	for name, values := range p.GetHeaders() {
		c.Header(name, values[0])
	}
	if p.Status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", `Bearer realm="sms"`) // RFC 6750, section 3
	}
	c.Header("Content-Type", "application/problem+json")
	c.AbortWithStatusJSON(p.Status, p)
}
