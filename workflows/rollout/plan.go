package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
	"github.com/school-sms/sms/workflows/progress"
)

// Updates by which people let a plan go on that waits.
const (
	// ApproveUpdate opens its gate. It takes an Approval.
	ApproveUpdate = "approve"
	// ThawUpdate does not wait for the end of a freeze. It takes a Decision.
	ThawUpdate = "thaw"
)

// Approval is a Decision about what is approved.
type Approval struct {
	Decision
	// Hash is the plan's, as its approver has seen it.
	Hash string `json:"hash"`
}

// PlanOutcome is what a plan reports of itself.
type PlanOutcome struct {
	// Hash is what an approval names.
	Hash     string         `json:"hash"`
	Services []rollout.Part `json:"services"`
	// Rollouts are those that the plan has begun.
	Rollouts  []PlannedRollout `json:"rollouts,omitempty"`
	Reason    string           `json:"reason,omitempty"`
	Decisions []Decision       `json:"decisions,omitempty"`
}

// PlannedRollout is a rollout of a plan.
type PlannedRollout struct {
	// ID is that of its operation; empty while it is not known.
	ID          string `json:"id,omitempty"`
	Environment string `json:"environment"`
	Service     string `json:"service"`
	State       string `json:"state"`
	// Changed says that another release runs since; a rollout of what runs already has nothing to roll back.
	Changed bool `json:"changed,omitempty"`
}

// RolloutPlan takes releases through environments, wave by wave. Releases are known by their content from the beginning: what lies at
// a path later changes nothing. When a rollout fails, those of its environment that the plan has ended well before are rolled back,
// the last first.
func RolloutPlan(ctx workflow.Context, in rollout.Plan) (PlanOutcome, error) {
	in = in.WithDefaults()
	p, err := progress.Start(ctx, progress.Operation{Kind: operation.Rollout, Environment: strings.Join(in.Environments, ", "),
		Subject: in.Subject(), StartedBy: in.RequestedBy, Input: in, Summary: "Begins."})
	if err != nil {
		return PlanOutcome{}, p.EndFailed(err, nil)
	}
	if faults := in.Faults(); len(faults) > 0 {
		return PlanOutcome{}, first(p.End(operation.Failed, faults[0].Error(), nil), refused(faults[0]))
	}
	r := &planRun{Plan: in, Progress: p}
	forward, cancel := workflow.WithCancel(ctx)
	if err := r.listen(ctx, cancel); err != nil {
		return r.outcome, r.EndFailed(err, nil)
	}
	environment, err := r.forward(forward)
	if err == nil {
		return r.outcome, r.End(operation.Succeeded, fmt.Sprintf("%s went through %s.", in.Subject(), strings.Join(in.Environments, ", ")), r.outcome)
	}
	return r.outcome, r.back(ctx, environment, err)
}

type planRun struct {
	rollout.Plan
	*progress.Progress
	outcome         PlanOutcome
	abort, approved *Decision
	waiting, frozen bool // at the gate, for the end of a freeze
}

