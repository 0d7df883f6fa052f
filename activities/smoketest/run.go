package smoketest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

const (
	requestTimeout = 10 * time.Second
	maxBody        = 1 << 20

	positionHeader  = "X-SMS-Position"
	releaseHeader   = "X-SMS-Release"
	syntheticHeader = "X-SMS-Synthetic"
)

// run is one smoke test.
type run struct {
	input   Input
	url     string
	token   string
	client  *http.Client
	checks  []Check
	created func(path string)
	// position is the place of the last write: what is read must show it, though reads may go to a replica.
	position string
}

// check makes one check: look returns two empty strings when all is well.
func (r *run) check(name string, look func() (expected, found string)) bool {
	start := time.Now()
	expected, found := look()
	c := Check{Name: name, OK: expected == "" && found == "", Expected: expected, Found: found, DurationMS: time.Since(start).Milliseconds()}
	r.checks = append(r.checks, c)
	return c.OK
}

func (r *run) passed() bool {
	return !slices.ContainsFunc(r.checks, func(c Check) bool { return !c.OK })
}

// call is one request.
type call struct {
	// service is who is asked, when that is a service behind the gateway.
	service      string
	method, path string
	body         any
	ifMatch      string
	synthetic    bool
	anonymous    bool
}

// answer is what came back, or why nothing did.
type answer struct {
	code   int
	header http.Header
	body   []byte
	// failure is why there is no answer, or why it does not count.
	expected, failure string
}

func (r *run) request(ctx context.Context, c call) answer {
	var body io.Reader
	if c.body != nil {
		raw, err := json.Marshal(c.body)
		if err != nil {
			return unanswered(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, r.url+c.path, body)
	if err != nil {
		return unanswered(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if !c.anonymous {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if c.ifMatch != "" {
		req.Header.Set("If-Match", c.ifMatch)
	}
	if c.synthetic {
		req.Header.Set(syntheticHeader, "true")
	}
	if r.position != "" {
		req.Header.Set(positionHeader, r.position)
	}
	directed := r.input.Release != "" && c.service != "" && c.service == r.input.Service
	if directed {
		req.Header.Set(releaseHeader, r.input.Release)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return unanswered(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return unanswered(err)
	}
	if position := res.Header.Get(positionHeader); position != "" {
		r.position = position
	}
	a := answer{code: res.StatusCode, header: res.Header, body: raw}
	if by := res.Header.Get(releaseHeader); directed && by != r.input.Release && res.StatusCode < http.StatusInternalServerError {
		a.expected, a.failure = "an answer of release "+r.input.Release, "one of "+by
	}
	return a
}

// unanswered says why there is no answer, without the URL's query or a header.
func unanswered(err error) answer {
	a := answer{header: http.Header{}, expected: "an answer"}
	var dial *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		a.failure = "the test was ended"
	case errors.As(err, &dial) && dial.Op == "dial":
		a.failure = "no connection: " + dial.Err.Error()
	default:
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			a.failure = "none within " + requestTimeout.String()
		} else {
			a.failure = "the connection broke off"
		}
	}
	return a
}

// status demands one of the codes.
func (a answer) status(want ...int) (expected, found string) {
	if a.failure != "" {
		return a.expected, a.failure
	}
	if slices.Contains(want, a.code) {
		return "", ""
	}
	return "status " + fmt.Sprint(want[0]), a.describe()
}

// json demands the code and a body of JSON.
func (a answer) json(want int, into any) (expected, found string) {
	if expected, found := a.status(want); expected != "" {
		return expected, found
	}
	if json.Unmarshal(a.body, into) != nil {
		return "a body of JSON", "another"
	}
	return "", ""
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

func equal(expected, found string) (string, string) {
	if expected == found {
		return "", ""
	}
	return fmt.Sprintf("%q", expected), fmt.Sprintf("%q", found)
}
