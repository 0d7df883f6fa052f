package registry

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/internal/discovery"
)

// MountEureka adds the Eureka REST protocol under /eureka and /eureka/v2, each path with and without a slash at its
// end (https://github.com/Netflix/eureka/wiki/Eureka-REST-operations). Refusals have no body: Java clients read any
// body as an instance.
func (r *Registry) MountEureka(engine gin.IRouter) {
	for _, base := range []string{"/eureka", "/eureka/v2"} {
		handle := func(method, path string, handler gin.HandlerFunc) {
			engine.Handle(method, base+path, handler)
			engine.Handle(method, base+path+"/", handler)
		}
		handle(http.MethodGet, "/apps", r.getAll)
		handle(http.MethodGet, "/apps/delta", r.getAll)
		handle(http.MethodGet, "/apps/:app", r.getApp)
		handle(http.MethodGet, "/apps/:app/:id", r.getInstance)
		handle(http.MethodGet, "/instances/:id", r.getInstance)
		handle(http.MethodGet, "/vips/:vip", r.getVIP)
		handle(http.MethodGet, "/svips/:svip", r.getVIP)
		handle(http.MethodPost, "/apps/:app", r.postInstance)
		handle(http.MethodPut, "/apps/:app/:id", r.putHeartbeat)
		handle(http.MethodDelete, "/apps/:app/:id", r.deleteInstance)
		handle(http.MethodPut, "/apps/:app/:id/status", r.putStatus)
		handle(http.MethodDelete, "/apps/:app/:id/status", r.deleteStatus)
		handle(http.MethodPut, "/apps/:app/:id/metadata", r.putMetadata)
	}
}

func keyOf(c *gin.Context) key { return key{strings.ToLower(c.Param("app")), c.Param("id")} }

// getAll answers /apps, and /apps/delta with everything as added: a client applies that to its copy, compares the
// hash, and fetches in full when something has gone.
func (r *Registry) getAll(c *gin.Context) {
	documents, revision := r.documents(nil)
	answer(c, "applications", newApplications(documents, revision))
}

func (r *Registry) getApp(c *gin.Context) {
	app := strings.ToLower(c.Param("app"))
	documents, _ := r.documents(func(k key, _ *lease) bool { return k.app == app })
	if len(documents) == 0 {
		c.Status(http.StatusNotFound)
		return
	}
	answer(c, "application", application{Name: string(documents[0].App), Instances: documents})
}

// getInstance answers for an id, within an application where the path names one.
func (r *Registry) getInstance(c *gin.Context) {
	wanted := keyOf(c)
	documents, _ := r.documents(func(k key, _ *lease) bool {
		return k.id == wanted.id && (wanted.app == "" || k.app == wanted.app)
	})
	if len(documents) == 0 {
		c.Status(http.StatusNotFound)
		return
	}
	answer(c, "instance", documents[0])
}

func (r *Registry) getVIP(c *gin.Context) {
	vip, svip := c.Param("vip"), c.Param("svip")
	documents, revision := r.documents(func(_ key, l *lease) bool {
		if vip != "" {
			return names(string(l.doc.VIP), vip)
		}
		return names(string(l.doc.SecureVIP), svip)
	})
	if len(documents) == 0 {
		c.Status(http.StatusNotFound)
		return
	}
	answer(c, "applications", newApplications(documents, revision))
}

// names reports whether a comma-separated list of addresses holds one.
func names(list, wanted string) bool {
	for name := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(name), wanted) {
			return true
		}
	}
	return false
}

func (r *Registry) postInstance(c *gin.Context) {
	doc, err := readInstance(c)
	if err != nil {
		c.String(http.StatusBadRequest, "the instance cannot be read: %s", err.Error())
		return
	}
	if doc.InstanceID == "" {
		doc.InstanceID = doc.HostName
	}
	switch app := c.Param("app"); {
	case doc.App == "":
		doc.App = text(app)
	case !strings.EqualFold(string(doc.App), app):
		c.String(http.StatusBadRequest, "the instance names another app than the path")
		return
	}
	if fault := faultOf(doc); fault != "" {
		c.String(http.StatusBadRequest, fault)
		return
	}
	r.awaitWrite(c.Request.Context(), r.register(doc))
	c.Status(http.StatusNoContent)
}

