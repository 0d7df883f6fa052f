package smoke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// requestTimeout bounds each request, with its body.
	requestTimeout = 10 * time.Second
	// maxBody is how much of a body is read, in bytes.
	maxBody = 1 << 20

	positionHeader = "X-SMS-Position"
	releaseHeader  = "X-SMS-Release"
)

// answer is what came back, or why nothing did.
type answer struct {
	code   int
	header http.Header
	body   []byte
	took   time.Duration
	// expected and failure say why there is no answer, or why it does not count.
	expected, failure string
}

// ask makes a request. With directed it goes to the release that is tested.
func (r *run) ask(ctx context.Context, request Request, v values, directed bool) answer {
	var body io.Reader
	if request.Body != nil {
		body = strings.NewReader(jsonText(v.filled(request.Body)))
	}
	req, err := http.NewRequestWithContext(ctx, orGet(request.Method), r.URL+v.target(request.Path), body)
	if err != nil {
		return answer{header: http.Header{}, expected: "a URL", failure: "none that can be asked"} // the error has the URL, which may name somebody
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range request.Headers {
		req.Header.Set(name, v.text(value, asIs))
	}
	if !request.Anonymous && r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	if r.position != "" {
		req.Header.Set(positionHeader, r.position)
	}
	if directed {
		req.Header.Set(releaseHeader, r.Release)
	}
	start := time.Now()
	res, err := r.client.Do(req)
	if err != nil {
		return unanswered(ctx, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return unanswered(ctx, err)
	}
	if position := res.Header.Get(positionHeader); position != "" {
		r.position = position
	}
	a := answer{code: res.StatusCode, header: res.Header, body: raw, took: time.Since(start)}
	if by := res.Header.Get(releaseHeader); directed && by != r.Release && res.StatusCode < http.StatusInternalServerError {
		a.expected, a.failure = "an answer of release "+r.Release, "one of "+by
	}
	return a
}

// unanswered says why there is no answer, without the URL's query or a header.
func unanswered(ctx context.Context, err error) answer {
	a := answer{header: http.Header{}, expected: "an answer"}
	var dial *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		a.failure = "none in the time that was left: " + noTime
	case errors.Is(err, context.Canceled):
		a.failure = "the test was ended"
	case errors.As(err, &dial) && dial.Op == "dial":
		a.failure = "no connection: " + dial.Err.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		a.failure = "none within " + requestTimeout.String()
	default:
		a.failure = "the connection broke off"
	}
	return a
}

// status demands one of the codes.
func (a answer) status(want Statuses) (expected, found string) {
	if a.failure != "" {
		return a.expected, a.failure
	}
	if slices.Contains(want, a.code) {
		return "", ""
	}
	expected = fmt.Sprintf("status %d", want[0])
	for _, other := range want[1:] {
		expected += fmt.Sprintf(" or %d", other)
	}
	return expected, a.describe()
}

// json is the body, if it is JSON.
func (a answer) json() (value any, ok bool) {
	return value, json.Unmarshal(a.body, &value) == nil
}

// describe is the status and, of a problem, its title: its detail might name a person.
func (a answer) describe() string {
	var problem struct {
		Title string `json:"title"`
	}
	if json.Unmarshal(a.body, &problem) == nil && problem.Title != "" {
		return fmt.Sprintf("status %d (%s)", a.code, problem.Title)
	}
	return fmt.Sprintf("status %d", a.code)
}
