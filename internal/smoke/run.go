package smoke

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Target is what is tested.
type Target struct {
	// URL is the address of the door, for example http://127.0.0.1:8080.
	URL string
	// Token is sent with every request that is not anonymous; empty: none.
	Token string
	// Environment is what it is called, if it has a name: a check may be for some environments only.
	Environment string
	// Service and Release, when given, send the checks of that service to that release of it, by its digest, and demand that it answered.
	Service, Release string
}

// CheckURL returns an error that says what the address of a target must be, unless it is one.
func CheckURL(address string) error {
	if u, err := url.Parse(address); err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("want the address to test, such as http://127.0.0.1:8080")
	}
	return nil
}

// Leftover is a cleanup that is still to be made, so that another process can make it.
type Leftover struct {
	Suite string `json:"suite"`
	Check string `json:"check"`
	// Values are those of the variables that the cleanup uses.
	Values map[string]any `json:"values"`
}

// Runner runs suites.
type Runner struct {
	Target Target
	// Left is what a run that has died has left. It is cleaned up first.
	Left []Leftover
	// Keep, when given, is told what this run would leave if it died: before anything more is made, whenever that changes.
	Keep func([]Leftover)
}

const (
	// runTimeout bounds the checks of a run, so that a report comes before whoever waits for it gives up.
	runTimeout = 2*time.Minute + 30*time.Second
	// cleanupTimeout bounds the cleanups of a suite.
	cleanupTimeout = 15 * time.Second
	noTime         = "a run may take 2m30s"
)

// Run makes the checks of all suites and cleans up after them, also when ctx ends: the report of what was made until then comes back.
func (r Runner) Run(ctx context.Context, suites ...Suite) Report {
	start := time.Now()
	ctx, stop := context.WithTimeout(ctx, runTimeout)
	defer stop()
	one := &run{Target: r.Target, left: slices.Clone(r.Left), keep: r.Keep, client: newClient()}
	defer one.client.CloseIdleConnections()
	one.URL = strings.TrimSuffix(one.URL, "/")
	one.cleanUp(ctx, suites)
	for _, suite := range suites {
		one.suite(ctx, suite)
		one.cleanUp(ctx, suites)
	}
	return Report{Environment: r.Target.Environment, URL: r.Target.URL, Service: r.Target.Service, Release: r.Target.Release,
		Passed: !slices.ContainsFunc(one.results, Result.failed), Checks: one.results, DurationMS: time.Since(start).Milliseconds()}
}

func newClient() *http.Client {
	return &http.Client{
		Timeout: requestTimeout, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// run is a Runner that runs.
type run struct {
	Target
	client  *http.Client
	keep    func([]Leftover)
	left    []Leftover
	results []Result
	// position is the place of the last write: what is read must show it, though reads may go to a replica.
	position string
}

// suite makes the checks of one suite.
func (r *run) suite(ctx context.Context, s Suite) {
	v := values{}
	for name, text := range s.Variables {
		v[name] = values(nil).text(text, asIs)
	}
	passed := map[string]bool{} // of the checks that are made here
	for _, c := range s.Checks {
		if len(c.Environments) > 0 && !slices.Contains(c.Environments, r.Environment) {
			continue
		}
		result := Result{Suite: s.Name, Name: c.Name, LeftOut: leftOut(c, v, passed)}
		switch {
		case result.LeftOut != "":
		case ctx.Err() != nil:
			result.Expected, result.Found = "time for it", "none: "+noTime
		default:
			start := time.Now()
			result.Expected, result.Found = r.check(ctx, s.Name, c, v)
			result.OK = result.Expected == ""
			result.DurationMS = time.Since(start).Milliseconds()
		}
		passed[c.Name] = result.OK
		r.results = append(r.results, result)
	}
}

// leftOut is why a check cannot be made; empty when it can.
func leftOut(c Check, v values, passed map[string]bool) string {
	for _, need := range c.Needs {
		if ok, made := passed[need]; made && !ok {
			return fmt.Sprintf("it needs that %s", need)
		}
	}
	if names := v.missing([]any{c.Request, c.Expect, c.Capture}); len(names) > 0 {
		return "nothing was captured for " + strings.Join(names, ", ")
	}
	return ""
}

// check makes a check, again while it fails and may be made again.
func (r *run) check(ctx context.Context, suite string, c Check, v values) (expected, found string) {
	for try := 1; ; try++ {
		expected, found = r.try(ctx, suite, c, v)
		if expected == "" || c.Retry == nil || try >= c.Retry.Times {
			return expected, found
		}
		select {
		case <-time.After(time.Duration(c.Retry.Pause)):
		case <-ctx.Done():
			return expected, found
		}
	}
}

func (r *run) try(ctx context.Context, suite string, c Check, v values) (expected, found string) {
	r.mayLeave(suite, c, v)
	a := r.ask(ctx, c.Request, v, r.directed(c))
	var missed string
	if a.code > 0 && (a.code < http.StatusBadRequest || slices.Contains(c.Expect.Status, a.code)) {
		missed = v.capture(c.Capture, a) // whatever else is wrong: what was made must be found again
	}
	if a.code >= http.StatusBadRequest && a.code < http.StatusInternalServerError {
		r.clean(suite, c.Name) // it was refused: what is there under that name is not ours
	} else {
		r.mayLeave(suite, c, v)
	}
	if expected, found := c.Expect.look(a, v); expected != "" {
		return expected, found
	}
	if missed != "" {
		return missed, "nothing to capture there"
	}
	return "", ""
}

// capture takes values out of an answer. It returns the first place where there is none.
func (v values) capture(all map[string]Source, a answer) (missed string) {
	body, _ := a.json()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		source := all[name]
		if source.Header != "" {
			if value := a.header.Get(source.Header); value != "" {
				v[name] = value
				continue
			}
			missed = "header " + source.Header
			continue
		}
		there, _ := valuesAt(source.Path, body, v)
		if len(there) != 1 || there[0] == nil {
			missed = "one value at " + source.Path
			continue
		}
		v[name] = there[0]
	}
	return missed
}

// directed reports whether a check is for the release that is tested alone.
func (r *run) directed(c Check) bool { return r.Release != "" && c.Service == r.Service }
