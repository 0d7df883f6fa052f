package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/temporalclient"
	flow "github.com/school-sms/sms/workflows/rollout"
)

var rollouts = kind{kind: operation.Rollout, path: base + "/rollouts", one: "rollout", many: "rollouts"}

func (s *Service) mountRollouts(srv *server.Server) {
	s.mountKind(srv, rollouts)
	server.Register(srv, server.Operation{ID: "start-rollout", Method: http.MethodPost, Path: rollouts.path, Status: http.StatusAccepted,
		Summary: "Replace the release of a service while it serves", Roles: writers, Errors: []int{http.StatusConflict}}, s.startRollout)
	server.Register(srv, server.Operation{ID: "abort-rollout", Method: http.MethodPost, Path: rollouts.path + "/{id}/abort",
		Summary: "End a rollout: traffic goes back to the stable release, the new one is removed", Roles: writers,
		Errors: []int{http.StatusNotFound, http.StatusConflict}}, s.abortRollout)
}

type startRolloutInput struct {
	Body struct {
		Environment string `json:"environment" example:"production"`
		Service     string `json:"service" example:"student-service"`
		Release     string `json:"release" doc:"What the target runs: the absolute path of an executable on the platform's machine." example:"/srv/releases/student-service"`
		Weights     []int  `json:"weights,omitempty" nullable:"false" doc:"Percentages of traffic, rising to 100." example:"[10,50,100]"`
		Soak        string `json:"soak,omitempty" doc:"How long each weight is watched." example:"5s"`
		ReadyWithin string `json:"readyWithin,omitempty" doc:"How long new instances may take to become ready." example:"60s"`
	}
}

func (s *Service) startRollout(ctx context.Context, in *startRolloutInput) (*startedOutput, error) {
	if !s.cfg.Rollouts() {
		return nil, server.Conflict("no rollouts here: no target is configured (TARGET_SOCKET)")
	}
	caller := identity.FromContext(ctx)
	asked := rollout.Request{Environment: in.Body.Environment, Service: in.Body.Service, Release: in.Body.Release,
		Weights: in.Body.Weights, RequestedBy: caller.User}
	faults := append(readDuration("soak", in.Body.Soak, &asked.Soak), readDuration("readyWithin", in.Body.ReadyWithin, &asked.ReadyWithin)...)
	asked = asked.WithDefaults()
	for _, f := range asked.Faults() {
		faults = append(faults, server.Fault{Field: f.Field, Code: "invalid", Detail: f.Detail})
	}
	if len(faults) > 0 {
		return nil, server.Invalid(faults...)
	}
	return s.start(ctx, request{
		kind: operation.Rollout, workflowID: rollout.WorkflowID(asked.Environment, asked.Service), workflow: flow.Rollout, input: asked,
		summary:     fmt.Sprintf("Rollout of %s in %s", asked.Service, asked.Environment),
		environment: asked.Environment, subject: asked.Service, startedBy: caller.User,
	}, rollouts.path)
}

func readDuration(field, text string, into *time.Duration) []server.Fault {
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return []server.Fault{{Field: field, Code: "wrong-format", Detail: fmt.Sprintf("%q is not a time such as 30s or 5m", text)}}
	}
	*into = d
	return nil
}

type abortInput struct {
	ID   string `path:"id" minLength:"1" maxLength:"10" doc:"The id, or as much of its beginning as tells it from others."`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why, for the record."`
	}
}

func (s *Service) abortRollout(ctx context.Context, in *abortInput) (*operationOutput, error) {
	record, _, err := s.read(ctx, in.ID, operation.Rollout)
	if err != nil {
		return nil, err
	}
	if record.Ended() {
		return nil, server.Conflict(fmt.Sprintf("rollout %s has ended: %s", record.ID, record.State))
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	handle, err := s.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: record.WorkflowID, RunID: record.RunID, UpdateName: flow.AbortUpdate, WaitForStage: client.WorkflowUpdateStageCompleted,
		Args: []any{flow.AbortInput{User: identity.FromContext(ctx).User, Reason: in.Body.Reason}},
	})
	if err == nil {
		err = handle.Get(ctx, nil)
	}
	if refused, ok := errors.AsType[*serviceerror.NotFound](err); ok {
		return nil, server.Conflict("the rollout has just ended: " + refused.Message)
	}
	if err != nil && temporalclient.Unavailable(err) {
		return nil, temporalProblem(err)
	}
	if err != nil {
		return nil, server.Conflict("not aborted: " + err.Error())
	}
	return &operationOutput{Body: present(record)}, nil
}
