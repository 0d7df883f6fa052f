package rollout

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// JanitorID names the schedule of Janitor.
const JanitorID = "rollout-janitor"

// JanitorInput says where to look.
type JanitorInput struct {
	Environments []string `json:"environments"`
	Services     []string `json:"services"`
}

// Janitor puts back what rollouts have left that were terminated, and so could not put back anything themselves. It acts by a rollout,
// whose id is the lock: where one still runs, Temporal refuses, and what was found is that one's.
func Janitor(ctx workflow.Context, in JanitorInput) error {
	var failed error
	for _, environment := range in.Environments {
		for _, service := range in.Services {
			var left bool
			of := activities.Service{Environment: environment, Service: service}
			if err := callWithin(ctx, janitorPatience, acts.FindLeftovers, of, &left); err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s in %s: %w", service, environment, err))
				continue
			}
			if !left {
				continue
			}
			child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: rollout.WorkflowID(environment, service),
				StaticSummary: fmt.Sprintf("Put back what a terminated rollout of %s in %s has left", service, environment)})
			err := workflow.ExecuteChildWorkflow(child, Rollout, rollout.Request{Environment: environment, Service: service, RequestedBy: JanitorID, Converge: true}).Get(ctx, nil)
			if !runsAlready(err) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// converge leaves the stable release alone with all traffic.
func (r *run) converge(ctx workflow.Context) error {
	r.settled = true
	r.Step("Read what runs")
	var observed target.Observed
	if err := call(ctx, acts.ObserveTarget, r.service, &observed); err != nil {
		return r.lost(err)
	}
	r.stable = observed.Tracks[target.Stable]
	if r.stable.Replicas == 0 {
		return r.lost(fmt.Errorf("%s has no stable release in %s", r.Service, r.Environment))
	}
	r.outcome.From, r.outcome.To = observed.Tracks[target.Canary].Release, r.stable.Release
	r.Step("Put traffic back to " + short(r.stable.Release))
	if err := r.stableOnly(ctx); err != nil {
		return r.lost(err)
	}
	r.Step("Remove what else there is")
	if err := r.removeCanary(ctx); err != nil {
		return r.lost(err)
	}
	gone := map[string]bool{r.stable.Release: true}
	for _, i := range observed.Instances {
		if gone[i.Release] {
			continue
		}
		gone[i.Release] = true
		if err := await(ctx, acts.AwaitGone, r.instances(i.Release), goneTimeout); err != nil {
			return r.lost(err)
		}
	}
	if err := r.clear(ctx); err != nil {
		return r.lost(err)
	}
	r.Done("gone")
	return r.End(operation.Succeeded, fmt.Sprintf("%s runs %s alone: what a terminated rollout had left is gone.", r.Service, short(r.stable.Release)), r.outcome)
}

func (r *run) stableOnly(ctx workflow.Context) error {
	in := activities.TrafficInput{Service: r.service, Split: rollout.Split(r.stable.Release, "", 0), Fence: r.next(ctx)}
	return call(ctx, acts.SetTraffic, in, nil)
}
