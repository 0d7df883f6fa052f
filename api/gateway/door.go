package gateway

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/cors"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

// door is the caller's side of the gateway: what each answer says to browsers, who gets how much, and who is turned away
// because there is too much. It is a server.Door.
type door struct {
	cfg       DoorConfig
	safety    safety
	cors      *cors.Cors // nil: no page of another origin may call
	users     *limiter   // nil: no limit
	addresses *limiter   // nil: no limit
	inFlight  slots
	lasting   slots
}

func newDoor(cfg DoorConfig) *door {
	return &door{
		cfg: cfg, safety: newSafety(cfg.HSTSMaxAge), cors: newCORS(cfg),
		users:     newLimiter("user", cfg.UserRate, cfg.UserBurst, cfg.LimitedClients),
		addresses: newLimiter("address", cfg.AddressRate, cfg.AddressBurst, cfg.LimitedClients),
		inFlight:  slots{most: cfg.MaxInFlight}, lasting: slots{most: cfg.MaxLasting},
	}
}

// Enter says what every answer says, and lets a request in when there is room for it.
func (d *door) Enter(c *gin.Context) {
	d.safety.put(c.Writer.Header())
	if d.cors != nil && crossOrigin(d.cors, c) {
		return
	}
	if d.cfg.MaxHeaders > 0 && lines(c.Request.Header) > d.cfg.MaxHeaders {
		server.WriteProblem(c, server.NewProblem(http.StatusRequestHeaderFieldsTooLarge, "payload-too-large",
			fmt.Sprintf("a request may have at most %d header lines", d.cfg.MaxHeaders)))
		return
	}
	path := c.Request.URL.Path
	if vital(path) {
		return
	}
	room := &d.inFlight
	if lasting(c.Request) {
		room = &d.lasting
	}
	if !room.take() {
		problem := server.Unavailable("the gateway has as much to do as it can, try again", nil)
		problem.RetryAfter = max(1, int(seconds(int64(d.cfg.ShedRetryAfter))))
		server.WriteProblem(c, problem)
		return
	}
	defer room.give()
	if !strings.HasPrefix(path, "/api/") && !d.Stranger(c) { // who is asked for a token comes by there once more
		return
	}
	c.Next()
}

// Stranger limits requests without a good token by address.
func (d *door) Stranger(c *gin.Context) bool {
	if d.addresses == nil {
		return true
	}
	return d.allow(c, d.addresses, addressKey(d.addresses.seed, clientOf(c.Request, d.cfg.TrustedProxies)))
}

// Vouched does not count against the address what a good token has asked for.
func (d *door) Vouched(c *gin.Context) {
	if d.addresses != nil {
		h := c.Writer.Header()
		delete(h, "Ratelimit")
		delete(h, "Ratelimit-Policy")
		d.addresses.giveBack(addressKey(d.addresses.seed, clientOf(c.Request, d.cfg.TrustedProxies)))
	}
}

// Caller limits users. The name of a user of an issuer holds the issuer's, so that no two are one.
func (d *door) Caller(c *gin.Context, caller identity.Principal) bool {
	if d.users == nil {
		return true
	}
	return d.allow(c, d.users, maphash.String(d.users.seed, caller.User))
}

func (d *door) allow(c *gin.Context, l *limiter, client uint64) bool {
	v := l.take(client)
	l.tell(c.Writer.Header(), v)
	if v.wait == 0 {
		return true
	}
	problem := server.NewProblem(http.StatusTooManyRequests, "rate-limited", fmt.Sprintf("more than %d requests at once, or %d a second",
		l.burst, int64(time.Second)/l.interval))
	problem.RetryAfter = int(seconds(int64(v.wait)))
	server.WriteProblem(c, problem)
	return false
}

// collectors show what the door does. Their labels are fixed.
func (d *door) collectors(fleets map[string]*fleet) []prometheus.Collector {
	var all []prometheus.Collector
	count := func(name, help, label, value string, read func() int64) {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{label: value}},
			func() float64 { return float64(read()) }))
	}
	for _, l := range []*limiter{d.users, d.addresses} {
		if l == nil {
			continue
		}
		count("gateway_rate_limited_total", "Requests answered 429, by what limited them.", "by", l.name, l.refused.Load)
		count("gateway_rate_limit_crowded_total", "Requests of clients that shared a limit because too many were told apart already.",
			"by", l.name, l.crowded.Load)
	}
	for service, f := range fleets {
		count("gateway_waiting_shed_total", "Requests answered 503 at once because too many waited for an instance.",
			"service", service, f.waiting.shed.Load)
	}
	for kind, s := range map[string]*slots{"short": &d.inFlight, "lasting": &d.lasting} {
		count("gateway_shed_total", "Requests answered 503 at once because too many were under way.", "kind", kind, s.shed.Load)
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gateway_requests_in_flight", Help: "Requests under way.",
			ConstLabels: prometheus.Labels{"kind": kind}}, func() float64 { return float64(s.taken.Load()) }))
	}
	return all
}
