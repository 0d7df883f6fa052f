package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// node is a registry as its clients see it: an address.
type node struct{ url string }

func (r *running) node() node { return node{strings.TrimSuffix(r.url, "/eureka")} }

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}}

// call sends a request; status 0 means that there was no answer.
func (n node) call(method, path, body string) (status int, answer []byte) {
	request, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		return 0, nil
	}
	return response.StatusCode, answer
}

// everybody lists all instances with what can be changed of them; "" when there is no answer.
func (n node) everybody() string {
	status, body := n.call("GET", "/eureka/apps", "")
	var in struct{ Applications applications }
	if status != 200 || json.Unmarshal(body, &in) != nil {
		return ""
	}
	all := map[string]string{}
	for _, app := range in.Applications.Apps {
		for _, i := range app.Instances {
			all[string(i.InstanceID)] = shown(string(i.Status), string(i.Overridden), i.Metadata)
		}
	}
	return listed(all)
}

func shown(status, overridden string, m map[string]string) string {
	return fmt.Sprintf("%s %s %s", status, overridden, m["mark"])
}

func listed(all map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d instances\n", len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s: %s\n", id, all[id])
	}
	return b.String()
}

// metric reads a gauge of the registry; -1 when there is no answer.
func (n node) metric(name string) float64 {
	_, body := n.call("GET", "/actuator/prometheus", "")
	value := -1.0
	for line := range strings.SplitSeq(string(body), "\n") {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				return -1
			}
		}
	}
	return value
}

// eventually asks until something holds. The condition lies in another process, so there is nothing to wait on but time.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
