package discovery

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"
)

// registries are the addresses of the registries of one database. Requests go to the one that answered last.
type registries struct {
	http      *http.Client
	addresses []string
	current   atomic.Int64
}

func newRegistries(cfg Config, addresses []string) *registries {
	return &registries{http: newHTTP(cfg), addresses: addresses}
}

// call is one request, which may be sent to more than one registry: sending it twice must do no harm.
type call struct {
	method, path string
	header       http.Header
	body         []byte
	// patience bounds the wait for one registry.
	patience time.Duration
}

// do sends a request to the registry that answered last, and to the next ones when it does not answer or says that it cannot
// serve. The first to answer is kept.
func (r *registries) do(ctx context.Context, c call, out any) (status int, err error) {
	first := r.current.Load()
	for i := range int64(len(r.addresses)) {
		at := (first + i) % int64(len(r.addresses))
		status, err = r.try(ctx, r.addresses[at], c, out)
		answer, answered := errors.AsType[*AnswerError](err)
		if err == nil || answered && answer.Status < http.StatusInternalServerError {
			r.current.Store(at)
			return status, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return status, err
}

func (r *registries) try(ctx context.Context, address string, c call, out any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, c.method, address+c.path, bytes.NewReader(c.body))
	if err != nil {
		return 0, err
	}
	request.Header = c.header.Clone()
	request.Header.Set("Accept", "application/json")
	if len(c.body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	return roundTrip(r.http, request, out)
}

// share is what each registry gets of a time for all.
func (r *registries) share(all time.Duration) time.Duration {
	return all / time.Duration(len(r.addresses))
}
