package rollout

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// PreviewTimeout is how long a preview may take: somebody waits for it.
const PreviewTimeout = 12 * time.Second

// Previewed is a plan with everything known that it would go by. Nothing of it has begun.
type Previewed struct {
	// Hash is what an approval of the plan names.
	Hash string `json:"hash"`
	// Gate says what it would wait for before production.
	Gate string `json:"gate,omitempty"`
	// Steps are the rollouts in their order.
	Steps []PreviewedRollout `json:"steps"`
}

// PreviewedRollout is one rollout of a plan.
type PreviewedRollout struct {
	Environment string `json:"environment"`
	Service     string `json:"service"`
	Wave        int    `json:"wave"`
	// From is what runs, To what would; they are the same when there is nothing to do.
	From string `json:"from"`
	To   string `json:"to"`
	// Version is what the new release says of itself.
	Version  string `json:"version,omitempty"`
	Replicas int    `json:"replicas"`
	// How traffic would come to it.
	How string `json:"how"`
	// Proof is why the release may go to production.
	Proof string `json:"proof,omitempty"`
	// Migrations are the changes of the database that the release brings with it.
	Migrations []string `json:"migrations,omitempty"`
	// Waits are reasons for which it would wait, Stops those for which it would not begin at all.
	Waits []string `json:"waits,omitempty"`
	Stops []string `json:"stops,omitempty"`
}

// PreviewInput is what would be asked for: a plan, or its one rollout Alone, which does not wait.
type PreviewInput struct {
	rollout.Plan
	Alone bool `json:"alone"`
}

// Preview resolves a plan: the releases are made known to the target, by their content, and nothing else is changed.
func Preview(ctx workflow.Context, asked PreviewInput) (Previewed, error) {
	in := asked.Plan.WithDefaults()
	if faults := in.Faults(); len(faults) > 0 && !asked.Alone {
		return Previewed{}, refused(faults[0])
	}
	p := &preview{PreviewInput: asked, ctx: ctx, planned: map[string]bool{}}
	versions := map[string]string{}
	for i, part := range in.Services {
		if in.Each.Rollback {
			continue // each environment has its own
		}
		var release target.Release
		if err := p.ask(acts.ImportRelease, activities.ImportInput{Service: part.Service, Release: part.Release}, &release); err != nil {
			return Previewed{}, err
		}
		in.Services[i].Release, versions[part.Service] = release.Digest, release.Version
	}
	out := Previewed{Hash: in.Hash()}
	if in.Gate {
		out.Gate = fmt.Sprintf("an approval of plan %s within %s", out.Hash, in.ApproveWithin)
	}
	for _, environment := range in.Environments {
		for _, part := range in.Services {
			if !rollout.Runs(environment, part.Service) {
				continue
			}
			step, err := p.look(in.Request(environment, part))
			if err != nil {
				return out, err
			}
			step.Wave, step.Version = part.Wave, versions[part.Service]
			out.Steps = append(out.Steps, step)
		}
	}
	return out, nil
}

type preview struct {
	PreviewInput
	ctx workflow.Context
	// planned are the releases that the plan would have rolled out before.
	planned map[string]bool
}

func (p *preview) ask(activity, in, out any) error {
	return callWithin(p.ctx, PreviewTimeout, activity, in, out)
}

// look at one rollout.
func (p *preview) look(in rollout.Request) (PreviewedRollout, error) {
	step := PreviewedRollout{Environment: in.Environment, Service: in.Service, To: in.Release, How: in.How()}
	service := activities.Service{Environment: in.Environment, Service: in.Service}
	stop := func(waits bool, why string) {
		if waits {
			step.Waits = append(step.Waits, why)
		} else {
			step.Stops = append(step.Stops, why)
		}
	}
	var observed target.Observed
	if err := p.ask(acts.ObserveTarget, service, &observed); err != nil {
		return step, err
	}
	stable, canary := observed.Tracks[target.Stable], observed.Tracks[target.Canary]
	step.From, step.Replicas = stable.Release, stable.Replicas
	if stable.Replicas == 0 {
		stop(false, fmt.Sprintf("%s does not run in %s: there is nothing to replace", in.Service, in.Environment))
	}
	if canary.Replicas > 0 {
		stop(p.Supersede, "another rollout is under way, of "+short(canary.Release))
	}
	current := activities.CurrentInput{Service: service, Release: stable.Release}
	if !in.Rollback && step.From != step.To && stable.Replicas > 0 {
		var migrations activities.Migrations
		if err := p.ask(acts.ReadMigrations, activities.CurrentInput{Service: service, Release: in.Release}, &migrations); err != nil {
			return step, err
		}
		for _, m := range migrations.Pending {
			step.Migrations = append(step.Migrations, fmt.Sprintf("%s (%s)", m.Name, m.Kind))
		}
		for _, fault := range migrations.Faults() {
			stop(false, fault)
		}
	}
	if in.Rollback {
		if err := p.ask(acts.FindLastGood, current, &step.To); err != nil {
			stop(false, why(err))
		}
		return step, nil // nothing else holds it
	}
	if in.Environment == rollout.Production {
		current.Release = in.Release
		switch {
		case in.Unproven != "":
			step.Proof = "nothing: " + in.Unproven
		case p.planned[in.Service+in.Release]:
			step.Proof = "the rollout in staging, before this one"
		default:
			if err := p.ask(acts.ProveRelease, current, &step.Proof); err != nil {
				stop(false, why(err))
			}
		}
	}
	p.planned[in.Service+in.Release] = true
	var frozen activities.Frozen
	if err := p.ask(acts.FindFreeze, activities.FreezeInput{Environment: in.Environment, Freezes: in.Freezes, At: workflow.Now(p.ctx)}, &frozen); err != nil {
		return step, err
	}
	if !frozen.Until.IsZero() && in.Thaw == "" {
		stop(!p.Alone, frozen.String())
	}
	return step, nil
}
