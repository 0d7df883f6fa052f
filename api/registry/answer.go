package registry

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/klauspost/compress/gzip"
)

// hash is how a client that applies deltas checks its copy: the number of instances in each state, states sorted
// (com.netflix.discovery.shared.Applications#getReconcileHashCode).
func hash(states map[string]int) string {
	var b strings.Builder
	for _, status := range slices.Sorted(maps.Keys(states)) {
		fmt.Fprintf(&b, "%s_%d_", status, states[status])
	}
	return b.String()
}

// shape is the envelope of an answer.
type shape int

const (
	allApplications shape = iota
	oneApplication
	oneInstance
)

// form is how an answer is written.
type form struct {
	shape shape
	json  bool
}

// put writes a listing. Nothing of the size of the answer is made: the pieces are there.
func (f form) put(w io.Writer, all listing) {
	b := &builder{w: w, json: f.json, all: all}
	if f.json {
		f.putJSON(b)
	} else {
		f.putXML(b)
	}
}

// builder ignores errors: its writers are buffers, or remember theirs.
type builder struct {
	w      io.Writer
	json   bool
	all    listing
	digits [20]byte
}

func (b *builder) text(parts ...string) {
	for _, part := range parts {
		_, _ = io.WriteString(b.w, part)
	}
}

func (b *builder) instance(l *lease) {
	f := &l.json
	if !b.json {
		f = &l.xml
	}
	_, _ = b.w.Write(f.text[:f.hole])
	renewed := b.all.wall - (b.all.now - time.Duration(l.spoke.renewed.Load())).Milliseconds()
	_, _ = b.w.Write(strconv.AppendInt(b.digits[:0], renewed, 10))
	_, _ = b.w.Write(f.text[f.hole+1:])
}

// instances writes leases from one on that are of the same application, and returns how many.
func (b *builder) instances(from int, between string) int {
	leases := b.all.leases[from:]
	for i, l := range leases {
		if l.app != leases[0].app {
			return i
		}
		if i > 0 {
			b.text(between)
		}
		b.instance(l)
	}
	return len(leases)
}

func (f form) putJSON(b *builder) {
	switch f.shape {
	case oneInstance:
		b.text(`{"instance":`)
		b.instance(b.all.leases[0])
		b.text(`}`)
	case oneApplication:
		b.text(`{"application":{"name":`, quoted(b.all.leases[0].app), `,"instance":[`)
		b.instances(0, ",")
		b.text(`]}}`)
	default:
		b.text(`{"applications":{"versions__delta":"`, strconv.FormatInt(b.all.revision, 10), `","apps__hashcode":"`, b.all.hash, `","application":[`)
		for i := 0; i < len(b.all.leases); {
			if i > 0 {
				b.text(",")
			}
			b.text(`{"name":`, quoted(b.all.leases[i].app), `,"instance":[`)
			i += b.instances(i, ",")
			b.text(`]}`)
		}
		b.text(`]}}`)
	}
}

func (f form) putXML(b *builder) {
	one := func(from int) int {
		b.text(`<application><name>`, escaped(b.all.leases[from].app), `</name>`)
		n := b.instances(from, "")
		b.text(`</application>`)
		return n
	}
	switch f.shape {
	case oneInstance:
		b.instance(b.all.leases[0])
	case oneApplication:
		one(0)
	default:
		b.text(`<applications><versions__delta>`, strconv.FormatInt(b.all.revision, 10), `</versions__delta><apps__hashcode>`, b.all.hash, `</apps__hashcode>`)
		for i := 0; i < len(b.all.leases); {
			i += one(i)
		}
		b.text(`</applications>`)
	}
}

// quoted and escaped write an application's name as Eureka does, in capitals.
func quoted(app string) string {
	text, _ := json.Marshal(strings.ToUpper(app)) // a string can be encoded
	return string(text)
}

func escaped(app string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(strings.ToUpper(app))) // a builder takes everything
	return b.String()
}

// length counts what is written to it.
type length int

