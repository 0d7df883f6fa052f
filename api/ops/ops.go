// Package ops starts the platform's operations and says how they stand.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/notice"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient"
)

const base = "/api/v1/ops"

var (
	readers = []identity.Role{identity.Operator, identity.Viewer}
	writers = []identity.Role{identity.Operator}
)

// temporalTimeout bounds one call to Temporal while a caller waits.
const temporalTimeout = 5 * time.Second

// Service answers the HTTP operations.
type Service struct {
	temporal client.Client
	store    *operation.Store
	notices  *notice.Deliverer
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
}

// New makes the service. Temporal may be away: what needs it answers that it is unavailable.
func New(temporal client.Client, store *operation.Store, notices *notice.Deliverer, cfg Config, log *slog.Logger) *Service {
	return &Service{temporal: temporal, store: store, notices: notices, cfg: cfg, log: log, now: time.Now}
}

// Mount adds the operations to a server.
func (s *Service) Mount(srv *server.Server) {
	s.mountBackups(srv)
	s.mountRetention(srv)
	s.mountRestores(srv)
	s.mountSmokeTests(srv)
	s.mountRollouts(srv)
	s.mountSchedules(srv)
	s.mountWebhooks(srv)
	srv.Health.Advise("temporal", server.CheckError(func(ctx context.Context) error {
		_, err := s.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	}))
}

// Operation is one operation as callers see it.
type Operation struct {
	ID          string     `json:"id" example:"4g8k2m0x7c"`
	Kind        string     `json:"kind" doc:"rollout, smoke-test, backup, restore-drill, retention or restore."`
	Environment string     `json:"environment,omitempty"`
	Subject     string     `json:"subject" doc:"The service, database or environment."`
	State       string     `json:"state" doc:"Where it stands; which states there are depends on the kind."`
	Summary     string     `json:"summary" doc:"The same in a sentence."`
	StartedBy   string     `json:"startedBy"`
	StartedAt   time.Time  `json:"startedAt"`
	EndedAt     *time.Time `json:"endedAt,omitempty"`
	Steps       []Step     `json:"steps" nullable:"false"`
	Hint        string     `json:"hint,omitempty" doc:"What somebody can do about the step that runs, in Markdown."`
	// Outcome and Input are objects of the kind.
	Outcome json.RawMessage `json:"outcome,omitempty" doc:"What it has come to so far; its fields depend on the kind."`
	Input   json.RawMessage `json:"input,omitempty" doc:"What was asked for."`
	// Activity is what runs at this moment.
	Activity *Activity `json:"activity,omitempty" doc:"What runs at this moment; only of a single operation that has not ended."`
	// Parts are the rollouts of a plan that run at this moment.
	Parts []Operation `json:"parts,omitempty" nullable:"false" doc:"The rollouts of a plan that run at this moment; only of a single plan."`
	// Kept is what retention decided about a backup last; only in lists of backups.
	Kept       *Kept     `json:"kept,omitempty" doc:"What retention decided about a backup last; only in the list of backups."`
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	UpdatedAt  time.Time `json:"updatedAt"`
}

// Step is one step of an operation.
type Step struct {
	Name      string     `json:"name"`
	State     string     `json:"state" enum:"running,done,failed,skipped,cancelled"`
	Detail    string     `json:"detail,omitempty"`
	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
}

// Activity is the part of an operation that runs at this moment.
type Activity struct {
	Name        string          `json:"name"`
	Attempt     int32           `json:"attempt" doc:"Counts from 1."`
	LastFailure string          `json:"lastFailure,omitempty" doc:"Why the attempt before failed."`
	Progress    json.RawMessage `json:"progress,omitempty" doc:"How far it is, such as bytes and tables."`
}

func present(r operation.Record) Operation {
	var result operation.Result
	_ = json.Unmarshal(r.Result, &result) // an empty one where a record has none
	o := Operation{
		ID: r.ID, Kind: string(r.Kind), Environment: r.Environment, Subject: r.Subject, State: r.State, Summary: r.Summary,
		StartedBy: r.StartedBy, StartedAt: recorded(r.StartedAt), Steps: make([]Step, len(result.Steps)), Hint: result.Hint, Outcome: result.Outcome,
		Input: r.Input, WorkflowID: r.WorkflowID, RunID: r.RunID, UpdatedAt: r.UpdatedAt.UTC(),
	}
	if r.EndedAt != nil {
		ended := recorded(*r.EndedAt)
		o.EndedAt = &ended
	}
	for i, step := range result.Steps {
		o.Steps[i] = Step(step)
	}
	return o
}

