package rollout

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func goodPlan() Plan {
	return Plan{Environments: []string{"staging", "production"}, RequestedBy: "meera", Gate: true, Services: []Part{
		{Service: Gateway, Release: "/srv/api-gateway"}, {Service: "student-service", Release: "sha256:" + digestOfTests},
		{Service: "configuration-service", Release: "/srv/configuration-service"},
	}}.WithDefaults()
}

const digestOfTests = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func TestPlanOrdersServicesAsTheyDependOnEachOther(t *testing.T) {
	t.Parallel()
	p := goodPlan()
	if faults := p.Faults(); len(faults) > 0 {
		t.Errorf("a good plan: %v", faults)
	}
	var names []string
	for _, part := range p.Services {
		names = append(names, part.Service)
	}
	if diff := cmp.Diff([]string{"configuration-service", "student-service", Gateway}, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestWavesGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	names := func(p Plan) [][]string {
		var waves [][]string
		for _, wave := range p.Waves() {
			var names []string
			for _, part := range wave {
				names = append(names, part.Service)
			}
			waves = append(waves, names)
		}
		return waves
	}
	p := goodPlan()
	if diff := cmp.Diff([][]string{{"configuration-service"}, {"student-service"}, {Gateway}}, names(p)); diff != "" {
		t.Errorf("by default (-want +got):\n%s", diff)
	}
	for i, wave := range []int{2, 2, 1} {
		p.Services[i].Wave = wave
	}
	p = p.WithDefaults()
	if diff := cmp.Diff([][]string{{Gateway}, {"configuration-service", "student-service"}}, names(p)); diff != "" {
		t.Errorf("as asked for (-want +got):\n%s", diff)
	}
	p.Services[1].Wave = 0
	if faults := p.WithDefaults().Faults(); len(faults) != 1 || faults[0].Field != "services[0].wave" {
		t.Errorf("a service without a wave: %v", faults)
	}
}

func TestTheRegistryIsRolledOutWhereItRuns(t *testing.T) {
	t.Parallel()
	p := goodPlan()
	p.Services = append(p.Services, Part{Service: Registry, Release: "/srv/eureka-server", Wave: 1})
	p = p.WithDefaults()
	if faults := p.Faults(); len(faults) > 0 || p.Services[0].Service != Registry {
		t.Errorf("a plan through both environments: %v, in the order %v", faults, p.Services)
	}
	if r := p.Request(Production, p.Services[0]); r.Strategy != Rolling || len(r.Weights) > 0 {
		t.Errorf("its instances share a door, and it is to be rolled out by %s, %v %%", r.Strategy, r.Weights)
	}
	p.Environments = []string{"staging"}
	if faults := p.Faults(); len(faults) != 1 || faults[0].Field != "environment" {
		t.Errorf("a plan through staging alone: %v", faults)
	}
}

func TestPlanFaultsNamesEachOnce(t *testing.T) {
	t.Parallel()
	p := Plan{Environments: []string{"staging", "moon", "moon"}, Services: []Part{{Service: "the cafeteria", Release: "relative"}}, ApproveWithin: time.Second,
		Each: Request{Soak: -1}}.WithDefaults()
	var fields []string
	for _, f := range p.Faults() {
		fields = append(fields, f.Field)
	}
	slices.Sort(fields)
	if diff := cmp.Diff([]string{"approveWithin", "environment", "environments", "release", "service", "soak"}, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestHashChangesWithWhatIsApproved(t *testing.T) {
	t.Parallel()
	hash := goodPlan().Hash()
	if hash != goodPlan().Hash() || len(hash) != 16 {
		t.Errorf("%s is not stable", hash)
	}
	for name, change := range map[string]func(*Plan){
		"a release":    func(p *Plan) { p.Services[0].Release = "/srv/other" },
		"the gate":     func(p *Plan) { p.Gate = false },
		"a rule":       func(p *Plan) { p.Each.Rules[0].Max = 0.5 },
		"the weights":  func(p *Plan) { p.Each.Weights = []int{100} },
		"environments": func(p *Plan) { p.Environments = []string{"production"} },
	} {
		p := goodPlan()
		change(&p)
		if p.Hash() == hash {
			t.Errorf("%s changed, the hash did not", name)
		}
	}
}

func TestProven(t *testing.T) {
	t.Parallel()
	history := []Promotion{{Release: "a", Operation: "1"}, {Release: "b", Operation: "2"}, {Release: "c", Rollback: true}}
	for name, c := range map[string]struct{ runs, release, by string }{
		"staging runs it":             {"b", "b", "2"},
		"staging runs an earlier one": {"a", "a", "1"},
		"another was installed":       {"x", "b", ""},
		"never seen":                  {"z", "z", ""},
		"come to by a rollback":       {"c", "c", ""},
	} {
		by, why := Proven(history, c.runs, c.release)
		if (why == "") != (c.by != "") || why == "" && by.Operation != c.by {
			t.Errorf("%s: %q by %q", name, why, by.Operation)
		}
	}
}
