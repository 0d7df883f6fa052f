package server

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// Component states, as Spring Boot Actuator names them.
const (
	Up           = "UP"
	Down         = "DOWN"
	OutOfService = "OUT_OF_SERVICE"
)

// Component is the health of one thing that a service stands on.
type Component struct {
	Status  string         `json:"status"`
	Details map[string]any `json:"details,omitempty"`
}

// Check looks at one component. It must respect its context.
type Check func(ctx context.Context) Component

// CheckError makes a Check of a function that fails when the component is down. What failed is logged by the
// caller; the answer only says so, because errors may name hosts and users.
func CheckError(check func(ctx context.Context) error) Check {
	return func(ctx context.Context) Component {
		if err := check(ctx); err != nil {
			return Component{Status: Down}
		}
		return Component{Status: Up}
	}
}

// healthTimeout bounds all checks of one health request together.
const healthTimeout = 3 * time.Second

// Health answers the health paths of one process.
type Health struct {
	mu        sync.Mutex
	required  map[string]Check
	advisory  map[string]Check
	accepting atomic.Bool
}

func newHealth() *Health {
	return &Health{required: map[string]Check{}, advisory: map[string]Check{}}
}

// Require adds a component without which the service cannot serve.
func (h *Health) Require(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.required[name] = check
}

// Advise adds a component that is shown, but whose loss does not make the service unready.
func (h *Health) Advise(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advisory[name] = check
}

// accept turns readiness on or off, whatever the components say.
func (h *Health) accept(on bool) { h.accepting.Store(on) }

type healthBody struct {
	Status     string               `json:"status"`
	Components map[string]Component `json:"components,omitempty"`
}

// Check asks every component at once.
func (h *Health) Check(ctx context.Context) (status string, components map[string]Component) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h.mu.Lock()
	required, checks := maps.Clone(h.required), maps.Clone(h.advisory)
	h.mu.Unlock()
	maps.Copy(checks, required)

	components = map[string]Component{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, check := range checks {
		wg.Go(func() {
			c := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			components[name] = c
		})
	}
	wg.Wait()
	status = Up
	for name := range components {
		if _, needed := required[name]; needed && components[name].Status != Up {
			status = Down
		}
	}
	if !h.accepting.Load() {
		status = OutOfService
	}
	return status, components
}

func (h *Health) mount(r gin.IRoutes, info Info) {
	answer := func(c *gin.Context) {
		status, components := h.Check(c.Request.Context())
		code := http.StatusOK
		if status != Up {
			code = http.StatusServiceUnavailable
		}
		c.JSON(code, healthBody{Status: status, Components: components})
	}
	r.GET("/actuator/health", answer)
	r.GET("/actuator/health/readiness", answer)
	r.GET("/actuator/health/liveness", func(c *gin.Context) { c.JSON(http.StatusOK, healthBody{Status: Up}) })
	r.GET("/actuator/info", func(c *gin.Context) { c.JSON(http.StatusOK, info) })
}