// Page is some of the operations of a kind, newest first.
type Page struct {
	Content []Operation `json:"content" nullable:"false"`
	Paging
}

// recorded is a time as ops_db keeps it, whoever tells it.
func recorded(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Paging says which part of all a page is. It is exported because huma looks into exported fields only.
type Paging struct {
	Page          int   `json:"page"`
	Size          int   `json:"size"`
	TotalElements int64 `json:"totalElements"`
	TotalPages    int64 `json:"totalPages"`
	First         bool  `json:"first"`
	Last          bool  `json:"last"`
}

// PageInput says which page. It is exported because huma looks into exported fields only.
type PageInput struct {
	Page int `query:"page" minimum:"0" maximum:"1000000" default:"0" doc:"Counts from 0."`
	Size int `query:"size" minimum:"1" maximum:"100" default:"20"`
}

type pageOutput struct{ Body Page }

type oneInput struct {
	ID string `path:"id" minLength:"1" maxLength:"10" doc:"The id, or as much of its beginning as tells it from others."`
}

type operationOutput struct{ Body Operation }

type startedOutput struct {
	Location string `header:"Location" doc:"Where the operation can be watched."`
	Body     Operation
}

// kind is one kind of operation and where it is found.
type kind struct {
	kind operation.Kind
	// path is its collection.
	path string
	// ids and words for the document, in the singular and plural.
	one, many string
	// also are kinds that its collection's {id} finds besides.
	also []operation.Kind
}

// mountKind adds reading of all and of one.
func (s *Service) mountKind(srv *server.Server, k kind) {
	mountList(srv, k, func(ctx context.Context, in *PageInput) (*pageOutput, error) {
		out, err := s.list(ctx, operation.Filter{Kind: k.kind}, *in)
		if err == nil && k.kind == operation.Backup {
			err = s.addKept(ctx, out.Body.Content)
		}
		return out, err
	})
	s.mountOne(srv, k)
}

func mountList[I any](srv *server.Server, k kind, list func(context.Context, *I) (*pageOutput, error)) {
	server.Register(srv, server.Operation{ID: "list-" + k.many, Method: http.MethodGet, Path: k.path,
		Summary: "List " + words(k.many) + ", newest first", Roles: readers}, list)
}

func (s *Service) mountOne(srv *server.Server, k kind) {
	server.Register(srv, server.Operation{ID: "get-" + k.one, Method: http.MethodGet, Path: k.path + "/{id}",
		Summary: "Read a " + words(k.one), Roles: readers, Errors: []int{http.StatusNotFound, http.StatusConflict}},
		func(ctx context.Context, in *oneInput) (*operationOutput, error) {
			o, err := s.one(ctx, in.ID, append(k.also, k.kind)...)
			if err != nil {
				return nil, err
			}
			return &operationOutput{Body: o}, nil
		})
}

func words(name string) string {
	out := []byte(name)
	for i := range out {
		if out[i] == '-' {
			out[i] = ' '
		}
	}
	return string(out)
}

// of is the paging of so many in all.
func (in PageInput) of(total int64) Paging {
	pages := (total + int64(in.Size) - 1) / int64(in.Size)
	return Paging{Page: in.Page, Size: in.Size, TotalElements: total, TotalPages: pages, First: in.Page == 0, Last: int64(in.Page+1) >= pages}
}

func (s *Service) list(ctx context.Context, f operation.Filter, in PageInput) (*pageOutput, error) {
	records, total, err := s.store.List(ctx, f, in.Page, in.Size)
	if err != nil {
		return nil, err
	}
	page := Page{Content: make([]Operation, len(records)), Paging: in.of(total)}
	for i, record := range records {
		page.Content[i] = present(record)
	}
	return &pageOutput{Body: page}, nil
}

// find returns the record of an id or of its beginning, or the problem to answer.
func (s *Service) find(ctx context.Context, id string, kinds ...operation.Kind) (operation.Record, error) {
	record, err := s.store.Get(ctx, id, kinds...)
	switch {
	case errors.Is(err, operation.ErrNotFound):
		return record, server.NotFound(fmt.Sprintf("there is no operation %q of this kind", id))
	case errors.Is(err, operation.ErrAmbiguous):
		return record, server.Conflict(operation.ErrAmbiguous.Error())
	}
	return record, err
}

// temporalProblem is the answer for an error of Temporal.
func temporalProblem(err error) error {
	if temporalclient.Unavailable(err) {
		return server.Unavailable("Temporal, which runs the operations, cannot be reached for now, try again", err)
	}
	return err
}