func (n *length) Write(p []byte) (int, error)       { *n += length(len(p)); return len(p), nil }
func (n *length) WriteString(s string) (int, error) { *n += length(len(s)); return len(s), nil }

var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}

// respond answers a read in JSON when the caller asks for it, and else in XML as Eureka does: some clients, such as Prometheus,
// say nothing and read XML only.
func respond(c *gin.Context, s shape, all listing) {
	if len(all.leases) == 0 && s != allApplications {
		c.Status(http.StatusNotFound) // with no body: Java clients read any body as an instance
		return
	}
	f := formOf(c, s)
	if wantsGzip(c.GetHeader("Accept-Encoding")) {
		c.Header("Content-Encoding", "gzip")
		send(c, pack(f, all))
		return
	}
	var size length
	f.put(&size, all)
	c.Header("Content-Length", strconv.Itoa(int(size)))
	c.Status(http.StatusOK)
	w := buffers.Get().(*bufio.Writer)
	w.Reset(c.Writer)
	f.put(w, all)
	if err := w.Flush(); err != nil {
		_ = c.Error(err)
	}
	w.Reset(nil)
	buffers.Put(w)
}

// formOf reads the headers of a request and sets those of its answer.
func formOf(c *gin.Context, s shape) form {
	f := form{s, wantsJSON(c.GetHeader("Accept"))}
	c.Header("Content-Type", "application/xml")
	if f.json {
		c.Header("Content-Type", "application/json")
	}
	c.Header("Vary", "Accept, Accept-Encoding")
	return f
}

func send(c *gin.Context, body []byte) {
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Status(http.StatusOK)
	if _, err := c.Writer.Write(body); err != nil {
		_ = c.Error(err)
	}
}

var compressors = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one
	return w
}}

// pack compresses an answer.
func pack(f form, all listing) []byte {
	var out bytes.Buffer
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	w.Reset(&out)
	buffered := buffers.Get().(*bufio.Writer)
	buffered.Reset(w)
	f.put(buffered, all)
	_ = buffered.Flush() // a buffer takes everything
	buffered.Reset(nil)
	buffers.Put(buffered)
	_ = w.Close()
	return out.Bytes()
}

// packings are the compressed answers that are kept: all applications and the delta, in JSON and in XML.
const packings = 4

// packed is a compressed answer of a revision, made by the first who asks for it.
type packed struct {
	mu       sync.Mutex
	revision int64
	made     instant
	body     []byte
}

// respondAll answers /apps and /apps/delta, which many poll.
func (r *Registry) respondAll(c *gin.Context, list func() listing, delta bool) {
	if !wantsGzip(c.GetHeader("Accept-Encoding")) {
		respond(c, allApplications, list())
		return
	}
	f := formOf(c, allApplications)
	i := 0
	if f.json {
		i++
	}
	if delta {
		i += packings / 2
	}
	c.Header("Content-Encoding", "gzip")
	send(c, r.packed[i].get(r, f, list))
}

func (p *packed) get(r *Registry, f form, list func() listing) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.mu.Lock()
	revision := r.revision
	r.mu.Unlock()
	if p.body == nil || p.revision != revision || r.now()-p.made > r.cfg.GzipAge {
		all := list()
		p.revision, p.made, p.body = all.revision, r.now(), pack(f, all)
	}
	return p.body
}

// wantsJSON reports whether JSON is named in an Accept header, before XML if that is named too.
func wantsJSON(accept string) bool {
	jsonAt, xmlAt := strings.Index(accept, "json"), strings.Index(accept, "xml")
	return jsonAt >= 0 && (xmlAt < 0 || jsonAt < xmlAt)
}

// wantsGzip reports whether an Accept-Encoding header takes gzip (RFC 9110, section 12.5.3).
func wantsGzip(accept string) bool {
	for coding := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(coding, ";")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && !strings.EqualFold(name, "x-gzip") {
			continue
		}
		weight, found := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return !found || err != nil || q > 0
	}
	return false
}
