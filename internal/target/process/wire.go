// Package process is the target on which releases are child processes of `sms up`. Handler is the side of `sms up`,
// Client that of the worker; between them is a Unix socket that only its owner can open.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/school-sms/sms/internal/target"
)

// ErrNotRunning says that no `sms up` answers on the socket.
var ErrNotRunning = errors.New("`sms up` is not running with this data directory")

// failure is the body of an error answer.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Codes that Client turns back into the errors of a target.
const (
	codeFenced    = "fenced"
	codeNotFound  = "not-found"
	codeMigration = "migration"
	codeOther     = "failed"
)

// Answer writes a JSON answer, or the failure for err.
func Answer(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		f := failure{Code: codeOther, Message: err.Error()}
		status = http.StatusInternalServerError
		switch {
		case errors.Is(err, target.ErrFenced):
			f.Code, status = codeFenced, http.StatusConflict
		case errors.Is(err, target.ErrNotFound):
			f.Code, status = codeNotFound, http.StatusNotFound
		case errors.Is(err, target.ErrMigration):
			f.Code, status = codeMigration, http.StatusUnprocessableEntity
		}
		body = f
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller is gone: it will ask again
}

// Caller sends requests to a Unix socket.
type Caller struct{ http http.Client }

// NewCaller connects when first used.
func NewCaller(socket string) *Caller {
	return &Caller{http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Call sends body and decodes the answer into into, unless it is nil. It returns ErrNotRunning when nobody listens, and
// the errors of a target that the other side meant.
func (c *Caller) Call(ctx context.Context, method, path string, body, into any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://sms"+path, bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	res, err := c.http.Do(req)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("ask `sms up`: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return failed(res)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of `sms up`: %w", err)
	}
	return nil
}

func failed(res *http.Response) error {
	var f failure
	if err := json.NewDecoder(res.Body).Decode(&f); err != nil {
		return fmt.Errorf("`sms up` answered %s", res.Status)
	}
	switch f.Code {
	case codeFenced:
		return target.ErrFenced
	case codeNotFound:
		return fmt.Errorf("%w%s", target.ErrNotFound, strings.TrimPrefix(f.Message, target.ErrNotFound.Error()))
	case codeMigration:
		return fmt.Errorf("%w%s", target.ErrMigration, strings.TrimPrefix(f.Message, target.ErrMigration.Error()))
	default:
		return errors.New(f.Message)
	}
}
