// Package rollout holds the rules of a rollout: what may be asked, how traffic moves, and when a release has failed.
// Nothing here acts or waits.
package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/target"
)

// Services whose instances share a door: they get traffic from their start, in equal parts, and nobody splits it.
const (
	// Gateway splits the traffic of the others.
	Gateway = "api-gateway"
	// Registry is where the others are found. It is in no registry itself: what runs of it is known by its target alone.
	Registry = "eureka-server"
)

// SharesDoor reports whether the instances of a service share a door.
func SharesDoor(service string) bool { return service == Gateway || service == Registry }

// Production is the environment that needs proof and approval.
const Production = "production"

// Services that are rolled out here. A Request may name another, which its target then has to know.
func Services() []string { return slices.Clone(order) }

// Environments that can be rolled out to.
func Environments() []string { return []string{Production, "staging"} }

// Runs reports whether an environment runs a service of its own: the registry of production serves all.
func Runs(environment, service string) bool { return service != Registry || environment == Production }

// Request asks for a rollout of one service in one environment.
type Request struct {
	Environment string `json:"environment"`
	Service     string `json:"service"`
	// Release is what the target runs: on one machine the absolute path of an executable, or the digest of one that it knows.
	Release     string `json:"release,omitempty"`
	RequestedBy string `json:"requestedBy"`
	// RequestID is what RequestedBy calls the request: asked for again under the same id, it is not done again. Empty: it has none.
	RequestID string `json:"requestId,omitempty"`
	// Rollback goes back to the last release that is known to be good, at once: no release is named, no weight is held.
	Rollback bool `json:"rollback,omitempty"`
	// Converge only puts back what a terminated rollout has left. No release is named.
	Converge bool `json:"converge,omitempty"`
	// Unproven says why a release may go to production that staging does not run. Empty: it may not.
	Unproven string `json:"unproven,omitempty"`
	// Strategy is how traffic comes to the new release. Default: canary. That is rolling for services whose instances share a door.
	Strategy string `json:"strategy,omitempty"`
	// Weights are the percentages of traffic that the new release gets, one after the other; the last is 100. Only for canaries.
	// Default: 10, 50, 100.
	Weights []int `json:"weights,omitempty"`
	// Soak is how long each weight is watched. Default: 5 s.
	Soak time.Duration `json:"soak,omitempty"`
	// ReadyWithin is how long the new instances may take to become ready. Default: 60 s.
	ReadyWithin time.Duration `json:"readyWithin,omitempty"`
	// Rules are what the release must keep to while it has traffic. Nil: DefaultRules; empty: its instances are watched alone.
	Rules []Rule `json:"rules"`
	// Minimum is how many requests the release must have answered at each weight. Default: 50.
	Minimum int `json:"minRequests,omitempty"`
	// SureWithin is how long after the soak it may still be undecided whether the release is good. Default: 5 min.
	SureWithin time.Duration `json:"sureWithin,omitempty"`
	// Freezes are times in which it is not begun, besides those of the platform. They never hold a rollback.
	Freezes []Freeze `json:"freezes,omitempty"`
	// Thaw says why it is begun in such a time all the same. Empty: it is not.
	Thaw string `json:"thaw,omitempty"`
	// Notify are the webhooks that are told of it. Empty: all.
	Notify []string `json:"notify,omitempty"`
}

// Strategies.
const (
	// Canary starts all new instances beside the old and moves traffic to them in steps.
	Canary = "canary"
	// BlueGreen moves all traffic at once, and keeps the old instances until the new ones have proven themselves.
	BlueGreen = "blue-green"
	// Rolling starts the new instances one after the other; each gets its share of the traffic.
	Rolling = "rolling"
)

// Defaults of a Request.
const (
	DefaultSoak        = 5 * time.Second
	DefaultReadyWithin = 60 * time.Second
	DefaultMinimum     = 50
	DefaultSureWithin  = 5 * time.Minute
	maxSoak            = 24 * time.Hour
	maxReadyWithin     = time.Hour
	maxMinimum         = 1_000_000
	maxSureWithin      = 24 * time.Hour
)

// WithDefaults fills in what was not asked for.
func (r Request) WithDefaults() Request {
	if r.Strategy == "" {
		r.Strategy = Canary
	}
	if SharesDoor(r.Service) && r.Strategy == Canary {
		r.Strategy, r.Weights = Rolling, nil
	}
	switch {
	case len(r.Weights) > 0 || r.Strategy == Rolling:
	case r.Strategy == BlueGreen:
		r.Weights = []int{100}
	default:
		r.Weights = []int{10, 50, 100}
	}
	if r.Soak == 0 {
		r.Soak = DefaultSoak
	}
	if r.ReadyWithin == 0 {
		r.ReadyWithin = DefaultReadyWithin
	}
	if r.Rules == nil {
		r.Rules = DefaultRules()
	}
	r.Rules = slices.Clone(r.Rules)
	for i := range r.Rules {
		r.Rules[i] = r.Rules[i].withDefaults()
	}
	if r.Minimum == 0 {
		r.Minimum = DefaultMinimum
	}
	if r.SureWithin == 0 {
		r.SureWithin = DefaultSureWithin
	}
	return r
}

// How says in a few words how traffic comes to the new release.
func (r Request) How() string {
	switch {
	case r.Rollback:
		return "at once"
	case r.Strategy == Canary:
		return fmt.Sprintf("%s %v %%, %s each", r.Strategy, r.Weights, r.Soak)
	default:
		return fmt.Sprintf("%s, %s", r.Strategy, r.Soak)
	}
}