func readInstance(c *gin.Context) (document, error) {
	if strings.Contains(c.ContentType(), "xml") {
		var doc document
		err := xml.NewDecoder(c.Request.Body).Decode(&doc)
		return doc, err
	}
	var body struct {
		Instance document `json:"instance"`
	}
	err := json.NewDecoder(c.Request.Body).Decode(&body)
	return body.Instance, err
}

// faultOf says what is wrong with an instance, or "".
func faultOf(doc document) string {
	const maxName = 500
	encoded, err := json.Marshal(doc)
	switch {
	case err != nil || !storable(string(encoded)) || strings.Contains(string(encoded), `\u0000`):
		return "the instance holds a zero byte or text that is not UTF-8"
	case doc.InstanceID == "" || (doc.HostName == "" && doc.IPAddr == ""):
		return "the instance needs an instanceId and a hostName"
	case len(doc.InstanceID) > maxName || len(doc.App) > maxName:
		return "the name of the app or of the instance is too long"
	case doc.Status != "" && !knownState(string(doc.Status)):
		return "the instance's status is not known"
	}
	return ""
}

// storable reports whether PostgreSQL can hold the text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func knownState(s string) bool {
	switch s {
	case discovery.StatusUp, discovery.StatusDown, discovery.StatusStarting, discovery.StatusOutOfService, discovery.StatusUnknown:
		return true
	}
	return false
}

func (r *Registry) putHeartbeat(c *gin.Context) {
	if !r.renew(keyOf(c), c.Query("lastDirtyTimestamp")) {
		c.Status(http.StatusNotFound)
		return
	}
	c.Status(http.StatusOK)
}

func (r *Registry) deleteInstance(c *gin.Context) {
	r.answerWrite(c)(r.cancel(keyOf(c)))
}

// putStatus sets an override, which outlives heartbeats and registrations.
func (r *Registry) putStatus(c *gin.Context) {
	value := c.Query("value")
	if !knownState(value) {
		c.Status(http.StatusBadRequest)
		return
	}
	r.answerWrite(c)(r.edit(keyOf(c), func(d *document) { d.Overridden = text(value) }))
}

// deleteStatus ends an override. The instance has the state it gave itself again, or the one that the caller names.
func (r *Registry) deleteStatus(c *gin.Context) {
	value := c.Query("value")
	if value != "" && !knownState(value) {
		c.Status(http.StatusBadRequest)
		return
	}
	r.answerWrite(c)(r.edit(keyOf(c), func(d *document) {
		d.Overridden = discovery.StatusUnknown
		if value != "" && value != discovery.StatusUnknown {
			d.own = text(value)
		}
	}))
}

func (r *Registry) putMetadata(c *gin.Context) {
	added := metadata{}
	for name, values := range c.Request.URL.Query() {
		if !storable(name) || !storable(values[0]) {
			c.Status(http.StatusBadRequest)
			return
		}
		added[name] = values[0]
	}
	r.answerWrite(c)(r.edit(keyOf(c), func(d *document) {
		merged := metadata{}
		for _, from := range []metadata{d.Metadata, added} {
			for name, value := range from {
				merged[name] = value
			}
		}
		d.Metadata = merged
	}))
}

// answerWrite answers a change: 200 once it is stored, as far as the database is there, or 404.
func (r *Registry) answerWrite(c *gin.Context) func(written <-chan struct{}, known bool) {
	return func(written <-chan struct{}, known bool) {
		if !known {
			c.Status(http.StatusNotFound)
			return
		}
		r.awaitWrite(c.Request.Context(), written)
		c.Status(http.StatusOK)
	}
}
