package ops

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/temporalclient"
	flow "github.com/school-sms/sms/workflows/rollout"
)

var rollouts = kind{kind: operation.Rollout, path: base + "/rollouts", one: "rollout", many: "rollouts"}

func (s *Service) mountRollouts(srv *server.Server) {
	s.mountRolloutReads(srv)
	server.Register(srv, server.Operation{ID: "start-rollout", Method: http.MethodPost, Path: rollouts.path, Status: http.StatusAccepted,
		Summary: "Replace the release of a service while it serves", Roles: writers, Errors: []int{http.StatusConflict}}, s.startRollout)
	server.Register(srv, server.Operation{ID: "preview-rollout", Method: http.MethodPost, Path: rollouts.path + "/preview",
		Summary: "Resolve what would be rolled out, and change nothing", Roles: writers, Errors: []int{http.StatusConflict}}, s.previewRollout)
	server.Register(srv, server.Operation{ID: "approve-rollout", Method: http.MethodPost, Path: rollouts.path + "/{id}/approve",
		Summary: "Let a plan go on to production", Roles: writers, Errors: []int{http.StatusNotFound, http.StatusConflict}}, s.approve)
	for _, d := range []struct{ update, summary string }{
		{flow.AbortUpdate, "End a rollout: traffic goes back to the stable release, the new one is removed"},
		{flow.PauseUpdate, "Hold the traffic of a rollout where it is; a release that turns bad is put back all the same"},
		{flow.ResumeUpdate, "Let a paused rollout go on"},
		{flow.SkipUpdate, "End the present soak of a rollout"},
		{flow.PromoteUpdate, "Give the new release all traffic without further soaks"},
		{flow.ThawUpdate, "Let a plan go on without waiting for the end of a freeze"},
	} {
		server.Register(srv, server.Operation{ID: d.update + "-rollout", Method: http.MethodPost, Path: rollouts.path + "/{id}/" + d.update,
			Summary: d.summary, Roles: writers, Errors: []int{http.StatusNotFound, http.StatusConflict}},
			func(ctx context.Context, in *decisionInput) (*operationOutput, error) {
				return s.decide(ctx, d.update, in)
			})
	}
}

type startRolloutInput struct {
	RequestID string `header:"Idempotency-Key" maxLength:"255" doc:"Names this request. Sent again by you with the same body it is answered with the rollout that it has begun." example:"8e03978e-40d5-43dd-bc93-6894a57f9324"`
	Body      RolloutPlan
}

// RolloutPlan is what callers ask for, and the schema of plan files.
type RolloutPlan struct {
	Environment   string   `json:"environment,omitempty" doc:"Where to." example:"production"`
	Environments  []string `json:"environments,omitempty" nullable:"false" doc:"Instead of environment: several, one after the other." example:"[\"staging\",\"production\"]"`
	Service       string   `json:"service,omitempty" example:"student-service"`
	Release       string   `json:"release,omitempty" doc:"What the target runs: the absolute path of an executable on the platform's machine, or the digest of a release that it knows." example:"/srv/releases/student-service"`
	Services      []part   `json:"services,omitempty" nullable:"false" doc:"Instead of service and release: several, which are rolled out in the order in which they depend on each other."`
	Gate          *bool    `json:"gate,omitempty" doc:"Wait before production until somebody approves. Default: true when there are several environments."`
	OtherApprover bool     `json:"otherApprover,omitempty" doc:"Refuse the approval of whoever asks for it now."`
	ApproveWithin string   `json:"approveWithin,omitempty" doc:"How long it waits for an approval." example:"24h"`
	Unproven      string   `json:"unproven,omitempty" maxLength:"500" doc:"Why the release may go to production though staging does not run it." example:"staging is being rebuilt"`
	Rollback      bool     `json:"rollback,omitempty" doc:"Instead of a release: go back at once to the last one that is known to be good."`
	Strategy      string   `json:"strategy,omitempty" enum:"canary,blue-green,rolling" doc:"canary: traffic moves in steps; blue-green: at once; rolling: instance by instance. Default: canary, which is rolling for the gateway and the registry."`
	Weights       []int    `json:"weights,omitempty" nullable:"false" doc:"Percentages of traffic of a canary, rising to 100." example:"[10,50,100]"`
	Soak          string   `json:"soak,omitempty" doc:"How long each weight is watched." example:"5s"`
	ReadyWithin   string   `json:"readyWithin,omitempty" doc:"How long new instances may take to become ready." example:"60s"`
	Rules         []rule   `json:"rules,omitempty" nullable:"false" doc:"What the release must keep to while it has traffic. Default: at most 1 % errors, 250 ms for 95 of 100 answers and 256 MiB. Empty: only its instances are watched."`
	MinRequests   int      `json:"minRequests,omitempty" doc:"How many requests it must have answered at each weight before it can be called good." example:"50"`
	SureWithin    string   `json:"sureWithin,omitempty" doc:"How long after the soak it may be undecided before everything is put back." example:"5m"`
	Freezes       []freeze `json:"freezes,omitempty" nullable:"false" doc:"Times in which nothing new is begun, besides those of the platform. A rollback is never held."`
	Thaw          string   `json:"thaw,omitempty" maxLength:"500" doc:"Why it is begun in such a time all the same." example:"pupils cannot log in"`
	Supersede     bool     `json:"supersede,omitempty" doc:"End what is under way of a service first: its release loses its traffic and its instances, its record says superseded. Otherwise that is a conflict."`
	Notify        []string `json:"notify,omitempty" nullable:"false" doc:"The webhooks that are told of it, by their names. Default: all, each by its own filter." example:"[\"office-chat\"]"`
}