// listen takes the approval and an abort from now on.
func (r *planRun) listen(ctx workflow.Context, cancel workflow.CancelFunc) error {
	decided := func(ctx workflow.Context, d Decision, what string) *Decision {
		d.What, d.At = what, workflow.Now(ctx)
		r.outcome.Decisions = append(r.outcome.Decisions, d)
		r.Note(r.outcome)
		return &d
	}
	err := workflow.SetUpdateHandlerWithOptions(ctx, ApproveUpdate, func(ctx workflow.Context, a Approval) error {
		r.approved = decided(ctx, a.Decision, ApproveUpdate)
		return nil
	}, workflow.UpdateHandlerOptions{Description: "Let the plan go on to production.", Validator: func(a Approval) error {
		switch {
		case r.abort != nil:
			return fmt.Errorf("already aborted by %s", r.abort.User)
		case !r.waiting || r.approved != nil:
			return errors.New("it does not wait for an approval")
		case a.Hash != r.outcome.Hash:
			return fmt.Errorf("%q is not this plan, which is %s", a.Hash, r.outcome.Hash)
		case r.OtherApprover && a.User == r.RequestedBy:
			return fmt.Errorf("%s has asked for it: somebody else must approve", a.User)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, ThawUpdate, func(ctx workflow.Context, d Decision) error {
		r.Each.Thaw = decided(ctx, d, ThawUpdate).User + ": " + d.Reason
		return nil
	}, workflow.UpdateHandlerOptions{Description: "Do not wait for the end of a freeze.", Validator: func(Decision) error {
		return unless(r.abort == nil && r.frozen && r.Each.Thaw == "", "it does not wait for the end of a freeze")
	}})
	if err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, AbortUpdate, func(ctx workflow.Context, d Decision) error {
		r.abort = decided(ctx, d, AbortUpdate)
		cancel()
		return nil
	}, workflow.UpdateHandlerOptions{Description: "End the plan and what it has under way.", Validator: func(Decision) error {
		if r.abort != nil {
			return fmt.Errorf("already aborted by %s", r.abort.User)
		}
		return nil
	}})
}

// forward goes through the environments, and returns the one in which it failed.
func (r *planRun) forward(ctx workflow.Context) (environment string, err error) {
	// 1. Know the releases by their content: from here on, nothing else counts.
	r.Step("Import the releases")
	for i, part := range r.Services {
		var release target.Release
		if err := call(ctx, acts.ImportRelease, activities.ImportInput{Service: part.Service, Release: part.Release}, &release); err != nil {
			return "", err
		}
		r.Services[i].Release = release.Digest
	}
	r.outcome.Hash, r.outcome.Services = r.Hash(), r.Services
	r.Done("plan " + r.outcome.Hash)

	for _, environment := range r.Environments {
		// 2. Nobody's production changes by surprise.
		if environment == rollout.Production && r.Gate {
			if err := r.gate(ctx); err != nil {
				return "", err
			}
		}
		if err := r.thaw(ctx, environment); err != nil {
			return "", err
		}
		// 3. Wave by wave.
		for _, wave := range r.Waves() {
			if err := r.wave(ctx, environment, wave); err != nil {
				return environment, err
			}
		}
	}
	return "", nil
}

// gate waits for an approval.
func (r *planRun) gate(ctx workflow.Context) error {
	r.Step("Wait for an approval of plan " + r.outcome.Hash)
	by := "any operator"
	if r.OtherApprover {
		by += " but " + r.RequestedBy
	}
	r.Wait(fmt.Sprintf("Waits until %s for an approval of plan %s.", workflow.Now(ctx).Add(r.ApproveWithin).UTC().Format(time.RFC3339), r.outcome.Hash),
		fmt.Sprintf("`sms rollout approve %[1]s --reason …` lets it go on, by %[2]s; `sms rollout abort %[1]s --reason …` ends it.", r.ID(), by), r.outcome)
	r.waiting = true
	approved, err := workflow.AwaitWithTimeout(ctx, r.ApproveWithin, func() bool { return r.approved != nil })
	r.waiting = false
	switch {
	case err != nil:
		return err
	case !approved:
		return fmt.Errorf("nobody approved it within %s", r.ApproveWithin)
	}
	r.Done(fmt.Sprintf("approved by %s: %s", r.approved.User, r.approved.Reason))
	return nil
}

// thaw waits for the end of a freeze, or until somebody says why not.
func (r *planRun) thaw(ctx workflow.Context, environment string) error {
	if r.Each.Rollback || r.Each.Thaw != "" || !has(ctx, "freeze") {
		return nil
	}
	for waited := false; ; waited = true {
		frozen, err := findFreeze(ctx, r.Request(environment, rollout.Part{}))
		if err != nil || frozen.Until.IsZero() {
			return err
		}
		if !waited {
			r.Step("Wait for the end of a freeze of " + environment)
		}
		r.Wait(fmt.Sprintf("Waits for the end of a freeze of %s: %s.", environment, frozen),
			fmt.Sprintf("`sms rollout thaw %s --reason …` does not wait for it.", r.ID()), r.outcome)
		r.frozen = true
		thawed, err := workflow.AwaitWithTimeout(ctx, frozen.Until.Sub(workflow.Now(ctx)), func() bool { return r.Each.Thaw != "" })
		r.frozen = false
		if err != nil {
			return err
		}
		if thawed {
			r.Done("not waited for, " + r.Each.Thaw)
			return nil
		}
	}
}

// wave is the rollouts of some services at once. Each puts back by itself what fails; the first that fails ends the others.
func (r *planRun) wave(ctx workflow.Context, environment string, parts []rollout.Part) error {
	var names []string
	parts = slices.DeleteFunc(slices.Clone(parts), func(part rollout.Part) bool {
		skipped := !rollout.Runs(environment, part.Service)
		if skipped {
			r.Skip(fmt.Sprintf("Roll out %s: %s in %s", short(part.Release), part.Service, environment), "the one of "+rollout.Production+" serves it")
		}
		return skipped
	})
	if len(parts) == 0 {
		return nil
	}
	for _, part := range parts {
		verb := "Roll out " + short(part.Release)
		if r.Each.Rollback {
			verb = "Roll back"
		}
		names = append(names, verb+": "+part.Service)
	}
	r.Step(fmt.Sprintf("%s in %s", strings.Join(names, ", "), environment))
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	var failed error
	var done []string
	running := workflow.NewWaitGroup(ctx)
	for _, part := range parts {
		running.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer running.Done()
			id, err := r.roll(ctx, r.Request(environment, part))
			if done = append(done, id); err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	running.Wait(ctx)
	if failed == nil {
		r.Done(strings.Join(done, ", "))
	}
	return failed
}

// roll is one rollout, whose id it returns. It puts back by itself what fails.
func (r *planRun) roll(ctx workflow.Context, in rollout.Request) (string, error) {
	var child workflow.ChildWorkflowFuture
	var run workflow.Execution
	for try := 1; ; try++ {
		child = workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: rollout.WorkflowID(in.Environment, in.Service), WaitForCancellation: true,
			ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
			StaticSummary:     fmt.Sprintf("Rollout of %s in %s, of plan %s", in.Service, in.Environment, r.ID()),
		}), Rollout, in)
		err := child.GetChildWorkflowExecution().Get(ctx, &run)
		if err == nil {
			break
		}
		if !runsAlready(err) {
			return "", err
		}
		if !r.Supersede || try > mostSuperseded {
			return "", fmt.Errorf("another rollout of %s in %s runs: wait for it to end", in.Service, in.Environment)
		}
		superseding := activities.SupersedeInput{Service: activities.Service{Environment: in.Environment, Service: in.Service},
			Update: SupersedeUpdate, Decision: Decision{User: r.RequestedBy, Reason: fmt.Sprintf("plan %s of %s", r.ID(), r.RequestedBy)}}
		if err := await(ctx, acts.SupersedeRollout, superseding, supersedeTimeout); err != nil {
			return "", err
		}
	}
	begun := PlannedRollout{Environment: in.Environment, Service: in.Service, State: operation.Running, ID: operation.ID(run.ID, run.RunID)}
	n := len(r.outcome.Rollouts)
	r.outcome.Rollouts = append(r.outcome.Rollouts, begun)
	r.Say(operation.Running, r.Record().Summary+", by "+begun.ID, r.outcome)
	var outcome Outcome
	err := child.Get(ctx, &outcome)
	if r.outcome.Rollouts[n].State = operation.Succeeded; err != nil {
		r.outcome.Rollouts[n].State = operation.Failed
		return begun.ID, err
	}
	r.outcome.Rollouts[n].Changed = outcome.From != outcome.To
	return begun.ID, nil
}

