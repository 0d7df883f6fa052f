package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"

	"github.com/school-sms/sms/api/server"
)

// documents serves one OpenAPI document for all routed services, made of theirs.
type documents struct {
	routes []route
	fleets map[string]*fleet
	cfg    Config

	mu      sync.Mutex
	fetched map[string]fetchedDocument // by service
}

type fetchedDocument struct {
	at       time.Time
	document document
}

func newDocuments(routes []route, fleets map[string]*fleet, cfg Config) *documents {
	return &documents{routes: routes, fleets: fleets, cfg: cfg, fetched: map[string]fetchedDocument{}}
}

// mergedBase is where the merged document is served within the process; callers see it in the place of the server's own.
const mergedBase = "/merged"

// mount puts the merged document in the place of the gateway's own, which has no operations.
func (d *documents) mount(s *server.Server) {
	s.Engine.GET(mergedBase+"/openapi.json", d.answer("application/openapi+json", json.Marshal))
	s.Engine.GET(mergedBase+"/openapi.yaml", d.answer("application/openapi+yaml", func(v any) ([]byte, error) {
		encoded, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		return yaml.JSONToYAML(encoded)
	}))
	s.Wrap(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/openapi.json", "/openapi.yaml", "/openapi-3.0.json", "/openapi-3.0.yaml":
				address := *r.URL
				address.Path, address.RawPath = mergedBase+r.URL.Path, ""
				r = r.WithContext(r.Context())
				r.URL = &address
			}
			next.ServeHTTP(w, r)
		})
	})
}

func (d *documents) answer(contentType string, encode func(any) ([]byte, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		encoded, err := encode(d.merged(c.Request.Context()))
		if err != nil {
			server.WriteProblem(c, fmt.Errorf("encode the OpenAPI document: %w", err))
			return
		}
		c.Data(http.StatusOK, contentType, encoded)
	}
}

// merged makes the document of what every service says now. A service that is away is shown as it last was.
func (d *documents) merged(ctx context.Context) document {
	parts := make([]document, len(d.routes))
	var wg sync.WaitGroup
	for i, r := range d.routes {
		wg.Go(func() { parts[i] = d.of(ctx, r) })
	}
	wg.Wait()
	all := newMerged()
	for i, r := range d.routes {
		all.add(r, parts[i])
	}
	describeDoor(all.document, d.routes, d.cfg.Door)
	return all.document
}

// of returns the document of one service, not older than the configuration says if the service is there.
func (d *documents) of(ctx context.Context, r route) document {
	d.mu.Lock()
	last := d.fetched[r.service]
	d.mu.Unlock()
	if time.Since(last.at) < d.cfg.DocumentTTL {
		return last.document.copy()
	}
	fresh, err := d.fetch(ctx, d.fleets[r.service])
	if err != nil {
		return last.document.copy()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetched[r.service] = fetchedDocument{time.Now(), fresh}
	return fresh.copy()
}

func (d *documents) fetch(ctx context.Context, f *fleet) (document, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.DocumentTimeout)
	defer cancel()
	u, _ := f.current.Load().pick(&wish{now: sinceStart()})
	if u == nil {
		return nil, errNoInstance
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Address()+"/openapi.json", nil)
	if err != nil {
		return nil, err
	}
	res, err := f.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", u.ID, res.StatusCode)
	}
	const maxBytes = 8 << 20
	var fetched document
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, maxBytes)).Decode(&fetched); err != nil {
		return nil, fmt.Errorf("read the document of %s: %w", u.ID, err)
	}
	return fetched, nil
}
