package ops

import (
	"context"
	"net/http"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
)

// mountRolloutReads adds what answers who released what, when, and why it failed.
func (s *Service) mountRolloutReads(srv *server.Server) {
	mountList(srv, rollouts, func(ctx context.Context, in *rolloutsInput) (*pageOutput, error) {
		return s.list(ctx, operation.Filter{Kind: operation.Rollout, Environment: in.Environment, Subject: in.Service, State: in.State}, in.PageInput)
	})
	s.mountOne(srv, rollouts)
	s.mountEvents(srv)
	server.Register(srv, server.Operation{ID: "list-promotions", Method: http.MethodGet, Path: base + "/promotions",
		Summary: "List the releases that have become the stable ones, newest first", Roles: readers}, s.promotions)
}

// RolloutFilter is exported because huma looks into exported fields only.
type RolloutFilter struct {
	Environment string `query:"environment" maxLength:"50" doc:"Only of this environment; plans that have it among others too." example:"production"`
	Service     string `query:"service" maxLength:"50" doc:"Only of this service; plans that have it among others too." example:"student-service"`
}

type rolloutsInput struct {
	PageInput
	RolloutFilter
	State string `query:"state" maxLength:"20" doc:"Only in this state: running, succeeded, failed, rolled-back, aborted, …" example:"rolled-back"`
}

type promotionsInput struct {
	PageInput
	RolloutFilter
	Current bool `query:"current" doc:"Only the newest of each service in each environment: what is known to be good there."`
}

// PromotionPage is some of the promotions, newest first.
type PromotionPage struct {
	Content []rollout.Promotion `json:"content" nullable:"false"`
	Paging
}

type promotionsOutput struct{ Body PromotionPage }

func (s *Service) promotions(ctx context.Context, in *promotionsInput) (*promotionsOutput, error) {
	found, total, err := s.store.NewestPromotions(ctx, in.Environment, in.Service, in.Current, in.Page, in.Size)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i].PromotedAt = found[i].PromotedAt.UTC()
	}
	return &promotionsOutput{Body: PromotionPage{Content: found, Paging: in.of(total)}}, nil
}