const (
	// mostSuperseded is how often another rollout may come first before one gives up: two that supersede each other must end.
	mostSuperseded = 3
	// supersedeTimeout bounds one attempt to wait until the other has put everything back.
	supersedeTimeout = 30 * time.Minute
)

// back rolls back what the plan has ended well in the environment in which it failed.
func (r *planRun) back(ctx workflow.Context, environment string, cause error) error {
	state, reason := RolledBack, why(cause)
	for _, of := range []string{RolledBack, Aborted, Superseded, operation.Failed} { // how its rollout ended
		if because, ok := strings.CutPrefix(reason, of+": "); ok {
			reason = because
			if of == Superseded {
				state = Superseded
			}
		}
	}
	switch { // a rollout that was cancelled with its plan ends by itself, and says so
	case r.abort != nil:
		state, reason = Aborted, fmt.Sprintf("aborted by %s: %s", r.abort.User, r.abort.Reason)
	case ctx.Err() != nil:
		state, reason = Aborted, "cancelled"
	}
	r.outcome.Reason = reason
	r.Fail(reason)
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	for _, done := range slices.Backward(slices.Clone(r.outcome.Rollouts)) {
		if done.Environment != environment || done.State != operation.Succeeded || !done.Changed {
			continue
		}
		r.Step(fmt.Sprintf("Roll back: %s in %s", done.Service, environment))
		in := rollout.Request{Environment: environment, Service: done.Service, RequestedBy: r.RequestedBy, Rollback: true, ReadyWithin: r.Each.ReadyWithin, Notify: r.Each.Notify}
		id, err := r.roll(ctx, in)
		if err != nil {
			summary := fmt.Sprintf("%s; and %s in %s could not be rolled back: %s.", progress.Sentence(reason), done.Service, environment, why(err))
			return first(r.End(operation.Failed, summary, r.outcome), ended(operation.Failed, why(err)))
		}
		r.Done(id)
	}
	return first(r.End(state, progress.Sentence(reason), r.outcome), ended(state, reason))
}
