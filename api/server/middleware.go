package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/school-sms/sms/internal/identity"
)

const requestIDHeader = "X-Request-Id" // as net/http spells it, which saves it the work

// validRequestID reports whether a caller's request id is kept.
func validRequestID(id string) bool {
	const longest = 128
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return id != "" && len(id) <= longest
}

// newRequestID is 26 letters and digits that nobody has had before. They need not be hard to guess, so that no system call is made.
func newRequestID() string {
	const alphabet, half = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 13 // 64 bits are 13 digits of 32
	var id [2 * half]byte
	var number uint64
	for i := range id {
		if i%half == 0 {
			number = rand.Uint64()
		}
		id[i], number = alphabet[number%32], number/32
	}
	return string(id[:])
}

type requestKey struct{}

// request is what a handler's context knows of the request.
type request struct {
	id  string
	url *url.URL
}

// path is as the caller wrote it.
func (r request) path() string {
	if r.url == nil {
		return ""
	}
	return r.url.EscapedPath()
}

func requestFrom(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(request)
	return r
}

// RequestID names the request that ctx belongs to; empty outside a request.
func RequestID(ctx context.Context) string { return requestFrom(ctx).id }

// observe gives the request its id, and counts, times and logs it. Query strings are not logged: they hold personal data.
func (s *Server) observe() gin.HandlerFunc {
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "http_server_request_duration_seconds", Help: "Time to answer a request, by route template and status.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "route", "status"})
	s.Metrics.MustRegister(duration)
	type labels struct {
		method, route string
		status        int
	}
	var observers sync.Map // labels → prometheus.Observer
	var templates sync.Map // gin's route → what routeHeader says of it
	return func(c *gin.Context) {
		start := time.Now()
		id := c.GetHeader(requestIDHeader)
		if !validRequestID(id) {
			id = newRequestID()
			c.Request.Header[requestIDHeader] = []string{id}
		}
		trace := traceOf(c.Request.Header)
		answer := c.Writer.Header()
		answer[requestIDHeader] = []string{id}
		if s.tellsRoutes && c.FullPath() != "" {
			told, known := templates.Load(c.FullPath())
			if !known {
				told, _ = templates.LoadOrStore(c.FullPath(), []string{template(c.FullPath())})
			}
			answer[RouteHeader] = told.([]string)
		}
		c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), requestKey{}, request{id, c.Request.URL}))
		c.Next()

		took, route, status := time.Since(start), c.FullPath(), c.Writer.Status()
		if route == "" {
			route = "unmatched"
		}
		of := labels{methodLabel(c.Request.Method), route, status}
		observer, known := observers.Load(of)
		if !known {
			observer, _ = observers.LoadOrStore(of, duration.WithLabelValues(of.method, of.route, strconv.Itoa(of.status)))
		}
		observer.(prometheus.Observer).Observe(took.Seconds())
		level := slog.LevelInfo
		if routine(route) && status < http.StatusInternalServerError {
			level = slog.LevelDebug
		}
		if handler := s.log.Handler(); handler.Enabled(c.Request.Context(), level) {
			line := slog.NewRecord(start.Add(took), level, "request", 0) // slog.Logger would look for the caller's line
			attrs := []slog.Attr{slog.String("http.request.method", c.Request.Method), slog.String("url.path", c.Request.URL.Path),
				slog.Int("http.response.status_code", status), slog.Int64("event.duration", took.Nanoseconds()),
				slog.String("http.request.id", id), slog.String("trace.id", trace),
				slog.String("user.name", identity.FromContext(c.Request.Context()).User), slog.String("client.address", host(c.Request.RemoteAddr)),
				slog.String("user_agent.original", shortened(c.Request.UserAgent())), slog.Int("http.response.body.bytes", max(c.Writer.Size(), 0)), {}}
			last := len(attrs) - 1
			if release := answer[ReleaseHeader]; len(release) == 1 { // a gateway says who answered
				attrs[last], last = slog.String("labels.release", release[0]), last+1
			}
			// All at once, or the record would make room twice.
			line.AddAttrs(attrs[:last]...)
			_ = handler.Handle(c.Request.Context(), line) // there is nowhere to say that the log fails
		}
	}
}

// RouteHeader tells the gateway, which counts by it, what route has answered: its template, as the document writes it.
const RouteHeader = "X-Sms-Route"

// ReleaseHeader restricts a request of an operator to releases, and names the release in an answer.
const ReleaseHeader = "X-Sms-Release"

// HideRoutes keeps the templates of routes out of answers, for a gateway: its own are not those of the services.
func (s *Server) HideRoutes() { s.tellsRoutes = false }

// template writes a route of gin as OpenAPI does.
func template(route string) string {
	segments := strings.Split(route, "/")
	for i, segment := range segments {
		if name, isParameter := strings.CutPrefix(segment, ":"); isParameter {
			segments[i] = "{" + name + "}"
		}
	}
	return strings.Join(segments, "/")
}

