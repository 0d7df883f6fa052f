package registry

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pagePolicy lets the page load nothing but its own style, which is named by its hash.
var pagePolicy = func() string {
	_, rest, _ := strings.Cut(pageText, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// maxShown bounds the instances of the page.
const maxShown = 500

type page struct {
	Instances, Applications, Registries, More int
	Online, Preserving, Settled               bool
	Apps                                      []pageApp
}

type pageApp struct {
	Name      string
	Instances []pageInstance
	Split     []pageShare
	Sticky    bool
}

type pageInstance struct {
	ID, Address, Status, Release, Version string
	Overridden                            bool
	Age, Lease                            time.Duration
}

type pageShare struct {
	Release string
	Share   int
}

// MountPage adds the page for people. It needs no token, like the Eureka reads, which tell as much.
func (r *Registry) MountPage(engine gin.IRouter) {
	engine.GET("/", func(c *gin.Context) {
		r.fresh(c.Request.Context())
		var out bytes.Buffer
		if err := pageTemplate.Execute(&out, r.page()); err != nil {
			server.WriteProblem(c, err)
			return
		}
		header := c.Writer.Header()
		header.Set("Content-Security-Policy", pagePolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		c.Data(http.StatusOK, "text/html; charset=utf-8", out.Bytes())
	})
}

func (r *Registry) page() page {
	all := r.list(nil)
	r.mu.Lock()
	p := page{Instances: len(all.leases), Applications: len(r.names), Registries: r.others + 1, Online: r.online, Preserving: r.preserving, Settled: r.settled}
	splits := maps.Clone(r.splits)
	r.mu.Unlock()
	apps := map[string]*pageApp{}
	appOf := func(name string) *pageApp {
		if apps[name] == nil {
			apps[name] = &pageApp{Name: name}
		}
		return apps[name]
	}
	for i, l := range all.leases {
		if i == maxShown {
			p.More = len(all.leases) - maxShown
			break
		}
		of := l.document().instance()
		app := appOf(l.app)
		app.Instances = append(app.Instances, pageInstance{ID: l.id, Address: of.Address(), Status: l.status, Release: of.Release, Version: of.Version,
			Overridden: isState(l.overridden), Age: max(l.age(all.now), 0).Round(time.Second), Lease: l.duration})
	}
	for name, state := range splits {
		if len(state.Split) == 0 {
			continue
		}
		shown := appOf(name)
		shown.Sticky = state.Sticky
		for _, release := range slices.Sorted(maps.Keys(state.Split)) {
			shown.Split = append(shown.Split, pageShare{release, state.Split[release]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		p.Apps = append(p.Apps, *apps[name])
	}
	return p
}
