package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	statusUp   = "UP"
	statusDown = "DOWN"

	// healthCacheTime keeps a crowd of watchers from becoming load on the database.
	healthCacheTime = time.Second
	healthTimeout   = 2 * time.Second
)

// component is the state of one part. Detail says why it is down, in words for an operator.
type component struct {
	Status string `json:"status"`
	Detail string `json:"detail,omitempty"`
}

type healthReport struct {
	Status     string               `json:"status"`
	Components map[string]component `json:"components,omitempty"`
}

// health answers /actuator/health and /actuator/health/readiness (503 unless all components are up),
// /actuator/health/liveness (the process runs) and /actuator/prometheus (Temporal's metrics).
type health struct {
	address string // host:port to dial, empty if switched off
	server  *http.Server

	mu sync.Mutex
	// phase is what the process is doing while it does not serve.
	phase string
	// check asks all components; nil while the process does not serve.
	check   func(context.Context) map[string]component
	checked time.Time
	report  healthReport
}

// listenHealth starts to answer at once: down, until serve is called. An empty address switches it off.
func listenHealth(hostPort string) (*health, error) {
	h := &health{phase: "starting"}
	if hostPort == "" {
		return h, nil
	}
	listener, err := listen("TEMPORAL_HEALTH_ADDRESS", hostPort)
	if err != nil {
		return nil, err
	}
	h.address = listener.Addr().String()
	h.server = &http.Server{Handler: h.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := h.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // the listener broke: nobody could watch this process any more
		}
	}()
	return h, nil
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	full := func(w http.ResponseWriter, r *http.Request) { writeHealth(w, h.current(r.Context())) }
	mux.HandleFunc("GET /actuator/health", full)
	mux.HandleFunc("GET /actuator/health/readiness", full)
	mux.HandleFunc("GET /actuator/health/liveness", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, healthReport{Status: statusUp})
	})
	// Temporal registers its metrics with the default mux when it is given no address for them.
	mux.Handle("GET "+metricsPath, http.DefaultServeMux)
	return mux
}

// enter says what the process is doing while it does not serve.
func (h *health) enter(phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase, h.check = phase, nil
}

// serve makes the answer that of the components.
func (h *health) serve(check func(context.Context) map[string]component) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.check, h.checked = check, time.Time{}
}

func (h *health) current(ctx context.Context) healthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.check == nil {
		return healthReport{statusDown, map[string]component{"process": {statusDown, h.phase}}}
	}
	if time.Since(h.checked) < healthCacheTime {
		return h.report
	}
	// The answer is for everyone who waits for the lock: the first caller's hanging up must not spoil it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	defer cancel()
	h.report = healthReport{statusUp, h.check(ctx)}
	for _, c := range h.report.Components {
		if c.Status != statusUp {
			h.report.Status = statusDown
		}
	}
	h.checked = time.Now()
	return h.report
}

func (h *health) close() {
	if h.server != nil {
		_ = h.server.Close()
	}
}

func writeHealth(w http.ResponseWriter, report healthReport) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if report.Status != statusUp {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report)
}
