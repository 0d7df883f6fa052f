package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"

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
		// Sticky is a pointer, so that an operation that only shifts shares leaves it as it is.
		Sticky *bool `json:"sticky,omitempty" doc:"Whether all requests of a user go to one release. Left out: as it was."`
		Fence  int64 `json:"fence" minimum:"0" doc:"Grows with each operation on the application; a lower one than the stored one is refused."`
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
		func(ctx context.Context, in *getSplitInput) (*splitOutput, error) {
			r.fresh(ctx)
			state, err := r.split(in.App)
			return &splitOutput{state}, err
		})
	server.Register(s, server.Operation{ID: "set-split", Method: http.MethodPut, Path: path,
		Summary: "Split traffic of an application over its releases", Roles: operators, Errors: []int{http.StatusConflict}},
		func(ctx context.Context, in *putSplitInput) (*splitOutput, error) {
			if err := in.Body.Split.Check(); err != nil {
				return nil, server.Invalid(server.Fault{Field: "split", Code: "invalid", Detail: err.Error()})
			}
			return r.answerSplit(ctx, &splitChange{app: in.App, split: in.Body.Split, sticky: in.Body.Sticky, fence: in.Body.Fence})
		})
	server.Register(s, server.Operation{ID: "clear-split", Method: http.MethodDelete, Path: path, Status: http.StatusOK,
		Summary: "Let all instances of an application count alike", Roles: operators, Errors: []int{http.StatusConflict}},
		func(ctx context.Context, in *deleteSplitInput) (*splitOutput, error) {
			return r.answerSplit(ctx, &splitChange{app: in.App, fence: in.Fence})
		})
}

func (r *Registry) answerSplit(ctx context.Context, c *splitChange) (*splitOutput, error) {
	if !storable(c.app) {
		return nil, server.Invalid(server.Fault{Field: "app", Code: "invalid", Detail: "is not a name"})
	}
	c.by = identity.FromContext(ctx).User
	state, err := r.setSplit(ctx, c)
	switch {
	case errors.Is(err, discovery.ErrFenced):
		return nil, server.Conflict("a newer operation holds the split of " + c.app)
	case err != nil:
		return nil, server.Unavailable("the split could not be stored for now, try again", err)
	}
	r.log.Info("the split was changed", "app", state.App, "split", state.Split, "sticky", state.Sticky, "fence", c.fence, "user.name", state.UpdatedBy)
	return &splitOutput{state}, nil
}

// splitChange is a change of a split. Unlike a lease it is in force only once it is stored.
type splitChange struct {
	app    string
	split  discovery.Split
	sticky *bool // nil leaves it
	fence  int64
	by     string

	state discovery.SplitState
	err   error
	done  chan struct{} // closed when state or err is known
}

func (c *splitChange) finish(err error) {
	c.err = err
	close(c.done)
}

var (
	errAway          = errors.New("the database is away")
	errSplitsUnknown = errors.New("the stored splits have not been read yet")
)

// setSplit stores a split and then puts it in force.
func (r *Registry) setSplit(ctx context.Context, c *splitChange) (discovery.SplitState, error) {
	c.done = make(chan struct{})
	r.mu.Lock()
	if !r.online {
		r.mu.Unlock()
		return discovery.SplitState{}, errAway
	}
	r.splitted = append(r.splitted, c)
	r.wake()
	r.mu.Unlock()
	select {
	case <-c.done:
		return c.state, c.err
	case <-ctx.Done():
		return discovery.SplitState{}, ctx.Err()
	}
}

// commitSplit fails only when the database does.
func (r *Registry) commitSplit(ctx context.Context, c *splitChange) error {
	for {
		known := r.position.Load()
		state, err := r.store.setSplit(ctx, r.id, known, c)
		fenced := errors.Is(err, discovery.ErrFenced)
		switch {
		case errors.Is(err, errBehind):
			if err := r.catchUp(ctx); err != nil {
				return err
			}
			continue
		case err != nil && !fenced:
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.position.Store(known + 1)
		if !fenced {
			c.state = state
			r.splits[state.App] = state
			r.announce()
		}
		c.finish(err)
		return nil
	}
}

// split returns the split of an application; an empty one when it never had any.
func (r *Registry) split(app string) (discovery.SplitState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stored {
		return discovery.SplitState{}, server.Unavailable("the database cannot be reached for now, try again", errSplitsUnknown)
	}
	state, known := r.splits[strings.ToLower(app)]
	if !known {
		state = discovery.SplitState{App: strings.ToLower(app)}
	}
	if state.Split == nil {
		state.Split = discovery.Split{}
	}
	return state, nil
}
