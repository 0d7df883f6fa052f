package student

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

// lookEvery is the time between two looks at the feed while somebody waits for news.
const lookEvery = 250 * time.Millisecond

// changeFeed answers those who follow the changes. Callers who wait for news share one look at the database, however many they
// are, and hold no connection between two looks.
type changeFeed struct {
	*service
	draining <-chan struct{}

	mu   sync.Mutex
	at   time.Time
	seen feedState
}

func (s *service) mountChanges(srv *server.Server) {
	draining, drain := context.WithCancel(context.Background())
	srv.OnDrain(func(context.Context) { drain() })
	feed := &changeFeed{service: s, draining: draining.Done()}
	server.Register(srv, server.Operation{ID: "student-changes", Method: http.MethodGet, Path: collection + "/changes",
		Summary: "Follow every write of every student, in order and without gaps", Roles: []identity.Role{identity.Clerk, identity.Viewer},
		Errors: []int{http.StatusConflict}}, feed.read)
}

type changesInput struct {
	After string `query:"after" doc:"The next of the page that you have taken over; without it, the feed starts at the beginning."`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	// Wait ends before SERVER_SHUTDOWN_TIMEOUT of a gateway that stops, which would cut the answer off.
	Wait int `query:"wait" minimum:"0" maximum:"15" default:"0" doc:"Where there is nothing new, wait for it this many seconds."`

	after cursor
}

var badCursor = server.Fault{Field: "after", Code: "wrong-format",
	Detail: "must be what next said on an earlier page; leave it out to start at the beginning"}

// Resolve reads the cursor.
func (in *changesInput) Resolve(huma.Context) []error {
	if in.After == "" {
		return nil
	}
	var ok bool
	if in.after, ok = parseCursor(in.After); !ok {
		return []error{badCursor}
	}
	return nil
}

type changesOutput struct{ Body ChangePage }

// ChangePage is a piece of the change feed. A consumer that applies Content and remembers Next in one step misses nothing and
// does nothing twice, however often it is killed.
type ChangePage struct {
	Content []Change `json:"content" nullable:"false"`
	Next    string   `json:"next" doc:"Send it as after to read on; also when there is nothing new yet."`
	HasMore bool     `json:"hasMore" doc:"There is another page already."`
}

// Change is one write of a student.
type Change struct {
	StudentID string    `json:"studentId"`
	Version   int64     `json:"version" doc:"Rises by one with each change of a student."`
	Action    Action    `json:"action" enum:"CREATED,UPDATED,STATUS_CHANGED,DELETED,ERASED"`
	ChangedAt time.Time `json:"changedAt"`
	ChangedBy string    `json:"changedBy"`
	RequestID string    `json:"requestId"`
	Student   *Student  `json:"student,omitempty" doc:"After this write. Absent when the student has been erased since: ERASED comes, or has come."`
}

func (f *changeFeed) read(ctx context.Context, in *changesInput) (*changesOutput, error) {
	patience := time.NewTimer(time.Duration(in.Wait) * time.Second)
	defer patience.Stop()
	for {
		found, next, more, err := f.store.Changes(ctx, in.after, in.Limit)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 || in.Wait == 0 || !f.await(ctx, next.position, patience.C) {
			return &changesOutput{Body: f.page(found, next, more)}, nil
		}
		in.after = next
	}
}

func (s *service) page(found []change, next cursor, more bool) ChangePage {
	page, today := ChangePage{Content: make([]Change, len(found)), Next: next.String(), HasMore: more}, s.today()
	for i, c := range found {
		page.Content[i] = Change{StudentID: c.StudentID, Version: c.Version, Action: c.Action, ChangedAt: c.ChangedAt.UTC(),
			ChangedBy: c.ChangedBy, RequestID: c.RequestID, Student: presentImage(c.After, today)}
	}
	return page
}

// await returns true when the feed may hold something behind the position, and false when there is no time left to wait.
func (f *changeFeed) await(ctx context.Context, position int64, patience <-chan time.Time) bool {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-patience:
			return false
		case <-f.draining:
			return false
		case <-ctx.Done():
			return false
		}
		state, err := f.look(ctx)
		if err != nil || !state.Ours || state.Waiting || state.Last > position {
			return true // reading says what is wrong
		}
	}
}

// look is the state of the feed, not older than lookEvery.
func (f *changeFeed) look(ctx context.Context) (feedState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) < lookEvery {
		return f.seen, nil
	}
	seen, err := f.store.feed(ctx)
	if err == nil {
		f.seen, f.at = seen, time.Now()
	}
	return seen, err
}
