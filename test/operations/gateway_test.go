package operations

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

const gatewayToken = "the-token-of-smoke-tests"

// gateway stands for an environment: it keeps students in memory, and misbehaves when told to.
type gateway struct {
	*httptest.Server

	mu       sync.Mutex
	students map[string]map[string]any
	versions map[string]int
	made     int
	// broken changes an answer's status, by "METHOD path".
	broken map[string]int
	// silent are requests that are not answered, by "METHOD path": each once, saying so when it has come.
	silent map[string]chan struct{}
	// counted makes synthetic students appear in the statistics.
	counted bool
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{students: map[string]map[string]any{}, versions: map[string]int{}, broken: map[string]int{}, silent: map[string]chan struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /actuator/health", func(w http.ResponseWriter, _ *http.Request) {
		up := map[string]any{"status": "UP", "details": map[string]any{"instances": 2}}
		answer(w, 200, map[string]any{"status": "UP", "components": map[string]any{
			"student-service": up, "configuration-service": up, "ops-service": up}})
	})
	mux.HandleFunc("GET /api/v1/students/statistics", g.statistics)
	mux.HandleFunc("POST /api/v1/students", g.create)
	mux.HandleFunc("GET /api/v1/students/{id}", g.one)
	mux.HandleFunc("PATCH /api/v1/students/{id}/status", g.one)
	mux.HandleFunc("DELETE /api/v1/students/{id}", g.one)
	mux.HandleFunc("GET /api/v1/configurations/settings/category/GENERAL", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []any{}) })
	g.Server = httptest.NewServer(g.guard(mux))
	t.Cleanup(g.Close)
	return g
}

func (g *gateway) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if reached := g.silent[r.Method+" "+r.URL.Path]; reached != nil {
			delete(g.silent, r.Method+" "+r.URL.Path)
			close(reached)
			g.mu.Unlock()
			<-r.Context().Done()
			g.mu.Lock()
			return
		}
		if status := g.broken[r.Method+" "+r.URL.Path]; status != 0 {
			answer(w, status, map[string]any{"title": "Internal error", "detail": "a detail that may name somebody"})
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") && r.Header.Get("Authorization") != "Bearer "+gatewayToken {
			answer(w, http.StatusUnauthorized, nil)
			return
		}
		w.Header().Set("X-SMS-Release", "sha256:one")
		next.ServeHTTP(w, r)
	})
}

func (g *gateway) statistics(w http.ResponseWriter, _ *http.Request) {
	byCaste := map[string]int{"General": 7}
	for _, s := range g.students {
		if g.counted {
			byCaste[fmt.Sprint(s["caste"])]++
		}
	}
	answer(w, 200, map[string]any{"total": 7, "byCaste": byCaste})
}

func (g *gateway) create(w http.ResponseWriter, r *http.Request) {
	var s map[string]any
	_ = json.NewDecoder(r.Body).Decode(&s)
	if r.Header.Get("X-SMS-Synthetic") != "true" || !strings.HasPrefix(fmt.Sprint(s["mobile"]), "00") {
		answer(w, http.StatusUnprocessableEntity, nil)
		return
	}
	g.made++
	id := fmt.Sprintf("STU-2026-9%08d", g.made)
	s["studentId"], s["status"] = id, "ACTIVE"
	g.students[id], g.versions[id] = s, 1
	g.write(w, 201, id)
}

func (g *gateway) one(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s, ok := g.students[id]
	switch {
	case !ok:
		answer(w, http.StatusNotFound, nil)
	case r.Method != http.MethodGet && r.Header.Get("If-Match") != g.etag(id):
		answer(w, http.StatusPreconditionFailed, nil)
	case r.Method == http.MethodDelete:
		delete(g.students, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		g.versions[id]++
		s["status"] = "INACTIVE"
		g.write(w, 200, id)
	default:
		g.write(w, 200, id)
	}
}

func (g *gateway) etag(id string) string { return fmt.Sprintf(`"%d"`, g.versions[id]) }

func (g *gateway) write(w http.ResponseWriter, status int, id string) {
	w.Header().Set("ETag", g.etag(id))
	answer(w, status, g.students[id])
}

// left counts the students that nobody removed.
func (g *gateway) left() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.students)
}

func (g *gateway) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
