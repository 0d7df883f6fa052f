package registry

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
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
	r.fresh(c.Request.Context())
	timeout := time.NewTimer(min(wait, r.cfg.MaxWait))
	defer timeout.Stop()
	for {
		s, changed := r.snapshot(after)
		if s != nil {
			c.Header("Content-Type", "application/json")
			c.Status(http.StatusOK)
			if err := s.write(c.Writer); err != nil {
				_ = c.Error(err)
			}
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

// snapshot is a discovery.Snapshot whose instances are encoded already.
type snapshot struct {
	discovery.Snapshot
	leases []*lease // sorted by application
}

// snapshot returns what there is now, or nil when that is of the revision that the caller has, and a channel that is closed when
// there is something else.
func (r *Registry) snapshot(after int64) (*snapshot, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revision == after {
		return nil, r.changed
	}
	s := &snapshot{Snapshot: discovery.Snapshot{Revision: r.revision, Epoch: r.epoch, Settled: r.settled, Stored: r.stored,
		Apps: map[string]discovery.Application{}}, leases: make([]*lease, 0, len(r.leases))}
	for _, name := range r.names {
		s.leases = append(s.leases, r.groups[name].leases...)
	}
	for name, state := range r.splits {
		if len(state.Split) > 0 {
			s.Apps[name] = discovery.Application{Split: state.Split, Sticky: state.Sticky}
		}
	}
	return s, r.changed
}

// write encodes the snapshot as encoding/json would.
func (s *snapshot) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	fmt.Fprintf(w, `{"revision":%d,"epoch":%d,"settled":%t,"stored":%t,"apps":{`, s.Revision, s.Epoch, s.Settled, s.Stored)
	first := true
	app := func(name string, instances []*lease) error {
		if !first {
			_ = w.WriteByte(',') // Flush tells
		}
		first = false
		of := s.Apps[name]
		quoted, err := json.Marshal(name)
		split, err2 := json.Marshal(of.Split)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		fmt.Fprintf(w, `%s:{"instances":[`, quoted)
		for i, l := range instances {
			if i > 0 {
				_ = w.WriteByte(',')
			}
			_, _ = w.Write(l.snapshot)
		}
		_, _ = w.WriteString("]")
		if len(of.Split) > 0 {
			fmt.Fprintf(w, `,"split":%s,"sticky":%t`, split, of.Sticky)
		}
		delete(s.Apps, name)
		return w.WriteByte('}')
	}
	for from := 0; from < len(s.leases); {
		to := from
		for to < len(s.leases) && s.leases[to].app == s.leases[from].app {
			to++
		}
		if err := app(s.leases[from].app, s.leases[from:to]); err != nil {
			return err
		}
		from = to
	}
	for _, name := range slices.Sorted(maps.Keys(s.Apps)) { // those with a split and no instance
		if err := app(name, nil); err != nil {
			return err
		}
	}
	_, _ = w.WriteString("}}")
	return w.Flush()
}
