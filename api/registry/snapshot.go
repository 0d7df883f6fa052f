package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/discovery"
)

// MountSnapshot adds the path that gateways watch. It needs no token, like the Eureka reads, which tell as much.
func (r *Registry) MountSnapshot(engine gin.IRouter) {
	engine.GET("/registry/v1/snapshot", r.getSnapshot)
}

// getSnapshot answers at once when the caller's revision is not the present one, and else at the next change; 204 when
// there is none within the time that the caller is ready to wait.
func (r *Registry) getSnapshot(c *gin.Context) {
	after, err := strconv.ParseInt(c.DefaultQuery("after", "0"), 10, 64)
	wait, err2 := time.ParseDuration(c.DefaultQuery("wait", "0s"))
	if err != nil || err2 != nil {
		server.WriteProblem(c, server.Invalid(server.Fault{Field: "query", Code: "wrong-format",
			Detail: "after is a revision, wait a duration such as 25s"}))
		return
	}
	timeout := time.NewTimer(min(wait, r.cfg.MaxWait))
	defer timeout.Stop()
	for {
		revision, body, changed, err := r.snapshot()
		if err != nil {
			server.WriteProblem(c, err)
			return
		}
		if revision != after {
			c.Data(http.StatusOK, "application/json", body)
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			c.Status(http.StatusNoContent)
			return
		case <-r.closing:
			server.WriteProblem(c, server.Unavailable("the registry is stopping", nil))
			return
		case <-c.Request.Context().Done():
			return
		}
	}
}

// snapshot returns the encoded snapshot, made once a revision, and a channel that is closed when there is another one.
func (r *Registry) snapshot() (revision int64, body []byte, changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.encoded == nil {
		if r.encoded, err = json.Marshal(r.assemble()); err != nil {
			return 0, nil, nil, err
		}
	}
	return r.revision, r.encoded, r.changed, nil
}

// assemble makes the snapshot. The caller holds mu.
func (r *Registry) assemble() discovery.Snapshot {
	s := discovery.Snapshot{Revision: r.revision, Epoch: r.epoch, Settled: r.settled, Stored: r.stored,
		Apps: map[string]discovery.Application{}}
	for k, l := range r.leases {
		app := s.Apps[k.app]
		app.Instances = append(app.Instances, l.doc.instance())
		s.Apps[k.app] = app
	}
	for name, app := range s.Apps {
		slices.SortFunc(app.Instances, func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) })
		s.Apps[name] = app
	}
	for name, state := range r.splits {
		if len(state.Split) > 0 {
			app := s.Apps[name]
			app.Split = state.Split
			s.Apps[name] = app
		}
	}
	return s
}

// errSplitsUnknown is the answer while the splits could not be read from the database yet.
var errSplitsUnknown = errors.New("the stored splits have not been read yet")

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
