package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

// kept are headers that a caller must not be able to strip by naming them in Connection.
var kept = []string{"Authorization", "Traceparent", "Tracestate", "X-Request-Id"}

// Gateway routes requests to the instances that the registry shows.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	view    *discovery.View
	routes  []route
	fleets  map[string]*fleet // by service
	proxy   *httputil.ReverseProxy
	metrics *metrics
	merged  *documents
	door    *door
	seen    chan struct{} // closed once the registry has been seen
	ready   chan struct{} // closed once the gateway may have traffic

	stop    context.CancelFunc
	running sync.WaitGroup
}

// New makes the gateway of an environment. Start sets it going; Mount adds it to a server.
func New(cfg Config, environment string, view *discovery.View, log *slog.Logger) *Gateway {
	ctx, stop := context.WithCancel(context.Background())
	g := &Gateway{cfg: cfg, log: log, view: view, routes: routesOf(environment), fleets: map[string]*fleet{},
		metrics: newMetrics(), door: newDoor(cfg.Door), seen: make(chan struct{}), ready: make(chan struct{}), stop: stop}
	for _, r := range g.routes {
		g.fleets[r.service] = newFleet(ctx, r.app(environment), cfg, log)
	}
	g.merged = newDocuments(g.routes, g.fleets, cfg)
	g.proxy = &httputil.ReverseProxy{
		Rewrite: rewrite, ModifyResponse: modifyResponse, BufferPool: newBufferPool(),
		FlushInterval: -1, // at once: server-sent events
		ErrorHandler:  func(_ http.ResponseWriter, r *http.Request, err error) { callOf(r.Context()).err = err },
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Transport:     &transport{retries: cfg.Retries, retried: g.metrics.retried, base: newExchange(cfg)},
	}
	return g
}

// Start follows the registry and checks instances until Stop.
func (g *Gateway) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	stopFleets := g.stop
	g.stop = func() { cancel(); stopFleets() }
	g.running.Go(func() { g.followView(ctx) })
	g.running.Go(func() { g.becomeReady(ctx) })
}

// Stop ends what Start began.
func (g *Gateway) Stop() {
	g.stop()
	g.running.Wait()
	for _, f := range g.fleets {
		f.checks.Wait()
	}
}