// part is a service and its release.
type part struct {
	Service string `json:"service" example:"student-service"`
	Release string `json:"release" doc:"As above." example:"/srv/releases/student-service"`
	Wave    int    `json:"wave,omitempty" minimum:"1" maximum:"100" doc:"Services of the same wave are rolled out at once. Default: each alone, in the order in which they depend on each other." example:"1"`
}

// freeze is a rollout.Freeze as callers write it.
type freeze struct {
	From         string   `json:"from" doc:"When it begins: a cron expression of five fields, in the zone, by the clock on the wall." example:"0 18 * * 5"`
	Until        string   `json:"until" doc:"When it ends, likewise." example:"0 6 * * 1"`
	Zone         string   `json:"zone" doc:"An IANA time zone." example:"Asia/Kolkata"`
	Reason       string   `json:"reason" maxLength:"500" doc:"Told to whom it stops." example:"nobody is there at the weekend"`
	Environments []string `json:"environments,omitempty" nullable:"false" doc:"Default: all." example:"[\"production\"]"`
}

// rule is a rollout.Rule as callers write it.
type rule struct {
	Metric   string  `json:"metric" enum:"error-rate,latency,memory,promql" doc:"error-rate: the share of answers with a status of 500 or more; latency: a quantile of the time from the request to the end of its answer; memory: what the largest instance holds resident; promql: what a query of yours comes to."`
	Name     string  `json:"name,omitempty" maxLength:"63" doc:"Of a promql rule: what it tells, for people; of each another." example:"slow logins"`
	Query    string  `json:"query,omitempty" maxLength:"2000" doc:"Of a promql rule: PromQL with ${release}, ${service}, ${environment} and ${window} (the time since the release got its share of the traffic). It must come to one number, for the new release and for the stable one." example:"sum(rate(logins_slow_total{release=\"${release}\"}[${window}]))"`
	Quantile float64 `json:"quantile,omitempty" doc:"Of a latency, from 0.5 to below 1. Default: 0.95." example:"0.95"`
	Max      float64 `json:"max" doc:"A share (0.01 is 1 %), a time in seconds, bytes, or in the query's unit. The rule is broken by what is worse than this, and worse than ratio × the stable release in the same time." example:"0.01"`
	Ratio    float64 `json:"ratio,omitempty" doc:"From 1 to 100. Default: 1.5." example:"1.5"`
}

func (s *Service) startRollout(ctx context.Context, in *startRolloutInput) (*startedOutput, error) {
	plan, single, err := s.checkedPlan(in, identity.FromContext(ctx).User)
	if err != nil {
		return nil, err
	}
	return s.startOnce(ctx, in.RequestID, rolloutOf(plan, single, s.now()))
}

// checkedPlan is what is asked for, and whether it is a rollout alone; or all that is wrong with it.
func (s *Service) checkedPlan(in *startRolloutInput, user string) (plan rollout.Plan, single bool, err error) {
	if !s.cfg.Rollouts() {
		return plan, false, server.Conflict("no rollouts here: no target is configured (TARGET_SOCKET)")
	}
	plan, faults := planOf(in, user)
	single = len(in.Body.Environments) == 0 && len(in.Body.Services) == 0 && !in.Body.Supersede
	found := plan.Faults()
	if single {
		found = plan.Each.Faults()
	}
	for _, f := range found {
		faults = append(faults, server.Fault{Field: f.Field, Code: "invalid", Detail: f.Detail})
	}
	for _, part := range plan.Services {
		if !slices.Contains(rollout.Services(), part.Service) {
			faults = append(faults, server.Fault{Field: "service", Code: "unknown", Detail: fmt.Sprintf("%q is none of %v", part.Service, rollout.Services())})
		}
	}
	for i, r := range plan.Each.Rules {
		if r.Metric == rollout.PromQL && s.cfg.PrometheusURL == "" {
			faults = append(faults, server.Fault{Field: fmt.Sprintf("rules[%d].metric", i), Code: "invalid", Detail: "there is no Prometheus to ask: PROMETHEUS_URL is not set"})
		}
	}
	if faults = append(faults, s.notifyFaults(plan.Each.Notify)...); len(faults) > 0 {
		return plan, single, server.Invalid(faults...)
	}
	return plan, single, nil
}

