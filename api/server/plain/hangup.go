package plain

import (
	"context"
	"sync"
)

// hangUp tells one function that the caller of a connection has gone.
type hangUp struct {
	ended <-chan struct{} // of the connection's context
	stop  func() bool     // forget, made once

	mu   sync.Mutex
	f    func()
	gone bool
}

type hangUpKey struct{}

func newHangUp() *hangUp {
	h := &hangUp{}
	h.stop = h.forget
	return h
}

// AfterHangUp is context.AfterFunc for the context of a plain request, or one that ends with it: f is called when the caller has
// gone, unless stop is called before. It costs less, but f may be called by whoever notices, so it must not wait. Any other
// context, and a second function for one request, are left to context.AfterFunc.
func AfterHangUp(ctx context.Context, f func()) (stop func() bool) {
	h, ok := ctx.Value(hangUpKey{}).(*hangUp)
	if !ok || h.ended != ctx.Done() || !h.take(f) {
		return context.AfterFunc(ctx, f)
	}
	return h.stop
}

func (h *hangUp) take(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f != nil || h.gone {
		return false
	}
	h.f = f
	return true
}

// forget reports whether the function will not be called any more.
func (h *hangUp) forget() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.f != nil
	h.f = nil
	return waiting
}

func (h *hangUp) tell() {
	h.mu.Lock()
	f := h.f
	h.f, h.gone = nil, true
	h.mu.Unlock()
	if f != nil {
		f()
	}
}