// host is an address without its port.
func host(address string) string {
	if at := strings.LastIndexByte(address, ':'); at >= 0 {
		return address[:at]
	}
	return address
}

// shortened bounds what a caller can have written into the log.
func shortened(text string) string {
	const most = 200
	return text[:min(len(text), most)]
}

// methodLabel keeps callers from making up label values.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// routine is what machines ask all day: it is logged at debug level unless it fails.
func routine(route string) bool {
	return strings.HasPrefix(route, "/actuator/") || strings.HasPrefix(route, "/eureka/") || strings.HasPrefix(route, "/registry/")
}

// recover turns a panic into a 500 and a log line with what panicked, and where.
func (s *Server) recover() gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler {
				panic(cause) // the way net/http cuts a connection on purpose
			}
			request := requestFrom(c.Request.Context())
			s.log.Error("a handler panicked", "error", fmt.Sprint(cause), "error.stack_trace", string(debug.Stack()),
				"http.request.id", request.id, "url.path", request.path())
			if c.Writer.Written() {
				panic(http.ErrAbortHandler) // the caller must not take half an answer for a whole one
			}
			WriteProblem(c, NewProblem(http.StatusInternalServerError, "internal-error", "internal error"))
		}()
		c.Next()
	}
}

// limitBody bounds a body in bytes, and in time between two pieces of it. What takes no body never asks for one, and so does not
// mind its length.
func (s *Server) limitBody() gin.HandlerFunc {
	return func(c *gin.Context) {
		if c.Request.ContentLength == 0 {
			return
		}
		limit := s.cfg.MaxBodyBytes
		if own, ok := s.bodyLimits[c.Request.Method+" "+c.FullPath()]; ok {
			limit = own
		}
		body := &impatientBody{ReadCloser: http.MaxBytesReader(c.Writer, c.Request.Body, limit),
			connection: http.NewResponseController(c.Writer), patience: s.cfg.BodyIdleTimeout,
			announced: c.Request.ContentLength, limit: limit}
		if rate := s.cfg.BodyMinRate; rate > 0 && body.announced > 0 && body.announced <= limit {
			body.whole = time.Now().Add(body.patience + time.Duration(float64(body.announced)/float64(rate)*float64(time.Second)))
		}
		c.Request.Body = body
		defer body.leave()
		c.Next()
	}
}

// impatientBody gives up on a caller that sends nothing for a while. The deadline is on the connection only while
// something is read: left there it would end the connection under a handler that works longer.
type impatientBody struct {
	io.ReadCloser
	connection       *http.ResponseController
	patience         time.Duration
	announced, limit int64     // bytes
	whole            time.Time // when all of it must have come; zero: whenever
	stalled          atomic.Bool
}

func (b *impatientBody) Read(p []byte) (n int, err error) {
	if b.announced > b.limit {
		return 0, &http.MaxBytesError{Limit: b.limit} // before anything of it has come
	}
	b.wait(func() error { n, err = b.ReadCloser.Read(p); return err })
	return n, err
}

// Close reads some of what is left, so that the connection can be used again.
func (b *impatientBody) Close() (err error) {
	b.wait(func() error { err = b.ReadCloser.Close(); return err })
	return err
}

// wait bounds f, which waits for the caller. Once the caller has stalled, the deadline stays, or net/http would wait again.
func (b *impatientBody) wait(f func() error) {
	b.leave()
	if errors.Is(f(), os.ErrDeadlineExceeded) {
		b.stalled.Store(true)
	} else if !b.stalled.Load() {
		_ = b.connection.SetReadDeadline(time.Time{})
	}
}

// leave bounds what net/http does with a body before it sends the answer: it reads some of what the handler has left.
func (b *impatientBody) leave() {
	if b.stalled.Load() {
		return
	}
	deadline := time.Now().Add(b.patience)
	if !b.whole.IsZero() && b.whole.Before(deadline) {
		deadline = b.whole
	}
	_ = b.connection.SetReadDeadline(deadline)
}

// closeWhenDraining tells keep-alive clients to open their next connection elsewhere.
func (s *Server) closeWhenDraining() gin.HandlerFunc {
	return func(c *gin.Context) {
		if s.draining.Load() {
			c.Header("Connection", "close")
		}
	}
}

func newMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func (s *Server) mountMetrics() {
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sms_build_info", Help: "What runs; always 1.",
		ConstLabels: prometheus.Labels{"service": s.Info.Service, "version": s.Info.Version, "commit": s.Info.Commit,
			"release": s.Info.Release, "environment": s.Info.Environment}})
	info.Set(1)
	s.Metrics.MustRegister(info)
	s.Engine.GET("/actuator/prometheus", gin.WrapH(promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{})))
}
