package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/school-sms/sms/internal/identity"
)

// Door stands before a server that strangers can reach: it says how much of whom the server has to bear.
type Door interface {
	// Enter sees every request before its token and body are looked at. It lets the rest happen by c.Next, or answers itself
	// and aborts.
	Enter(c *gin.Context)
	// Stranger is asked before a token is verified that was not found good before, and when there is none. False: it has
	// answered, and aborted.
	Stranger(c *gin.Context) bool
	// Vouched is told that the stranger's token is good.
	Vouched(c *gin.Context)
	// Caller is asked whether a verified caller may go on. False: it has answered, and aborted.
	Caller(c *gin.Context, caller identity.Principal) bool
}

// SetDoor puts a door before a server that does not listen yet.
func (s *Server) SetDoor(d Door) { s.door = d }

func (s *Server) enter(c *gin.Context) {
	if s.door != nil {
		s.door.Enter(c)
	}
}

// authenticate lets only callers with a valid token below /api. Nothing else of the platform's paths is secret.
func (s *Server) authenticate(verifier *identity.Verifier) gin.HandlerFunc {
	refused := newRefusals(s.log)
	s.Metrics.MustRegister(refused.counted)
	for _, issuer := range verifier.Issuers() {
		s.Health.Advise("issuer "+issuer.Name, issuerCheck(verifier, issuer.Name))
	}
	return func(c *gin.Context) {
		if !strings.HasPrefix(c.Request.URL.Path, "/api/") {
			return
		}
		c.Writer.Header()["Cache-Control"] = noStore // on refusals too
		token, _ := BearerToken(c.Request)
		principal, known := verifier.Known(token)
		if !known {
			var err error
			if s.door != nil && !s.door.Stranger(c) {
				return
			}
			if principal, err = verify(c.Request.Context(), verifier, token); err != nil {
				refused.note(c, err)
				WriteProblem(c, refusalProblem(err))
				return
			}
			if s.door != nil {
				s.door.Vouched(c)
			}
		}
		c.Request = c.Request.WithContext(identity.NewContext(c.Request.Context(), principal))
		if s.door != nil {
			s.door.Caller(c, principal)
		}
	}
}

// noStore is shared: nothing changes it in place.
var noStore = []string{"no-store"}

func verify(ctx context.Context, verifier *identity.Verifier, token string) (identity.Principal, error) {
	if token == "" {
		return identity.Principal{}, &identity.Refusal{Reason: identity.NoToken}
	}
	return verifier.Verify(ctx, token)
}

// refusalProblem is 401, unless a good token would be refused too.
func refusalProblem(err error) *Problem {
	if refusal, ok := errors.AsType[*identity.Refusal](err); ok && refusal.Temporary {
		p := NewProblem(http.StatusServiceUnavailable, "unavailable", err.Error())
		p.RetryAfter = 2
		return p
	}
	return Unauthorized(err.Error())
}

// issuerCheck shows an issuer as up while its keys are those that it last told.
func issuerCheck(verifier *identity.Verifier, name string) Check {
	return func(context.Context) Component {
		for _, issuer := range verifier.Issuers() {
			if issuer.Name == name && issuer.Err == nil && !issuer.Confirmed.IsZero() {
				return Component{Status: Up, Details: map[string]any{"keys": issuer.Keys}}
			}
		}
		return Component{Status: Down}
	}
}

// refusals counts and logs the tokens that were refused. A flood of them fills no disk: only so many are logged, and the next
// line says how many were not.
type refusals struct {
	log     *slog.Logger
	counted *prometheus.CounterVec
	lines   *rate.Limiter
	silent  atomic.Int64
}

func newRefusals(log *slog.Logger) *refusals {
	const aSecond, atOnce = 1, 20 // lines
	return &refusals{log: log, lines: rate.NewLimiter(aSecond, atOnce), counted: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "http_server_tokens_refused_total", Help: "Requests whose token was not taken, by reason.",
	}, []string{"reason"})}
}

func (r *refusals) note(c *gin.Context, err error) {
	reason := string(identity.ReasonOf(err))
	r.counted.WithLabelValues(reason).Inc()
	if !r.lines.Allow() {
		r.silent.Add(1)
		return
	}
	client, _, _ := net.SplitHostPort(c.Request.RemoteAddr)
	line := []any{"event.reason", reason, "client.address", client, "http.request.id", RequestID(c.Request.Context())}
	if cause := errors.Unwrap(err); cause != nil {
		line = append(line, "error", cause.Error())
	}
	if n := r.silent.Swap(0); n > 0 {
		line = append(line, "not_logged", n)
	}
	r.log.WarnContext(c.Request.Context(), "a token was refused", line...)
}

// BearerToken returns the token of the request's Authorization header (RFC 6750, section 2.1); empty when there is none.
func BearerToken(r *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return token, token != ""
}
