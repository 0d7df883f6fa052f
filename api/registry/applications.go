package registry

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
)

// application and applications are the envelopes of the Eureka reads.
type application struct {
	XMLName   xml.Name   `json:"-" xml:"application"`
	Name      string     `json:"name" xml:"name"`
	Instances []document `json:"instance" xml:"instance"`
}

type applications struct {
	XMLName xml.Name      `json:"-" xml:"applications"`
	Version string        `json:"versions__delta" xml:"versions__delta"`
	Hash    string        `json:"apps__hashcode" xml:"apps__hashcode"`
	Apps    []application `json:"application" xml:"application"`
}

// newApplications wraps documents that are sorted by application.
func newApplications(documents []document, version int64) applications {
	all := applications{Version: strconv.FormatInt(version, 10), Hash: hash(documents), Apps: []application{}}
	for _, d := range documents {
		if n := len(all.Apps); n == 0 || all.Apps[n-1].Name != string(d.App) {
			all.Apps = append(all.Apps, application{Name: string(d.App)})
		}
		last := &all.Apps[len(all.Apps)-1]
		last.Instances = append(last.Instances, d)
	}
	return all
}

// hash is how a client that applies deltas checks its copy: the number of instances in each state, states sorted
// (com.netflix.discovery.shared.Applications#getReconcileHashCode).
func hash(documents []document) string {
	counts := map[text]int{}
	for _, d := range documents {
		counts[d.Status]++
	}
	var b strings.Builder
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%s_%d_", status, counts[status])
	}
	return b.String()
}

// answer writes body under name in JSON when the caller asks for it, and else in XML as Eureka does: some clients,
// such as Prometheus, say nothing and read XML only.
func answer(c *gin.Context, name string, body any) {
	if !wantsJSON(c.GetHeader("Accept")) {
		c.Header("Content-Type", "application/xml")
		c.Status(http.StatusOK)
		if err := xml.NewEncoder(c.Writer).Encode(body); err != nil {
			_ = c.Error(err)
		}
		return
	}
	c.Header("Content-Type", "application/json")
	c.Status(http.StatusOK)
	if err := json.NewEncoder(c.Writer).Encode(map[string]any{name: body}); err != nil {
		_ = c.Error(err)
	}
}

// wantsJSON reports whether JSON is named in an Accept header, before XML if that is named too.
func wantsJSON(accept string) bool {
	jsonAt, xmlAt := strings.Index(accept, "json"), strings.Index(accept, "xml")
	return jsonAt >= 0 && (xmlAt < 0 || jsonAt < xmlAt)
}
