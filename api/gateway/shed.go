package gateway

import (
	"net/http"
	"strings"
	"sync/atomic"
)

// slots bound how many do something at once. Nobody queues for one: who waits for a busy gateway makes it busier.
type slots struct {
	most  int64 // 0: no bound
	taken atomic.Int64
	shed  atomic.Int64
}

func (s *slots) take() bool {
	if n := s.taken.Add(1); s.most == 0 || n <= s.most {
		return true
	}
	s.taken.Add(-1)
	s.shed.Add(1)
	return false
}

func (s *slots) give() { s.taken.Add(-1) }

// largeBody is from where on a body may take long to come, in bytes; so may one of unknown length.
const largeBody = 1 << 20

// lasting reports whether a request is one that lasts by its nature: a wait for a change, a stream of events, another
// protocol, a large body. Such requests cost little while they last; counted with the others they would use up their slots.
func lasting(r *http.Request) bool {
	return r.ContentLength < 0 || r.ContentLength >= largeBody || len(r.Header["Upgrade"]) > 0 ||
		strings.HasPrefix(r.URL.RawQuery, "wait") || strings.Contains(r.URL.RawQuery, "&wait") || // wait=, waitForVersion=
		strings.HasPrefix(r.Header.Get("Accept"), "text/event-stream")
}

// vital reports whether a path is how others find out whether the gateway works: it is answered when nothing else is.
func vital(path string) bool { return strings.HasPrefix(path, "/actuator/") }
