package registry

import (
	"context"
	"errors"
	"net/http"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/identity"
)

type splitOutput struct{ Body discovery.SplitState }

type getSplitInput struct {
	App string `path:"app" maxLength:"500" doc:"Application, for example student-service."`
}

type putSplitInput struct {
	App  string `path:"app" maxLength:"500" doc:"Application, for example student-service."`
	Body struct {
		Split discovery.Split `json:"split" doc:"Percentage a release, by digest; together 100. Empty: all instances count alike."`
		Fence int64           `json:"fence" minimum:"0" doc:"Grows with each operation on the application; a lower one than the stored one is refused."`
	}
}

type deleteSplitInput struct {
	App   string `path:"app" maxLength:"500" doc:"Application, for example student-service."`
	Fence int64  `query:"fence" required:"true" minimum:"0" doc:"As when the split is set."`
}

// RegisterSplits adds the operations on splits: every role reads them, operators change them.
func (r *Registry) RegisterSplits(s *server.Server) {
	const path = "/api/v1/registry/splits/{app}"
	operators := []identity.Role{identity.Operator}
	server.Register(s, server.Operation{ID: "get-split", Method: http.MethodGet, Path: path,
		Summary: "How traffic of an application is split over its releases"},
		func(_ context.Context, in *getSplitInput) (*splitOutput, error) {
			state, err := r.split(in.App)
			return &splitOutput{state}, err
		})
	server.Register(s, server.Operation{ID: "set-split", Method: http.MethodPut, Path: path,
		Summary: "Split traffic of an application over its releases", Roles: operators, Errors: []int{http.StatusConflict}},
		func(ctx context.Context, in *putSplitInput) (*splitOutput, error) {
			if err := in.Body.Split.Check(); err != nil {
				return nil, server.Invalid(server.Fault{Field: "split", Code: "invalid", Detail: err.Error()})
			}
			return r.answerSplit(ctx, in.App, in.Body.Split, in.Body.Fence)
		})
	server.Register(s, server.Operation{ID: "clear-split", Method: http.MethodDelete, Path: path, Status: http.StatusOK,
		Summary: "Let all instances of an application count alike", Roles: operators, Errors: []int{http.StatusConflict}},
		func(ctx context.Context, in *deleteSplitInput) (*splitOutput, error) {
			return r.answerSplit(ctx, in.App, nil, in.Fence)
		})
}

func (r *Registry) answerSplit(ctx context.Context, app string, split discovery.Split, fence int64) (*splitOutput, error) {
	if !storable(app) {
		return nil, server.Invalid(server.Fault{Field: "app", Code: "invalid", Detail: "is not a name"})
	}
	state, err := r.setSplit(ctx, app, split, fence, identity.FromContext(ctx).User)
	if errors.Is(err, discovery.ErrFenced) {
		return nil, server.Conflict("a newer operation holds the split of " + app)
	}
	if err != nil {
		return nil, err
	}
	r.log.Info("the split was changed", "app", state.App, "split", state.Split, "fence", fence, "user.name", state.UpdatedBy)
	return &splitOutput{state}, nil
}
