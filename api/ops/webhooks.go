package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/notice"
)

const webhooks = base + "/webhooks"

// Webhook is one that is told what happens to operations. Its address is not shown: it may be a secret.
type Webhook struct {
	Name   string   `json:"name" example:"office-chat"`
	Signed bool     `json:"signed" doc:"Whether messages to it are signed."`
	Kinds  []string `json:"kinds" nullable:"false" doc:"The kinds of operations that it is told of. Empty: all."`
	States []string `json:"states" nullable:"false" doc:"The states that it is told of. Empty: all but running."`
	// Failures and what follows are of the last look, a second or so ago.
	Failures     int        `json:"failures" doc:"How often in a row it did not take a notice."`
	Failure      string     `json:"failure,omitempty" doc:"Why not the last time."`
	LastSent     *time.Time `json:"lastSent,omitempty" doc:"When it last took a notice."`
	LastFailed   *time.Time `json:"lastFailed,omitempty" doc:"When it last did not."`
	WaitingSince *time.Time `json:"waitingSince,omitempty" doc:"When that happened which it has not taken yet."`
}

type webhooksOutput struct {
	Body struct {
		Content []Webhook `json:"content" nullable:"false"`
	}
}

type webhookInput struct {
	Name string `path:"name" minLength:"1" maxLength:"63" example:"office-chat"`
}

// WebhookTest is what came of a test.
type WebhookTest struct {
	Taken  bool   `json:"taken"`
	Reason string `json:"reason,omitempty" doc:"Why not."`
}

type webhookTestOutput struct{ Body WebhookTest }

func (s *Service) mountWebhooks(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "list-webhooks", Method: http.MethodGet, Path: webhooks,
		Summary: "List who is told what happens to operations", Roles: readers}, s.listWebhooks)
	server.Register(srv, server.Operation{ID: "test-webhook", Method: http.MethodPost, Path: webhooks + "/{name}/test",
		Summary: "Send a webhook a notice of nothing, now", Roles: writers, Errors: []int{http.StatusNotFound}}, s.testWebhook)
}

func (s *Service) listWebhooks(context.Context, *struct{}) (*webhooksOutput, error) {
	reports, _ := s.notices.Reports() // what could not be read is in the health
	out := &webhooksOutput{}
	out.Body.Content = make([]Webhook, len(reports))
	for i, r := range reports {
		kinds := make([]string, len(r.Webhook.Events.Kinds))
		for k, kind := range r.Webhook.Events.Kinds {
			kinds[k] = string(kind)
		}
		out.Body.Content[i] = Webhook{Name: r.Name, Signed: r.Webhook.Signed(), Kinds: kinds, States: append([]string{}, r.Webhook.Events.States...),
			Failures: r.Failures, Failure: r.Failure, LastSent: utc(r.SentAt), LastFailed: utc(r.FailedAt), WaitingSince: utc(r.WaitingSince)}
	}
	return out, nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	at := t.UTC()
	return &at
}

func (s *Service) testWebhook(ctx context.Context, in *webhookInput) (*webhookTestOutput, error) {
	failure, err := s.notices.Test(ctx, in.Name, identity.FromContext(ctx).User)
	if errors.Is(err, notice.ErrUnknown) {
		return nil, server.NotFound(fmt.Sprintf("there is no webhook %q; there are %q", in.Name, s.notices.Names()))
	}
	return &webhookTestOutput{Body: WebhookTest{Taken: failure == "", Reason: failure}}, err
}

// notifyFaults names the webhooks that a plan wants told and that there are not.
func (s *Service) notifyFaults(names []string) (faults []server.Fault) {
	known := s.notices.Names()
	for i, name := range names {
		if !slices.Contains(known, name) {
			faults = append(faults, server.Fault{Field: fmt.Sprintf("notify[%d]", i), Code: "invalid",
				Detail: fmt.Sprintf("%q is no webhook; there are %q (OPS_WEBHOOKS_FILE)", name, known)})
		}
	}
	return faults
}

// checkWebhooks is DOWN while a webhook does not take what it is told, or when that cannot be said.
func checkWebhooks(d *notice.Deliverer) server.Check {
	return func(context.Context) server.Component {
		c := server.Component{Status: server.Up, Details: map[string]any{}}
		reports, fault := d.Reports()
		for _, r := range reports {
			c.Details[r.Name] = "takes what it is told"
			if r.Failures > 0 {
				c.Status = server.Down
				c.Details[r.Name] = fmt.Sprintf("has not taken a notice %d times in a row: %s", r.Failures, r.Failure)
			}
		}
		if fault != nil {
			c.Status = server.Down
			c.Details["fault"] = strings.Split(fault.Error(), "\n")
		}
		return c
	}
}