func (g *Gateway) followView(ctx context.Context) {
	first := true
	for ctx.Err() == nil {
		snapshot, changed := g.view.Current()
		for _, f := range g.fleets {
			f.sync(snapshot.App(f.app))
		}
		if first && snapshot.Epoch != 0 { // before that, the view is empty
			first = false
			close(g.seen)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// becomeReady says that the gateway may have traffic once it has seen the registry and checked who is there, or when
// that takes too long: an answer that a service is unavailable is better than none.
func (g *Gateway) becomeReady(ctx context.Context) {
	defer close(g.ready)
	ctx, cancel := context.WithTimeout(ctx, g.cfg.FirstView)
	defer cancel()
	select {
	case <-g.seen:
	case <-ctx.Done():
	}
	for _, f := range g.fleets {
		f.firstChecks(ctx)
	}
}

// Mount adds the gateway's routes, documents, health and metrics to a server that does not listen yet.
func (g *Gateway) Mount(s *server.Server) {
	s.Metrics.MustRegister(g.metrics.collectors(g.fleets)...)
	s.Metrics.MustRegister(g.door.collectors(g.fleets)...)
	s.SetDoor(g.door)
	s.HideRoutes()
	s.Wrap(straighten)
	s.AnswerPlain()
	s.Engine.Use(refuseTricks, refuseDisguises, ownBodies)
	for _, r := range g.routes {
		handler := g.handle(r)
		s.Engine.Match(methods, r.prefix, handler)
		s.Engine.Match(methods, r.prefix+"/*path", handler)
		s.Health.Advise(r.service, g.fleets[r.service].component)
	}
	s.Health.Advise("registry", server.CheckError(func(context.Context) error { return g.view.Err() }))
	s.Health.Require("routes", server.CheckError(func(context.Context) error {
		select {
		case <-g.ready:
			return nil
		default:
			return errors.New("the registry has not been read yet")
		}
	}))
	g.merged.mount(s)
}

// component shows a service by the gateway's own checks.
func (f *fleet) component(context.Context) server.Component {
	n := f.healthy()
	c := server.Component{Status: server.Up, Details: map[string]any{"instances": n, "releases": f.releases()}}
	if n == 0 {
		c.Status = server.Down
	}
	return c
}

func refuseTricks(c *gin.Context) {
	if tricky(c.Request.URL.EscapedPath()) {
		server.WriteProblem(c, server.NewProblem(http.StatusBadRequest, "validation-error",
			"the path holds an empty or dot segment, a parameter or a disguised separator"))
	}
}

// handle passes the requests of one route through.
func (g *Gateway) handle(r route) gin.HandlerFunc {
	f := g.fleets[r.service]
	return func(c *gin.Context) {
		caller := identity.FromContext(c.Request.Context())
		if !r.allows(caller, c.Request.Method) {
			server.WriteProblem(c, server.Forbidden(fmt.Sprintf("role %q may not do this", caller.Role)))
			return
		}
		call := &call{fleet: f, answer: c.Writer.Header()}
		if caller.Is(identity.Operator) {
			call.wanted = wantedReleases(c.Request.Header[server.ReleaseHeader])
		}
		start := time.Now()
		defer func() {
			call.end()
			g.metrics.answered(r, call, c.Request, c.Writer.Status(), time.Since(start))
		}()
		ctx := context.WithValue(c.Request.Context(), callKey{}, call)
		if plain := c.Request.ContentLength == 0 && len(c.Request.Header["Upgrade"]) == 0; plain {
			g.forward(c, ctx, call)
		} else {
			g.proxy.ServeHTTP(c.Writer, c.Request.WithContext(ctx))
		}
		if call.err != nil {
			g.refuse(c, r, call)
		}
	}
}

// wantedReleases reads X-SMS-Release: digests, separated by commas.
func wantedReleases(values []string) []string {
	var releases []string
	for _, value := range values {
		for release := range strings.SplitSeq(value, ",") {
			if release = strings.TrimSpace(release); release != "" {
				releases = append(releases, release)
			}
		}
	}
	return releases
}

// rewrite makes the request that an instance gets: without what a caller could forge, with what belongs to it.
func rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Scheme, pr.Out.URL.Host = "http", "instance" // the transport puts the address in
	dropForged(pr.Out.Header)
	for _, name := range kept {
		if values := pr.In.Header[name]; len(values) > 0 {
			pr.Out.Header[name] = values
		}
	}
	pr.SetXForwarded()
}

// modifyResponse names the release that answered, and keeps headers that both the gateway and the instance set single.
func modifyResponse(res *http.Response) error {
	call := callOf(res.Request.Context())
	dropOurs(res.Header)
	if route := res.Header[server.RouteHeader]; len(route) == 1 {
		call.route = route[0]
	}
	delete(res.Header, server.RouteHeader)
	res.Header[server.ReleaseHeader] = []string{call.used.Release}
	delete(res.Header, "X-Request-Id")
	if res.Header.Get("Cache-Control") != "" {
		call.answer.Del("Cache-Control")
	}
	return nil
}

// refuse answers a request that got no answer from an instance.
func (g *Gateway) refuse(c *gin.Context, r route, call *call) {
	if fault := bodyFault(c.Request); fault != nil {
		server.WriteProblem(c, server.UnreadBody(fault))
		return
	}
	problem := server.Unavailable(r.service+" cannot answer for now, try again", call.err)
	switch {
	case c.Request.Context().Err() != nil:
		const clientClosedRequest = 499 // nobody reads it but the log
		c.AbortWithStatus(clientClosedRequest)
		return
	case errors.Is(call.err, errNoInstance) || isDial(call.err): // refused before anything was sent
	case isTimeout(call.err):
		problem.Status, problem.RetryAfter = http.StatusGatewayTimeout, 0
		problem.Detail = r.service + " has not answered in time; it may have done what was asked all the same"
	default:
		problem.Status, problem.RetryAfter = http.StatusBadGateway, 0
		problem.Detail = r.service + " broke off before it answered; it may have done what was asked all the same"
	}
	server.WriteProblem(c, problem)
}

// bufferPool keeps the buffers that bodies are copied through.
type bufferPool struct{ sync.Pool }

func newBufferPool() *bufferPool {
	const size = 32 << 10
	return &bufferPool{sync.Pool{New: func() any { return new([size]byte) }}}
}

func (p *bufferPool) Get() []byte { return p.Pool.Get().(*[32 << 10]byte)[:] }

func (p *bufferPool) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }
