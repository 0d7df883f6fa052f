package smoke

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"
)

// mayLeave remembers the cleanup of a check, once all that it needs is known.
func (r *run) mayLeave(suite string, c Check, v values) {
	if len(c.Cleanup) == 0 || slices.ContainsFunc(r.left, func(l Leftover) bool { return l.Suite == suite && l.Check == c.Name }) {
		return
	}
	used := map[string]any{}
	captured := map[string]Source{}
	for _, step := range c.Cleanup {
		for _, name := range referencesOf(step) {
			value, known := v[name]
			_, own := captured[name]
			if _, generated := generate(name, time.Time{}); generated || own {
				continue
			}
			if !known {
				return
			}
			used[name] = value
		}
		maps.Copy(captured, step.Capture)
	}
	r.left = append(r.left, Leftover{suite, c.Name, used})
	r.told()
}

// clean forgets the cleanup of a check.
func (r *run) clean(suite, check string) {
	before := len(r.left)
	r.left = slices.DeleteFunc(r.left, func(l Leftover) bool { return l.Suite == suite && l.Check == check })
	if len(r.left) != before {
		r.told()
	}
}

func (r *run) told() {
	if r.keep != nil {
		r.keep(slices.Clone(r.left))
	}
}

// cleanUp makes all cleanups, the last first, though ctx may have ended. One that fails is a failed check.
func (r *run) cleanUp(ctx context.Context, suites []Suite) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, l := range slices.Backward(slices.Clone(r.left)) {
		start := time.Now()
		c := checkOf(l, suites)
		directed := r.directed(c)
		expected, found := r.cleanUpOne(ctx, l, c, directed)
		if expected != "" && directed { // the release that is tested may be what cannot do it
			expected, found = r.cleanUpOne(ctx, l, c, false)
		}
		if expected != "" {
			r.results = append(r.results, Result{Suite: l.Suite, Name: "cleaned up after: " + l.Check,
				DurationMS: time.Since(start).Milliseconds(), Expected: expected, Found: found})
		}
		r.clean(l.Suite, l.Check)
	}
}

func (r *run) cleanUpOne(ctx context.Context, l Leftover, c Check, directed bool) (expected, found string) {
	if len(c.Cleanup) == 0 {
		return "a cleanup in the suite", "none: it has been changed since"
	}
	v := values(maps.Clone(l.Values))
	for _, step := range c.Cleanup {
		if names := v.missing(step); len(names) > 0 {
			return "a value of " + names[0], "none"
		}
		a := r.ask(ctx, step.Request, v, directed)
		switch {
		case a.code == http.StatusNotFound || a.code == http.StatusGone:
			return "", ""
		case a.failure != "":
			return a.expected, a.failure
		case a.code < http.StatusOK || a.code >= http.StatusMultipleChoices:
			return "status 2xx, 404 or 410", a.describe()
		}
		if missed := v.capture(step.Capture, a); missed != "" {
			return missed, "nothing to capture there"
		}
	}
	return "", ""
}

// checkOf is the check that has left something; empty when no suite has it any more.
func checkOf(l Leftover, suites []Suite) Check {
	for _, s := range suites {
		for _, c := range s.Checks {
			if s.Name == l.Suite && c.Name == l.Check {
				return c
			}
		}
	}
	return Check{}
}