type previewInput struct{ Body RolloutPlan }

type previewOutput struct{ Body flow.Previewed }

// previewRollout is answered by a worker, which knows the target. It is no operation, and leaves no record.
func (s *Service) previewRollout(ctx context.Context, in *previewInput) (*previewOutput, error) {
	plan, single, err := s.checkedPlan(&startRolloutInput{Body: in.Body}, identity.FromContext(ctx).User)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, flow.PreviewTimeout)
	defer cancel()
	run, err := s.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "rollout-preview/" + rand.Text(), TaskQueue: temporalclient.TaskQueue, WorkflowExecutionTimeout: flow.PreviewTimeout,
		StaticSummary: "What would be rolled out of " + plan.Subject(),
	}, flow.Preview, flow.PreviewInput{Plan: plan, Alone: single})
	if err != nil {
		return nil, temporalProblem(err)
	}
	out := &previewOutput{}
	err = run.Get(ctx, &out.Body)
	if refused, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return nil, server.Conflict(refused.Message())
	}
	if _, late := errors.AsType[*temporal.TimeoutError](err); late || ctx.Err() != nil {
		return nil, server.Unavailable("no worker, or no target, has answered in time: try again", err)
	}
	return out, err
}

// rolloutOf is the operation that does the plan, or its Each alone.
func rolloutOf(plan rollout.Plan, single bool, now time.Time) request {
	if one := plan.Each; single {
		return request{
			kind: operation.Rollout, workflowID: rollout.WorkflowID(one.Environment, one.Service), workflow: flow.Rollout, input: one,
			summary:     fmt.Sprintf("Rollout of %s in %s", one.Service, one.Environment),
			environment: one.Environment, subject: one.Service, startedBy: one.RequestedBy,
		}
	}
	environments := strings.Join(plan.Environments, ", ")
	return request{
		kind: operation.Rollout, workflowID: rollout.PlanID(plan, now), workflow: flow.RolloutPlan, input: plan,
		summary:     fmt.Sprintf("Rollout of %s in %s", plan.Subject(), environments),
		environment: environments, subject: plan.Subject(), startedBy: plan.RequestedBy,
	}
}

