package ops

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
)

const (
	// maxStreams is how many may be followed at once in one process: each look asks the database, Temporal and a worker.
	maxStreams = 16
	// lookPause is the time between two looks at what is followed.
	lookPause = 250 * time.Millisecond
	// signOfLife is how often a stream says something, so that nobody on the way takes it for dead.
	signOfLife = 5 * time.Second
	// longestStream is below the SERVER_SHUTDOWN_TIMEOUT of a gateway that stops, which would cut a stream off. Then the caller comes
	// again, with a token that is checked again.
	longestStream = 30 * time.Second
	// comeAgain is the pause before that, as browsers are told.
	comeAgain = 250 * time.Millisecond
)

// streams are the rollouts that are followed.
type streams struct {
	*Service
	free     chan struct{}
	draining <-chan struct{}
}

func (s *Service) mountEvents(srv *server.Server) {
	draining, drain := context.WithCancel(context.Background())
	srv.OnDrain(func(context.Context) { drain() })
	all := &streams{Service: s, free: make(chan struct{}, maxStreams), draining: draining.Done()}
	server.Register(srv, server.Operation{ID: "follow-rollout", Method: http.MethodGet, Path: rollouts.path + "/{id}/events",
		Summary: "Follow a rollout by server-sent events", Roles: readers, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Responses: map[string]*huma.Response{"200": {
			Description: "An event rollout now, and whenever the rollout has changed, with what GET of the rollout answers as data; then one event end, " +
				"once the rollout has ended. The stream ends before when it has lasted long or the service restarts: come again, with the last id as Last-Event-ID.",
			Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}}}, all.follow)
}

type eventsInput struct {
	ID   string `path:"id" minLength:"1" maxLength:"10" doc:"The id, or as much of its beginning as tells it from others."`
	Last string `header:"Last-Event-ID" maxLength:"64" doc:"The id of the last event that you got: what you know is not sent again."`
}

type eventsOutput struct{ Body func(huma.Context) }

func (s *streams) follow(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
	select {
	case s.free <- struct{}{}:
	default:
		return nil, server.Unavailable(fmt.Sprintf("%d rollouts are followed already, as many as may at once, try again", maxStreams), nil)
	}
	o, err := s.one(ctx, in.ID, operation.Rollout)
	if err != nil {
		<-s.free
		return nil, err
	}
	return &eventsOutput{Body: func(hc huma.Context) {
		defer func() { <-s.free }()
		hc.SetHeader("Content-Type", "text/event-stream")
		hc.SetHeader("X-Accel-Buffering", "no") // nginx would hold it back
		hc.SetStatus(http.StatusOK)
		w := humagin.Unwrap(hc).Writer
		e := &events{last: in.Last, send: func(text string) error {
			_, err := w.WriteString(text)
			w.Flush()
			return err
		}}
		_ = s.stream(hc.Context(), o, e) // the caller has gone
	}}, nil
}

// stream sends how the operation goes on. The error is that of the caller's connection.
func (s *streams) stream(ctx context.Context, o Operation, e *events) error {
	if err := e.send(fmt.Sprintf("retry: %d\n\n", comeAgain.Milliseconds())); err != nil {
		return err
	}
	look, life, over := time.NewTimer(lookPause), time.NewTicker(signOfLife), time.NewTimer(longestStream)
	defer look.Stop()
	defer life.Stop()
	defer over.Stop()
	for {
		if err := e.state(o); err != nil || o.EndedAt != nil {
			return err
		}
		select {
		case <-look.C:
			if now, err := s.one(ctx, o.ID, operation.Rollout); err == nil {
				o = now // else ops_db is away: what is known stays
			}
			look.Reset(lookPause)
		case <-life.C:
			if err := e.send(": goes on\n\n"); err != nil {
				return err
			}
		case <-over.C:
			return nil
		case <-s.draining:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// events are what one caller gets (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type events struct {
	send func(string) error
	last string // the id of the last event that the caller has
}

// state sends an operation unless the caller has it as it is, and the end of one that has ended.
func (e *events) state(o Operation) error {
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(o); err != nil {
		return err
	}
	id, err := fingerprint(data.Bytes())
	if err != nil {
		return err
	}
	if id != e.last {
		if err := e.send("event: rollout\nid: " + id + "\ndata: " + data.String() + "\n"); err != nil {
			return err
		}
		e.last = id
	}
	if o.EndedAt != nil {
		return e.send("event: end\ndata: " + o.State + "\n\n")
	}
	return nil
}

// fingerprint is the id of an event: a hash of what it says, so that any process can go on with a stream. It is the same whether the
// workflow says it or the record, which has the order of fields and the time of the last word from the database.
func fingerprint(operation []byte) (string, error) {
	var value map[string]any
	if err := json.Unmarshal(operation, &value); err != nil {
		return "", err
	}
	delete(value, "updatedAt")
	parts, _ := value["parts"].([]any)
	for _, part := range parts {
		delete(part.(map[string]any), "updatedAt")
	}
	canonical, err := json.Marshal(value)
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:8]), err
}
