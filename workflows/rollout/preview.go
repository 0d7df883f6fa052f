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
	Plan rollout.Plan `json:"plan"`
	// Hash is what an approval of the plan names.
	Hash string `json:"hash"`
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
	// Proof is why the release may go to production.
	Proof string `json:"proof,omitempty"`
	// Migrations are the changes of the database that the release brings with it.
	Migrations []string `json:"migrations,omitempty"`
	// Stops are reasons for which it would not begin now.
	Stops []string `json:"stops,omitempty"`
}

// Preview resolves a plan: the releases are made known to the target, by their content, and nothing else is changed.
func Preview(ctx workflow.Context, in rollout.Plan) (Previewed, error) {
	in = in.WithDefaults()
	if faults := in.Faults(); len(faults) > 0 {
		return Previewed{}, refused(faults[0])
	}
	preview := Previewed{}
	ask := func(activity, with, out any) error { return callWithin(ctx, PreviewTimeout, activity, with, out) }
	versions := map[string]string{}
	for i, part := range in.Services {
		if in.Each.Rollback {
			continue // each environment has its own
		}
		var release target.Release
		if err := ask(acts.ImportRelease, activities.ImportInput{Service: part.Service, Release: part.Release}, &release); err != nil {
			return preview, err
		}
		in.Services[i].Release, versions[part.Service] = release.Digest, release.Version
	}
	preview.Plan, preview.Hash = in, in.Hash()
	planned := map[string]bool{}
	for _, environment := range in.Environments {
		for _, part := range in.Services {
			step, err := previewOne(ask, in.Request(environment, part), workflow.Now(ctx), planned)
			if err != nil {
				return preview, err
			}
			step.Wave, step.Version = part.Wave, versions[part.Service]
			planned[environment+step.Service+step.To] = true
			preview.Steps = append(preview.Steps, step)
		}
	}
	return preview, nil
}

// previewOne looks at one rollout; planned are those that the plan would have done before.
func previewOne(ask func(activity, in, out any) error, in rollout.Request, now time.Time, planned map[string]bool) (PreviewedRollout, error) {
	step := PreviewedRollout{Environment: in.Environment, Service: in.Service, To: in.Release}
	service := activities.Service{Environment: in.Environment, Service: in.Service}
	stop := func(why string) { step.Stops = append(step.Stops, why) }
	var observed target.Observed
	if err := ask(acts.ObserveTarget, service, &observed); err != nil {
		return step, err
	}
	stable, canary := observed.Tracks[target.Stable], observed.Tracks[target.Canary]
	step.From, step.Replicas = stable.Release, stable.Replicas
	if stable.Replicas == 0 {
		stop(fmt.Sprintf("%s does not run in %s: there is nothing to replace", in.Service, in.Environment))
	}
	if canary.Replicas > 0 {
		stop("another rollout is under way, of " + short(canary.Release))
	}
	current := activities.CurrentInput{Service: service, Release: stable.Release}
	if in.Rollback {
		if err := ask(acts.FindLastGood, current, &step.To); err != nil {
			stop(why(err))
		}
		return step, nil // nothing else holds it
	}
	if in.Environment == rollout.Production {
		current.Release = in.Release
		switch {
		case in.Unproven != "":
			step.Proof = "none is asked for: " + in.Unproven
		case planned["staging"+in.Service+in.Release]:
			step.Proof = "the rollout in staging, before this one"
		default:
			if err := ask(acts.ProveRelease, current, &step.Proof); err != nil {
				stop(why(err))
			}
		}
	}
	var frozen activities.Frozen
	if err := ask(acts.FindFreeze, activities.FreezeInput{Environment: in.Environment, Freezes: in.Freezes, At: now}, &frozen); err != nil {
		return step, err
	}
	if !frozen.Until.IsZero() && in.Thaw == "" {
		stop(frozen.String())
	}
	return step, nil
}
