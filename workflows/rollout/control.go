package rollout

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/school-sms/sms/internal/operation"
)

// Updates by which people act on a rollout that runs. Each takes a Decision, and is refused with a reason when it comes too late or
// makes no sense.
const (
	// AbortUpdate ends a rollout and puts traffic back. It beats a promotion that has not ended.
	AbortUpdate = "abort"
	// PauseUpdate holds the traffic where it is until ResumeUpdate; a release that turns bad meanwhile is put back all the same.
	PauseUpdate  = "pause"
	ResumeUpdate = "resume"
	// SkipUpdate ends the present soak, PromoteUpdate all that are left. Neither overrules a broken rule, but both one that cannot be
	// judged.
	SkipUpdate    = "skip-step"
	PromoteUpdate = "promote"
	// SupersedeUpdate is an abort in favour of another rollout. Rollouts send it, not people.
	SupersedeUpdate = "supersede"
)

// Decision says who decides, and why.
type Decision struct {
	User   string `json:"user"`
	Reason string `json:"reason"`
	// What was decided, and when, is filled in by the rollout.
	What string    `json:"what,omitempty"`
	At   time.Time `json:"at,omitzero"`
}

// control is what people have decided about a rollout.
type control struct {
	// settled once there is no way back, failed when that is because everything is put back.
	settled, failed  bool
	abort            *Decision
	superseded       bool // by whose abort
	soaking          bool
	paused, promoted bool
	skip             bool // the present soak
}

// hurried reports whether the present soak is to end at once.
func (c *control) hurried() bool { return c.skip || c.promoted }

// standing is waiting while somebody holds it.
func (c *control) standing() string {
	if c.paused && !c.settled {
		return operation.Waiting
	}
	return operation.Running
}

// listen takes decisions from now on.
func (r *run) listen(ctx workflow.Context, cancel workflow.CancelFunc) error {
	for _, u := range []struct {
		name, describe string
		refuse         func() error
		act            func(Decision)
	}{
		{AbortUpdate, "End the rollout, put traffic back to the stable release and remove the new one.", func() error { return nil }, func(d Decision) {
			r.abort = &d
			cancel()
		}},
		{SupersedeUpdate, "End the rollout in favour of another one.", func() error { return nil }, func(d Decision) {
			r.abort, r.superseded = &d, true
			cancel()
		}},
		{PauseUpdate, "Hold the traffic where it is.", func() error { return unless(!r.paused, "it is paused already") }, func(d Decision) {
			r.paused = true
			r.Wait(fmt.Sprintf("Paused by %s: %s", d.User, d.Reason), fmt.Sprintf("`sms rollout resume %s --reason …` lets it go on.", r.ID()), nil)
		}},
		{ResumeUpdate, "Go on after a pause.", func() error { return unless(r.paused, "it is not paused") }, func(d Decision) {
			r.paused = false
			r.Say(operation.Running, fmt.Sprintf("%s lets it go on: %s", d.User, d.Reason), nil)
		}},
		{SkipUpdate, "End the present soak.", func() error { return unless(r.soaking, "no traffic is being watched now") }, func(Decision) {
			r.skip, r.paused = true, false
		}},
		{PromoteUpdate, "Give the new release all traffic without further soaks.", func() error { return unless(!r.promoted, "it is promoted already") }, func(Decision) {
			r.promoted, r.paused = true, false
		}},
	} {
		err := workflow.SetUpdateHandlerWithOptions(ctx, u.name, func(ctx workflow.Context, d Decision) error {
			d.What, d.At = u.name, workflow.Now(ctx)
			r.outcome.Decisions = append(r.outcome.Decisions, d)
			u.act(d)
			r.Note(r.outcome)
			return nil
		}, workflow.UpdateHandlerOptions{Description: u.describe, Validator: func(Decision) error {
			switch {
			case r.abort != nil:
				return fmt.Errorf("already aborted by %s", r.abort.User)
			case r.failed:
				return errors.New("everything is being put back already")
			case r.settled:
				return errors.New("the new release is already the stable one: roll back, or start a rollout of the release that you want")
			}
			return u.refuse()
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func unless(fine bool, why string) error {
	if fine {
		return nil
	}
	return errors.New(why)
}
