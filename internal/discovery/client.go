package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrUnchanged says that nothing has changed since the revision that was asked about.
	ErrUnchanged = errors.New("the registry has not changed")
	// ErrFenced says that somebody with a higher fence has changed the split since: the caller must stop.
	ErrFenced = errors.New("a newer operation holds the split")
)

// AnswerError is an answer of the registry that is not the one hoped for.
type AnswerError struct {
	Status int
	Detail string
}

func (e *AnswerError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the registry answered %d", e.Status)
	}
	return fmt.Sprintf("the registry answered %d: %s", e.Status, e.Detail)
}

// TokenSource yields the token for one request.
type TokenSource func() (string, error)

// Client speaks the registry's own interface. It is safe for concurrent use.
type Client struct {
	cfg        Config
	registries *registries
	token      TokenSource
}

// NewClient makes a client; it connects when first used. Changes to splits carry the token of cfg.TokenFile.
func NewClient(cfg Config) *Client {
	roots := cfg.addresses()
	for i, address := range roots {
		roots[i] = root(address)
	}
	return &Client{cfg: cfg, registries: newRegistries(cfg, roots), token: func() (string, error) {
		if cfg.TokenFile == "" {
			return "", errors.New("no token to change splits with: DISCOVERY_TOKEN_FILE is not set")
		}
		token, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return "", fmt.Errorf("read the token (DISCOVERY_TOKEN_FILE): %w", err)
		}
		return strings.TrimSpace(string(token)), nil
	}}
}

// WithToken returns a client that takes its tokens elsewhere.
func (c *Client) WithToken(source TokenSource) *Client {
	with := *c
	with.token = source
	return &with
}

// Snapshot returns what the registry knows. With wait above zero and after the revision that the caller has, it returns
// as soon as there is another one, or ErrUnchanged after about wait.
func (c *Client) Snapshot(ctx context.Context, after int64, wait time.Duration) (Snapshot, error) {
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {wait.String()}}
	var snapshot Snapshot
	status, err := c.do(ctx, http.MethodGet, "/registry/v1/snapshot?"+query.Encode(), nil, &snapshot, wait+c.cfg.Timeout)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the registry: %w", err)
	}
	if status == http.StatusNoContent {
		return Snapshot{}, ErrUnchanged
	}
	return snapshot, nil
}

// SplitState is a split as it is stored.
type SplitState struct {
	App   string `json:"app"`
	Split Split  `json:"split"`
	// Sticky is as in Application.
	Sticky bool `json:"sticky"`
	// Fence of the last operation that changed the split.
	Fence     int64     `json:"fence"`
	UpdatedBy string    `json:"updatedBy"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// SplitState reads the split of an application. One that never had any is empty, with fence 0.
func (c *Client) SplitState(ctx context.Context, app string) (SplitState, error) {
	var state SplitState
	if err := c.authorized(ctx, http.MethodGet, splitPath(app), nil, &state); err != nil {
		return SplitState{}, fmt.Errorf("read the split of %s: %w", app, err)
	}
	return state, nil
}

// SetSplit stores a split, which reaches every gateway within a second. The fence grows with each operation on the
// application; a lower one than the stored one is refused with ErrFenced, an equal one is accepted.
func (c *Client) SetSplit(ctx context.Context, app string, split Split, fence int64) error {
	body := struct {
		Split Split `json:"split"`
		Fence int64 `json:"fence"`
	}{split, fence}
	if err := c.authorized(ctx, http.MethodPut, splitPath(app), body, nil); err != nil {
		return fmt.Errorf("set the split of %s: %w", app, err)
	}
	return nil
}

// ClearSplit makes every instance of the application count alike again. The fence stays in force.
func (c *Client) ClearSplit(ctx context.Context, app string, fence int64) error {
	path := splitPath(app) + "?fence=" + strconv.FormatInt(fence, 10)
	if err := c.authorized(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return fmt.Errorf("clear the split of %s: %w", app, err)
	}
	return nil
}

// Deregister takes an instance out of the registry, for one that has died without a farewell. One that is not there is no error.
func (c *Client) Deregister(ctx context.Context, app, id string) error {
	status, err := c.do(ctx, http.MethodDelete, "/eureka"+instancePath(app, id), nil, nil, c.cfg.Timeout)
	if err != nil && status != http.StatusNotFound {
		return fmt.Errorf("take %s out of the registry: %w", id, err)
	}
	return nil
}

func splitPath(app string) string {
	return "/api/v1/registry/splits/" + url.PathEscape(strings.ToLower(app))
}

func (c *Client) authorized(ctx context.Context, method, path string, in, out any) error {
	_, err := c.do(ctx, method, path, in, out, c.cfg.Timeout)
	if answer, ok := errors.AsType[*AnswerError](err); ok && answer.Status == http.StatusConflict {
		return fmt.Errorf("%w: %s", ErrFenced, answer.Detail)
	}
	return err
}

// do sends one request below the registry's root, and waits so long for each registry. Paths below /api carry the token.
func (c *Client) do(ctx context.Context, method, path string, in, out any, patience time.Duration) (status int, err error) {
	to := call{method: method, path: path, header: http.Header{}, patience: patience}
	if in != nil {
		if to.body, err = json.Marshal(in); err != nil {
			return 0, fmt.Errorf("encode the request: %w", err)
		}
	}
	if strings.HasPrefix(path, "/api/") {
		token, err := c.token()
		if err != nil {
			return 0, err
		}
		to.header.Set("Authorization", "Bearer "+token)
	}
	return c.registries.do(ctx, to, out)
}

// roundTrip sends a request and decodes a success into out; every other answer is an *AnswerError.
func roundTrip(client *http.Client, req *http.Request, out any) (status int, err error) {
	const maxErrorBytes = 64 << 10
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusMultipleChoices {
		var problem struct {
			Detail string `json:"detail"`
		}
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
		_ = json.Unmarshal(text, &problem) // a bare body leaves the detail empty
		return res.StatusCode, &AnswerError{Status: res.StatusCode, Detail: problem.Detail}
	}
	if out != nil && res.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			return res.StatusCode, fmt.Errorf("decode the answer: %w", err)
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxErrorBytes)) // so that the connection can be used again
	return res.StatusCode, nil
}

func newHTTP(cfg Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   cfg.Timeout,
		ResponseHeaderTimeout: cfg.Wait + cfg.Timeout,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
	}}
}
