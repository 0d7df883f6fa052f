// Package clients runs Eureka clients that others wrote, as they are, against a real registry that is killed under them.
package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"github.com/school-sms/sms/test/processes"
)

// get reads a path of the registry as JSON; the status is 0 when nobody answers.
func get(t *testing.T, r *processes.Registry, path string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL+path, nil)
	must(t, err)
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if into != nil && res.StatusCode == http.StatusOK {
		must(t, json.NewDecoder(res.Body).Decode(into))
	}
	return res.StatusCode
}

// registered is an instance as an ordinary client of the registry reads it.
type registered struct {
	Instance struct {
		Status   string
		Metadata map[string]string
	}
}

// holds reports whether the registry shows an instance, UP and with the metadata that the programs give themselves.
func holds(t *testing.T, r *processes.Registry, app, id string) bool {
	t.Helper()
	var found registered
	return get(t, r, "/eureka/apps/"+app+"/"+id, &found) == http.StatusOK && found.Instance.Status == "UP" &&
		found.Instance.Metadata["colour"] == "blue"
}

// event is what a program says of itself.
type event struct {
	Event string
	IDs   []string
}

// program is a process with a client in it, and all that it has said.
type program struct {
	t   *testing.T
	cmd *exec.Cmd

	mu      sync.Mutex
	events  []event
	changed chan struct{}
	over    bool
}

func run(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, changed: make(chan struct{})}
	out, err := cmd.StdoutPipe()
	must(t, err)
	processes.Start(t, cmd)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = event{Event: fmt.Sprintf("%v: %s", err, bytes.Clone(lines.Bytes()))}
			}
			p.add(e, false)
		}
		p.add(event{Event: "over"}, true)
	}()
	return p
}

func (p *program) add(e event, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.over = append(p.events, e), over
	close(p.changed)
	p.changed = make(chan struct{})
}

// now is the place after all that the program has said.
func (p *program) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// await waits until the program says something after a place, and returns the place after that.
func (p *program) await(from int, name string, ids ...string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.t.Context(), processes.Patience, errors.New("too long"))
	defer cancel()
	for {
		p.mu.Lock()
		events, changed, over := p.events, p.changed, p.over
		p.mu.Unlock()
		for i := from; i < len(events); i++ {
			if events[i].Event == name && slices.Equal(events[i].IDs, ids) {
				return i + 1
			}
		}
		if over {
			p.t.Fatalf("it ended and never said %s %v: %v", name, ids, events)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			p.t.Fatalf("it does not say %s %v (%v): %v", name, ids, context.Cause(ctx), events)
		}
	}
}

// said counts what the program has said after a place.
func (p *program) said(from int, name string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events[from:] {
		if e.Event == name {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