// startOnce starts an operation unless the caller has asked for it before under the same id, which is part of its input. The lock of the
// operation's workflow decides between two requests that come at once.
func (s *Service) startOnce(ctx context.Context, id string, r request) (*startedOutput, error) {
	if id == "" {
		return s.start(ctx, r, rollouts.path)
	}
	if known, err := s.begun(ctx, id, r); known != nil || err != nil {
		return known, err
	}
	started, err := s.start(ctx, r, rollouts.path)
	if err == nil {
		return started, nil
	}
	// The same request may have come first a moment ago, and be recorded in the next.
	tick := time.NewTicker(recordedWithin / 20)
	defer tick.Stop()
	for over := time.After(recordedWithin); ; {
		if known, _ := s.begun(ctx, id, r); known != nil {
			return known, nil
		}
		select {
		case <-tick.C:
		case <-over:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// recordedWithin is how long after its workflow has begun an operation is on record, when ops_db is well.
const recordedWithin = time.Second

// begun is the operation that the caller has asked for under an id; nil when there is none. The id of another request is a conflict.
func (s *Service) begun(ctx context.Context, id string, r request) (*startedOutput, error) {
	record, err := s.store.OfRequest(ctx, r.kind, r.startedBy, id)
	if errors.Is(err, operation.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	asked, err := json.Marshal(r.input)
	if err != nil {
		return nil, fmt.Errorf("encode a request: %w", err)
	}
	var before, now any
	if err := errors.Join(json.Unmarshal(record.Input, &before), json.Unmarshal(asked, &now)); err != nil {
		return nil, fmt.Errorf("compare two requests: %w", err)
	}
	if !reflect.DeepEqual(before, now) {
		return nil, server.Invalid(server.Fault{Field: "Idempotency-Key", Code: "reused", Detail: "belongs to another request of yours, which has begun " + record.ID})
	}
	return &startedOutput{Location: rollouts.path + "/" + record.ID, Body: present(record)}, nil
}

// planOf reads what is asked for. A request for one service in one environment is the plan's Each alone.
func planOf(in *startRolloutInput, user string) (rollout.Plan, []server.Fault) {
	body := in.Body
	one := rollout.Request{Environment: body.Environment, Service: body.Service, Release: body.Release, Weights: body.Weights, RequestedBy: user,
		Minimum: body.MinRequests, Rollback: body.Rollback, Unproven: body.Unproven, RequestID: in.RequestID,
		Strategy: body.Strategy, Thaw: body.Thaw, Notify: body.Notify}
	for _, f := range body.Freezes {
		one.Freezes = append(one.Freezes, rollout.Freeze(f))
	}
	if body.Rules != nil {
		one.Rules = make([]rollout.Rule, len(body.Rules))
		for i, r := range body.Rules {
			one.Rules[i] = rollout.Rule(r)
		}
	}
	plan := rollout.Plan{Environments: body.Environments, OtherApprover: body.OtherApprover, Supersede: body.Supersede, RequestedBy: user}
	faults := slices.Concat(readDuration("soak", body.Soak, &one.Soak), readDuration("readyWithin", body.ReadyWithin, &one.ReadyWithin),
		readDuration("sureWithin", body.SureWithin, &one.SureWithin), readDuration("approveWithin", body.ApproveWithin, &plan.ApproveWithin))
	either := func(field, plural string, both bool) {
		if both {
			faults = append(faults, server.Fault{Field: field, Code: "invalid", Detail: "is not for a request with " + plural})
		}
	}
	either("environment", "environments", len(body.Environments) > 0 && body.Environment != "")
	either("service", "services", len(body.Services) > 0 && (body.Service != "" || body.Release != ""))
	if len(plan.Environments) == 0 {
		plan.Environments = []string{body.Environment}
	}
	if plan.Gate = len(plan.Environments) > 1; body.Gate != nil {
		plan.Gate = *body.Gate
	}
	plan.Services = []rollout.Part{{Service: body.Service, Release: body.Release}}
	if len(body.Services) > 0 {
		plan.Services = plan.Services[:0]
		for _, p := range body.Services {
			plan.Services = append(plan.Services, rollout.Part(p))
		}
	}
	plan.RequestID = in.RequestID
	if len(body.Environments) > 0 || len(body.Services) > 0 || body.Supersede {
		one.RequestID = "" // the plan's
	}
	plan.Each = one
	return plan.WithDefaults(), faults
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

type approvalInput struct {
	ID   string `path:"id" minLength:"1" maxLength:"10" doc:"The id, or as much of its beginning as tells it from others."`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why, for the record."`
		Plan   string `json:"plan" minLength:"1" maxLength:"64" doc:"The plan's hash, as its outcome shows it: of another plan the approval is refused."`
	}
}

func (s *Service) approve(ctx context.Context, in *approvalInput) (*operationOutput, error) {
	by := flow.Decision{User: identity.FromContext(ctx).User, Reason: in.Body.Reason}
	return s.update(ctx, in.ID, flow.ApproveUpdate, flow.Approval{Decision: by, Hash: in.Body.Plan})
}

type decisionInput struct {
	ID   string `path:"id" minLength:"1" maxLength:"10" doc:"The id, or as much of its beginning as tells it from others."`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why, for the record."`
	}
}

// decide sends a rollout what somebody has decided about it.
func (s *Service) decide(ctx context.Context, update string, in *decisionInput) (*operationOutput, error) {
	return s.update(ctx, in.ID, update, flow.Decision{User: identity.FromContext(ctx).User, Reason: in.Body.Reason})
}

func (s *Service) update(ctx context.Context, id, update string, decision any) (*operationOutput, error) {
	record, _, err := s.read(ctx, id, operation.Rollout)
	if err != nil {
		return nil, err
	}
	if record.Ended() {
		return nil, server.Conflict(fmt.Sprintf("rollout %s has ended: %s", record.ID, record.State))
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	handle, err := s.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: record.WorkflowID, RunID: record.RunID, UpdateName: update, WaitForStage: client.WorkflowUpdateStageCompleted,
		Args: []any{decision},
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
		return nil, server.Conflict(fmt.Sprintf("%s is refused: %s", update, err.Error()))
	}
	return &operationOutput{Body: present(record)}, nil
}
