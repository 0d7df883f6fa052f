package registry

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

// key names a lease. app is in lower case.
type key struct{ app, id string }

func (k key) compare(other key) int {
	if k.app != other.app {
		return strings.Compare(k.app, other.app)
	}
	return strings.Compare(k.id, other.id)
}

// instant is a time on this process's own clock, which no other clock moves: since its start.
type instant = time.Duration

// lease is one registration. It does not change, but for when its instance last spoke; a change makes another one. It keeps the
// instance as it is answered and not as a struct of its fields: many callers read it, few change it, and it is smaller.
type lease struct {
	key
	own, status, overridden string
	vip, svip               string
	lastDirty               int64 // milliseconds, by the instance's clock
	registered              int64 // milliseconds
	duration, interval      time.Duration
	changed                 instant
	// position of the change in the database; 0 while it is not stored.
	position int64
	spoke    *spoken

	json, xml fragment
	snapshot  []byte // as the registry's own interface shows it, in JSON
}

// spoken is when an instance was last heard. All leases of one registration share it.
type spoken struct {
	renewed atomic.Int64 // instant, here or at another registry
	here    atomic.Int64 // instant, at this registry; 0 means never
}

// at moves the last renewal forward.
func (s *spoken) at(now instant) {
	for {
		old := s.renewed.Load()
		if old >= int64(now) || s.renewed.CompareAndSwap(old, int64(now)) {
			return
		}
	}
}

// hear notes a renewal at this registry.
func (s *spoken) hear(now instant) {
	s.here.Store(int64(now))
	s.at(now)
}

func (l *lease) age(now instant) time.Duration { return now - instant(l.spoke.renewed.Load()) }

// fragment is an encoded instance with a hole for the time of its last renewal: one digit at offset hole.
type fragment struct {
	text []byte
	hole int
}

var (
	jsonHole = []byte(`"lastRenewalTimestamp":0,`)
	xmlLease = []byte(`<leaseInfo><renewalIntervalInSecs>`) // metadata cannot hold it: its values are escaped
	xmlHole  = []byte(`<lastRenewalTimestamp>0<`)
)

// newLease makes the lease of a document whose own state, override and times are set.
func newLease(k key, doc document, duration time.Duration, changed instant, spoke *spoken) (*lease, error) {
	doc.Status = doc.effective()
	doc.Lease.Duration, doc.Lease.LastRenewal = number(duration.Seconds()), 0
	inJSON, err := json.Marshal(doc)
	inXML, err2 := xml.Marshal(doc)
	snapshot, err3 := json.Marshal(doc.instance())
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, fmt.Errorf("encode the instance: %w", err)
	}
	holeInJSON := bytes.Index(inJSON, jsonHole) + len(jsonHole) - 2
	times := bytes.Index(inXML, xmlLease)
	holeInXML := times + bytes.Index(inXML[times:], xmlHole) + len(xmlHole) - 2
	lastDirty, _ := strconv.ParseInt(string(doc.LastDirty), 10, 64)
	interval := time.Duration(doc.Lease.RenewalInterval) * time.Second
	if interval <= 0 || interval > duration {
		interval = duration / 3
	}
	return &lease{
		key: k, own: string(doc.own), status: string(doc.Status), overridden: string(doc.Overridden), vip: string(doc.VIP), svip: string(doc.SecureVIP),
		lastDirty: lastDirty, registered: int64(doc.Lease.Registered), duration: duration, interval: interval, changed: changed, spoke: spoke,
		json: fragment{bytes.Clone(inJSON), holeInJSON}, xml: fragment{bytes.Clone(inXML), holeInXML}, snapshot: bytes.Clone(snapshot),
	}, nil
}

// document decodes the instance. It was encoded by newLease, so it can be decoded.
func (l *lease) document() document {
	var doc document
	if err := json.Unmarshal(l.json.text, &doc); err != nil {
		panic(fmt.Sprintf("lease %s: %v", l.id, err))
	}
	doc.own = text(l.own)
	return doc
}

// stored is the document as the database keeps it: with the instance's own state.
func (l *lease) stored() ([]byte, error) {
	if l.own == l.status {
		return l.json.text, nil
	}
	doc := l.document()
	doc.Status = doc.own
	return json.Marshal(doc)
}

// departed is the lease as /apps/delta tells of its end.
func (l *lease) departed(now instant) *lease {
	doc := l.document()
	doc.ActionType = "DELETED"
	gone, err := newLease(l.key, doc, l.duration, now, l.spoke)
	if err != nil {
		panic(fmt.Sprintf("lease %s: %v", l.id, err)) // it was encoded before
	}
	return gone
}

// isState reports whether an override is in force.
func isState(s string) bool { return s != "" && s != discovery.StatusUnknown }
