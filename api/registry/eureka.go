package registry

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/klauspost/compress/gzip"

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
		handle(http.MethodGet, "/apps/delta", r.getDelta)
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

// getAll answers /apps. A region is taken and not looked at: there is one.
func (r *Registry) getAll(c *gin.Context) {
	r.fresh(c.Request.Context())
	r.respondAll(c, func() listing { return r.list(nil) }, false)
}

// getDelta answers what has changed in the last minutes, and the hash that a copy must have by now.
func (r *Registry) getDelta(c *gin.Context) {
	r.fresh(c.Request.Context())
	r.respondAll(c, r.delta, true)
}

func (r *Registry) getApp(c *gin.Context) {
	r.fresh(c.Request.Context())
	respond(c, oneApplication, r.of(strings.ToLower(c.Param("app"))))
}

// getInstance answers for an id, within an application where the path names one.
func (r *Registry) getInstance(c *gin.Context) {
	r.fresh(c.Request.Context())
	respond(c, oneInstance, r.find(keyOf(c)))
}

func (r *Registry) getVIP(c *gin.Context) {
	r.fresh(c.Request.Context())
	vip, svip := c.Param("vip"), c.Param("svip")
	all := r.list(func(l *lease) bool {
		if vip != "" {
			return names(l.vip, vip)
		}
		return names(l.svip, svip)
	})
	if len(all.leases) == 0 {
		c.Status(http.StatusNotFound)
		return
	}
	all.hash = hash(all.states())
	respond(c, allApplications, all)
}

// states counts the instances of a listing by state.
func (l listing) states() map[string]int {
	counts := map[string]int{}
	for _, one := range l.leases {
		counts[one.status]++
	}
	return counts
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
	r.register(c.Request.Context(), doc)
	c.Status(http.StatusNoContent)
}

// maxInstanceBytes bounds an instance that came compressed; others are bounded as every body is.
const maxInstanceBytes = 1 << 20

func readInstance(c *gin.Context) (document, error) {
	body := io.Reader(c.Request.Body)
	if strings.Contains(strings.ToLower(c.GetHeader("Content-Encoding")), "gzip") {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return document{}, err
		}
		body = io.LimitReader(unpacked, maxInstanceBytes)
	}
	if strings.Contains(c.ContentType(), "xml") {
		var doc document
		err := xml.NewDecoder(body).Decode(&doc)
		return doc, err
	}
	var in struct {
		Instance document `json:"instance"`
	}
	err := json.NewDecoder(body).Decode(&in)
	return in.Instance, err
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

// putHeartbeat prolongs a lease. status and overriddenstatus, which clients send too, are for Eureka's own replication.
func (r *Registry) putHeartbeat(c *gin.Context) {
	k := keyOf(c)
	lastDirty, _ := strconv.ParseInt(c.Query("lastDirtyTimestamp"), 10, 64) // without one, 0, nothing has changed
	if r.renew(k, lastDirty) {
		c.Status(http.StatusOK)
		return
	}
	r.fresh(c.Request.Context()) // another registry may know the instance, or its change, already
	if !r.renew(k, lastDirty) {
		c.Status(http.StatusNotFound)
		return
	}
	c.Status(http.StatusOK)
}

func (r *Registry) deleteInstance(c *gin.Context) {
	answerChange(c, r.cancel(c.Request.Context(), keyOf(c)))
}

// putStatus sets an override, which outlives heartbeats and registrations.
func (r *Registry) putStatus(c *gin.Context) {
	value := c.Query("value")
	if !knownState(value) {
		c.Status(http.StatusBadRequest)
		return
	}
	dirty := c.Query("lastDirtyTimestamp")
	answerChange(c, r.edit(c.Request.Context(), keyOf(c), func(d *document) {
		d.Overridden = text(value)
		d.touched(dirty)
	}))
}

// deleteStatus ends an override. The instance has the state it gave itself again, or the one that the caller names.
func (r *Registry) deleteStatus(c *gin.Context) {
	value := c.Query("value")
	if value != "" && !knownState(value) {
		c.Status(http.StatusBadRequest)
		return
	}
	dirty := c.Query("lastDirtyTimestamp")
	answerChange(c, r.edit(c.Request.Context(), keyOf(c), func(d *document) {
		d.Overridden = discovery.StatusUnknown
		if value != "" && value != discovery.StatusUnknown {
			d.own = text(value)
		}
		d.touched(dirty)
	}))
}

// touched takes over a later time of change that the instance names.
func (d *document) touched(lastDirty string) {
	theirs, err := strconv.ParseInt(lastDirty, 10, 64)
	ours, _ := strconv.ParseInt(string(d.LastDirty), 10, 64) // none is 0
	if err == nil && theirs > ours {
		d.LastDirty = text(lastDirty)
	}
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
	answerChange(c, r.edit(c.Request.Context(), keyOf(c), func(d *document) { d.Metadata = merged(d.Metadata, added) }))
}

// answerChange answers 200 once a change is in force, or 404.
func answerChange(c *gin.Context, known bool) {
	if !known {
		c.Status(http.StatusNotFound)
		return
	}
	c.Status(http.StatusOK)
}
