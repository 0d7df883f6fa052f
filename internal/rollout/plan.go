package rollout

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Plan takes releases of one or more services through one or more environments.
type Plan struct {
	// Environments in their order: the next begins when the one before has ended well.
	Environments []string `json:"environments"`
	// Services by their waves: a wave begins when the one before has ended well.
	Services []Part `json:"services"`
	// Gate holds the plan before production until somebody approves it.
	Gate bool `json:"gate"`
	// OtherApprover refuses the approval of whoever asked for the plan.
	OtherApprover bool `json:"otherApprover,omitempty"`
	// ApproveWithin is how long the gate waits. Default: 24 h.
	ApproveWithin time.Duration `json:"approveWithin,omitempty"`
	// Supersede ends, cleanly, what is under way of a service in an environment before its own rollout begins there.
	Supersede   bool   `json:"supersede,omitempty"`
	RequestedBy string `json:"requestedBy"`
	// RequestID is as in Request.
	RequestID string `json:"requestId,omitempty"`
	// Each is how every service is rolled out in every environment; its environment, service and release are not used.
	Each Request `json:"each"`
}

// Part is one service of a plan.
type Part struct {
	Service string `json:"service"`
	Release string `json:"release,omitempty"`
	// Wave counts from 1: services of the same are rolled out at once. Default: each has its own, in the order in which they depend on each
	// other.
	Wave int `json:"wave,omitempty"`
}

// Limits of a Plan.
const (
	DefaultApproveWithin = 24 * time.Hour
	maxApproveWithin     = 30 * 24 * time.Hour
	maxWave              = 100
)

// WithDefaults fills in what was not asked for, and puts the services into the order of their waves, and of how they depend on each other.
func (p Plan) WithDefaults() Plan {
	if p.ApproveWithin == 0 {
		p.ApproveWithin = DefaultApproveWithin
	}
	p.Each = p.Each.WithDefaults()
	p.Services = slices.Clone(p.Services)
	slices.SortStableFunc(p.Services, func(a, b Part) int {
		return cmp.Or(a.Wave-b.Wave, slices.Index(order, a.Service)-slices.Index(order, b.Service))
	})
	if !slices.ContainsFunc(p.Services, func(part Part) bool { return part.Wave != 0 }) {
		for i := range p.Services {
			p.Services[i].Wave = i + 1
		}
	}
	return p
}

// Waves are the services that are rolled out at once, one wave after the other.
func (p Plan) Waves() [][]Part {
	var waves [][]Part
	for i, part := range p.Services {
		if i == 0 || part.Wave != p.Services[i-1].Wave {
			waves = append(waves, nil)
		}
		waves[len(waves)-1] = append(waves[len(waves)-1], part)
	}
	return waves
}

// skips reports whether a service is left out of an environment, because that runs none of its own and another one of the plan does.
func (p Plan) skips(environment, service string) bool {
	return !Runs(environment, service) && slices.ContainsFunc(p.Environments, func(other string) bool { return Runs(other, service) })
}

// order is that in which services depend on each other: what others ask comes first, the door last.
var order = []string{Registry, "configuration-service", "student-service", Gateway}

// Subject names the services.
func (p Plan) Subject() string {
	names := make([]string, len(p.Services))
	for i, part := range p.Services {
		names[i] = part.Service
	}
	return strings.Join(names, ", ")
}

// PlanID names the workflow of a plan that is asked for at a time. It is no lock, its rollouts have theirs, but that a request with an id
// has one plan.
func PlanID(p Plan, at time.Time) string {
	if p.RequestID != "" {
		sum := sha256.Sum256([]byte(p.RequestedBy + "\x00" + p.RequestID))
		return "rollout-plan/" + strings.ReplaceAll(p.Subject(), ", ", "+") + "/" + hex.EncodeToString(sum[:8])
	}
	return "rollout-plan/" + strings.ReplaceAll(p.Subject(), ", ", "+") + "/" + at.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
}

// Request is the rollout of one part in one environment.
func (p Plan) Request(environment string, part Part) Request {
	r := p.Each
	r.Environment, r.Service, r.Release, r.RequestedBy = environment, part.Service, part.Release, p.RequestedBy
	return r.WithDefaults()
}

// Faults names everything that is wrong with the plan.
func (p Plan) Faults() []Fault {
	var faults []Fault
	fault := func(field, format string, args ...any) {
		faults = append(faults, Fault{field, fmt.Sprintf(format, args...)})
	}
	if len(p.Environments) == 0 || len(slices.Compact(slices.Sorted(slices.Values(p.Environments)))) != len(p.Environments) {
		fault("environments", "%q must name environments of %v, each once", p.Environments, Environments())
	}
	var services []string
	for i, part := range p.Services {
		services = append(services, part.Service)
		if part.Wave < 1 || part.Wave > maxWave {
			fault(fmt.Sprintf("services[%d].wave", i), "of %s is %d, not from 1 to %d: give all services a wave, or none", part.Service, part.Wave, maxWave)
		}
	}
	if len(services) == 0 || len(slices.Compact(slices.Sorted(slices.Values(services)))) != len(services) {
		fault("services", "%q must name services of %v, each once", services, Services())
	}
	if p.ApproveWithin < time.Minute || p.ApproveWithin > maxApproveWithin {
		fault("approveWithin", "%s is not between 1m and %s", p.ApproveWithin, maxApproveWithin)
	}
	if p.Each.Converge || p.Each.Rollback && !p.Supersede {
		fault("rollback", "is not for a plan: roll back one service")
	}
	for _, environment := range p.Environments {
		for _, part := range p.Services {
			if p.skips(environment, part.Service) {
				continue
			}
			for _, f := range p.Request(environment, part).Faults() {
				if !slices.Contains(faults, f) {
					faults = append(faults, f)
				}
			}
		}
	}
	return faults
}

// Hash is what an approval is bound to: with any other release, order or rule it is another.
func (p Plan) Hash() string {
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err) // only numbers that JSON does not know, which Faults has refused
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// Proven says whether a release may go to production by what was promoted in staging and what runs there: staging must run it, and must
// have come to it at the end of a rollout with smoke tests, which a rollback has not. Otherwise it says why not.
func Proven(staging []Promotion, runs, release string) (by Promotion, why string) {
	for _, p := range slices.Backward(staging) {
		if p.Release == release && !p.Rollback {
			if runs != release {
				return p, "staging has run it, but runs another release by now"
			}
			return p, ""
		}
	}
	return Promotion{}, "it has not ended a rollout in staging well"
}
