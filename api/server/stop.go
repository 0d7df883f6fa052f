package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/api/server/plain"
	"github.com/school-sms/sms/internal/child"
)

// Stop hands over and drains. It tells the supervisor, and goes on as before until a successor is ready, where there is to be
// one. Then it leaves the shared socket and the registry, answers what still comes with `Connection: close` until callers have
// noticed, and waits for what runs. http.Server.Shutdown alone would close idle keep-alive connections under the client's next
// request. Once ctx says that everything ends (see hurried), it waits for no successor and for no idle connection.
func (s *Server) Stop(ctx context.Context) error {
	s.notify(child.StoppingNotice)
	s.awaitSuccessor(ctx)
	s.Health.accept(false)
	s.draining.Store(true)
	if s.shared != nil {
		_ = s.shared.Close()
	}
	delay, idle := time.NewTimer(s.cfg.DrainDelay), time.NewTimer(s.cfg.DrainIdle)
	defer delay.Stop()
	defer idle.Stop()
	for _, f := range s.onDrain {
		f(ctx)
	}
	select {
	case <-delay.C:
	case <-ctx.Done():
	}
	s.callers.awaitNone(ctx, idle.C)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer cancel()
	var err error
	if s.front != nil {
		err = s.front.Shutdown(ctx)
	}
	if err = errors.Join(err, s.http.Shutdown(ctx)); err != nil {
		_ = s.http.Close()
		return fmt.Errorf("requests still ran after %s and were cut off: %w", s.cfg.ShutdownTimeout, err)
	}
	return nil
}

// notify tells the supervisor how the process stands. A supervisor that cannot be told loses nobody a request.
func (s *Server) notify(notice string) {
	if err := child.Notify(notice); err != nil {
		s.log.Warn("the supervisor cannot be told", "notice", notice, "error", err.Error())
	}
}

func (s *Server) awaitSuccessor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandoverTimeout)
	defer cancel()
	go func() {
		select {
		case <-hurried(ctx):
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := child.Barrier(ctx); err != nil {
		s.log.Warn("leaving without a successor", "error", err.Error())
	}
}

// sharedConns counts the open connections of the shared socket.
type sharedConns struct {
	port    int // of the shared socket; 0 when there is none
	open    atomic.Int64
	changed chan struct{} // of room 1: there are fewer than there were
}

// count is the server's ConnState: it is called at each request too, and must cost nothing then.
func (c *sharedConns) count(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew, http.StateClosed, http.StateHijacked:
	default:
		return
	}
	if _, passed := conn.(*plain.Passed); passed && state == http.StateNew { // it was counted when it came
		return
	}
	if c.port == 0 || portOf(conn.LocalAddr()) != c.port {
		return
	}
	if state == http.StateNew {
		c.open.Add(1)
		return
	}
	c.open.Add(-1)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// awaitNone returns when no connection is open, when late fires, or when the stop is hurried.
func (c *sharedConns) awaitNone(ctx context.Context, late <-chan time.Time) {
	for c.open.Load() > 0 {
		select {
		case <-c.changed:
		case <-late:
			return
		case <-hurried(ctx):
			return
		case <-ctx.Done():
			return
		}
	}
}

type hurryKey struct{}

// withHurry returns a context for Stop, to which closing hurry says that everything ends.
func withHurry(ctx context.Context, hurry <-chan struct{}) context.Context {
	return context.WithValue(ctx, hurryKey{}, hurry)
}

func hurried(ctx context.Context) <-chan struct{} {
	hurry, _ := ctx.Value(hurryKey{}).(<-chan struct{})
	return hurry // nil, and so never, where nobody could say so
}