// Fault is one thing wrong with a request.
type Fault struct{ Field, Detail string }

func (f Fault) Error() string { return f.Field + " " + f.Detail }

// Faults names everything that is wrong with the request.
func (r Request) Faults() []Fault {
	var faults []Fault
	fault := func(field, format string, args ...any) {
		faults = append(faults, Fault{field, fmt.Sprintf(format, args...)})
	}
	if !slices.Contains(Environments(), r.Environment) {
		fault("environment", "%q is none of %v", r.Environment, Environments())
	}
	if !serviceName.MatchString(r.Service) {
		fault("service", "%q is not the name of a service, such as %s", r.Service, Gateway)
	}
	if !Runs(r.Environment, r.Service) {
		fault("environment", "%q has no %s of its own: the one of %s serves it", r.Environment, r.Service, Production)
	}
	switch none := r.Rollback || r.Converge; {
	case none && r.Release != "":
		fault("release", "is not for a rollback, which goes to the last release that is known to be good")
	case !none && !filepath.IsAbs(r.Release) && !IsDigest(r.Release):
		fault("release", "%q is neither the absolute path of an executable on the platform's machine nor the digest of a release that is there", r.Release)
	}
	switch r.Strategy {
	case Canary:
		if !slices.IsSorted(r.Weights) || len(slices.Compact(slices.Clone(r.Weights))) != len(r.Weights) ||
			len(r.Weights) == 0 || r.Weights[0] < 1 || r.Weights[len(r.Weights)-1] != 100 {
			fault("weights", "%v must rise, from at least 1, and end with 100", r.Weights)
		}
	case BlueGreen:
		if !slices.Equal(r.Weights, []int{100}) {
			fault("weights", "are not for %s, which moves all traffic at once", BlueGreen)
		}
	case Rolling:
		if len(r.Weights) > 0 {
			fault("weights", "are not for %s, where each instance gets its share", Rolling)
		}
	default:
		fault("strategy", "%q is none of %s, %s and %s", r.Strategy, Canary, BlueGreen, Rolling)
	}
	if r.Soak < 0 || r.Soak > maxSoak {
		fault("soak", "%s is not between 0 and %s", r.Soak, maxSoak)
	}
	if r.ReadyWithin < time.Second || r.ReadyWithin > maxReadyWithin {
		fault("readyWithin", "%s is not between 1s and %s", r.ReadyWithin, maxReadyWithin)
	}
	named := map[string]bool{}
	for i, rule := range r.Rules {
		faults = append(faults, rule.faults(fmt.Sprintf("rules[%d]", i))...)
		if rule.Name != "" && named[rule.Name] {
			fault(fmt.Sprintf("rules[%d].name", i), "%q is taken", rule.Name)
		}
		named[rule.Name] = true
	}
	faults = append(faults, FreezeFaults(r.Freezes)...)
	if r.Minimum < 1 || r.Minimum > maxMinimum {
		fault("minRequests", "%d is not between 1 and %d requests", r.Minimum, maxMinimum)
	}
	if r.SureWithin < time.Second || r.SureWithin > maxSureWithin {
		fault("sureWithin", "%s is not between 1s and %s", r.SureWithin, maxSureWithin)
	}
	return faults
}

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Err joins the faults; nil when there are none.
func (r Request) Err() error {
	var errs []error
	for _, f := range r.Faults() {
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// IsDigest reports whether a release is named by its content.
func IsDigest(release string) bool {
	hash, ok := strings.CutPrefix(release, "sha256:")
	raw, err := hex.DecodeString(hash)
	return ok && err == nil && len(raw) == sha256.Size
}

// WorkflowID is the lock: one rollout at a time for a service in an environment.
func WorkflowID(environment, service string) string { return "rollout/" + environment + "/" + service }

// Split gives weight percent to the new release and the rest to the stable one.
func Split(stable, next string, weight int) map[string]int {
	split := map[string]int{}
	if weight < 100 {
		split[stable] = 100 - weight
	}
	if weight > 0 {
		split[next] = weight
	}
	return split
}

// maxFailures is how often instances may end by themselves while they become ready, before that is the verdict.
const maxFailures = 2

// Judge looks at the instances of a release that should have replicas ready ones. failed says why it will not do;
// otherwise it is ready, or waiting says for what.
func Judge(observed target.Observed, release string, replicas int) (ready bool, waiting, failed string) {
	instances := observed.Of(release)
	for _, i := range instances {
		if i.Restarts >= maxFailures {
			return false, "", fmt.Sprintf("%s does not stay up: %s", i.Name, i.Failure)
		}
	}
	if n := observed.Ready(release); n < replicas {
		waiting = fmt.Sprintf("%d of %d instances are ready", n, replicas)
		for _, i := range instances {
			if i.Failure != "" {
				waiting += fmt.Sprintf("; %s: %s", i.Name, i.Failure)
				break
			}
		}
		return false, waiting, ""
	}
	return true, "", ""
}

// Soured says why a release that was ready is no longer good, or nothing. One restart is one too many for a release
// that has just started.
func Soured(observed target.Observed, release string, replicas int) string {
	for _, i := range observed.Of(release) {
		if i.Restarts > 0 {
			return fmt.Sprintf("%s has ended by itself: %s", i.Name, i.Failure)
		}
		if !i.Ready {
			return fmt.Sprintf("%s is no longer ready: %s", i.Name, i.Failure)
		}
	}
	if n := observed.Ready(release); n < replicas {
		return fmt.Sprintf("only %d of %d instances are there", n, replicas)
	}
	return ""
}
