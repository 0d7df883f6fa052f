package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/target"
)

// Handler offers a target below /v1/.
func Handler(t target.Target) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/releases/{service}", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Path string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			Answer(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		release, err := t.Import(r.Context(), r.PathValue("service"), body.Path)
		Answer(w, release, err)
	})
	mux.HandleFunc("PUT /v1/deployments", func(w http.ResponseWriter, r *http.Request) {
		var d target.Deployment
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			Answer(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		Answer(w, struct{}{}, t.Ensure(r.Context(), d))
	})
	mux.HandleFunc("GET /v1/deployments/{environment}/{service}", func(w http.ResponseWriter, r *http.Request) {
		observed, err := t.Status(r.Context(), r.PathValue("environment"), r.PathValue("service"))
		Answer(w, observed, err)
	})
	mux.HandleFunc("DELETE /v1/deployments/{environment}/{service}/{track}", func(w http.ResponseWriter, r *http.Request) {
		fence, err := strconv.ParseInt(r.URL.Query().Get("fence"), 10, 64)
		if err != nil {
			Answer(w, nil, errors.New("fence is not a number"))
			return
		}
		Answer(w, struct{}{}, t.Remove(r.Context(), r.PathValue("environment"), r.PathValue("service"), r.PathValue("track"), fence))
	})
	mux.HandleFunc("GET /v1/migrations/{environment}/{service}/{release}", func(w http.ResponseWriter, r *http.Request) {
		plan, err := t.Migrations(r.Context(), r.PathValue("environment"), r.PathValue("service"), r.PathValue("release"))
		Answer(w, plan, err)
	})
	mux.HandleFunc("POST /v1/migrations", func(w http.ResponseWriter, r *http.Request) {
		var m target.Migration
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			Answer(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		plan, err := t.Migrate(r.Context(), m)
		Answer(w, plan, err)
	})
	return mux
}

// Client is the target, as the worker reaches it.
type Client struct{ *Caller }

var _ target.Target = Client{}

// answerWithin bounds a call: `sms up` answers at once, or is away. It is below the time in which an activity must report (10 s) and end
// (30 s), so that it can say who is away. A program takes longer to copy, see importWithin.
const (
	answerWithin = 5 * time.Second
	importWithin = 25 * time.Second
	planWithin   = 45 * time.Second // a release is given 30 s to say what it would migrate
)

// NewClient makes a client of the `sms up` that listens on the socket.
func NewClient(socket string) Client { return Client{NewCaller(socket)} }

// Call is Caller's, which does not wait for longer than answerWithin.
func (c Client) Call(ctx context.Context, method, path string, body, into any) error {
	return c.within(ctx, answerWithin, method, path, body, into)
}

func (c Client) within(ctx context.Context, limit time.Duration, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	return c.Caller.Call(ctx, method, path, body, into)
}

// Import implements target.Target; ref is the absolute path of an executable on the machine of `sms up`.
func (c Client) Import(ctx context.Context, service, ref string) (target.Release, error) {
	var release target.Release
	return release, c.within(ctx, importWithin, http.MethodPost, "/v1/releases/"+service, map[string]string{"path": ref}, &release)
}

// Ensure implements target.Target.
func (c Client) Ensure(ctx context.Context, d target.Deployment) error {
	return c.Call(ctx, http.MethodPut, "/v1/deployments", d, nil)
}

// Status implements target.Target.
func (c Client) Status(ctx context.Context, environment, service string) (target.Observed, error) {
	var observed target.Observed
	return observed, c.Call(ctx, http.MethodGet, "/v1/deployments/"+environment+"/"+service, nil, &observed)
}

// Remove implements target.Target.
func (c Client) Remove(ctx context.Context, environment, service, track string, fence int64) error {
	return c.Call(ctx, http.MethodDelete, fmt.Sprintf("/v1/deployments/%s/%s/%s?fence=%d", environment, service, track, fence), nil, nil)
}

// Migrations implements target.Target.
func (c Client) Migrations(ctx context.Context, environment, service, release string) (migration.Plan, error) {
	var plan migration.Plan
	return plan, c.within(ctx, planWithin, http.MethodGet, "/v1/migrations/"+environment+"/"+service+"/"+release, nil, &plan)
}

// Migrate implements target.Target.
func (c Client) Migrate(ctx context.Context, m target.Migration) (migration.Plan, error) {
	var plan migration.Plan
	return plan, c.Caller.Call(ctx, http.MethodPost, "/v1/migrations", m, &plan) // for as long as it takes
}
