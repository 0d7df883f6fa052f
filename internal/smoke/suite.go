// Package smoke asks a running system over HTTP whether it works: suites of checks, declared in YAML, and what runs them.
package smoke

import (
	"encoding/json"
	"slices"
	"time"
)

// Suite is a list of checks. suite.schema.json says what each field means.
type Suite struct {
	Name      string            `json:"name"`
	Variables map[string]string `json:"variables,omitempty"`
	Checks    []Check           `json:"checks"`
}

// NeedsToken reports whether one of its requests is not anonymous.
func (s Suite) NeedsToken() bool {
	return slices.ContainsFunc(s.Checks, func(c Check) bool {
		return !c.Request.Anonymous || slices.ContainsFunc(c.Cleanup, func(step Step) bool { return !step.Request.Anonymous })
	})
}

// Check is a request, and what must come back.
type Check struct {
	Name         string            `json:"name"`
	Environments []string          `json:"environments,omitempty"`
	Needs        []string          `json:"needs,omitempty"`
	Service      string            `json:"service,omitempty"`
	Request      Request           `json:"request"`
	Expect       Expect            `json:"expect"`
	Capture      map[string]Source `json:"capture,omitempty"`
	Retry        *Retry            `json:"retry,omitempty"`
	Cleanup      []Step            `json:"cleanup,omitempty"`
}

// Request is one request of the system that is tested.
type Request struct {
	Method    string            `json:"method,omitempty"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers,omitempty"`
	Body      any               `json:"body,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"`
}

// Expect is what an answer must be.
type Expect struct {
	Status  Statuses         `json:"status"`
	Headers map[string]Value `json:"headers,omitempty"`
	JSON    map[string]Value `json:"json,omitempty"`
	Within  Duration         `json:"within,omitempty"`
}

// Step is a request of a cleanup.
type Step struct {
	Request Request           `json:"request"`
	Capture map[string]Source `json:"capture,omitempty"`
}

// Retry makes a check again while it fails.
type Retry struct {
	Times int      `json:"times"`
	Pause Duration `json:"pause"`
}

// Statuses is one status or several.
type Statuses []int

// UnmarshalJSON takes a number as a list of one.
func (s *Statuses) UnmarshalJSON(raw []byte) error {
	if raw[0] == '[' {
		return json.Unmarshal(raw, (*[]int)(s))
	}
	*s = make(Statuses, 1)
	return json.Unmarshal(raw, &(*s)[0])
}

// Source is where a value is captured: a header, or a JSON path into the body.
type Source struct {
	Header string `json:"header,omitempty"`
	Path   string `json:"path,omitempty"`
}

// UnmarshalJSON takes a text as a JSON path.
func (s *Source) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		return json.Unmarshal(raw, &s.Path)
	}
	type plain Source
	return json.Unmarshal(raw, (*plain)(s))
}

// Value is what a value must be.
type Value struct {
	Equals   json.RawMessage `json:"equals,omitempty"` // nil when nothing is said
	Contains map[string]any  `json:"contains,omitempty"`
	Matches  string          `json:"matches,omitempty"`
	Type     string          `json:"type,omitempty"`
	Min      *float64        `json:"min,omitempty"`
	Max      *float64        `json:"max,omitempty"`
	Exists   *bool           `json:"exists,omitempty"`
	Public   bool            `json:"public,omitempty"`
}

// UnmarshalJSON takes anything but an object as what the value must equal.
func (v *Value) UnmarshalJSON(raw []byte) error {
	if raw[0] != '{' {
		v.Equals = append(json.RawMessage(nil), raw...)
		return nil
	}
	type plain Value
	return json.Unmarshal(raw, (*plain)(v))
}

// Duration is a time.Duration that is written as Go writes it.
type Duration time.Duration

// UnmarshalText reads 500ms or 2s.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}
