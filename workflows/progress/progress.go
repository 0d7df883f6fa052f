// Package progress is how every workflow of the platform says where it stands: in its Temporal details, in the answer
// to the query "status", and in its record.
//
//	p, err := progress.Start(ctx, progress.Operation{Kind: operation.Backup, Subject: in.Database, …})
//	// 1. Dump the database.
//	p.Step("Dump student_db")
//	…
//	p.Done("95 MB")
//	return p.End(operation.Succeeded, "…")
package progress

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	activities "github.com/school-sms/sms/activities/operation"
	"github.com/school-sms/sms/internal/operation"
)

// StatusQuery is the query that every workflow answers with an operation.Record.
const StatusQuery = "status"

var (
	recordCall = 15 * time.Second
	// An operation begins and ends only once that is on record.
	boundRetry = temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second}
	boundLimit = time.Hour
	// A word in between is dropped when ops_db stays away: the next one says more.
	betweenLimit = time.Minute
)

// Operation says what a workflow does, for its record.
type Operation struct {
	Kind        operation.Kind
	Environment string
	Subject     string
	// StartedBy is the user or schedule.
	StartedBy string
	// Input is what was asked for. No personal data, no secrets.
	Input any
	// Summary is the first sentence.
	Summary string
}

// Progress is where a workflow stands.
type Progress struct {
	ctx     workflow.Context
	record  operation.Record
	steps   []operation.Step
	outcome json.RawMessage
	// moved is how far the running step is, as its activity told last.
	moved string
	// hint says what somebody can do about the running step.
	hint string
}

var acts *activities.Activities

// Start answers the status query from now on, records that the operation runs, and takes its lock. Its error has
// type activities/operation.HeldType when another operation has the lock. End must follow in any case.
func Start(ctx workflow.Context, op Operation) (*Progress, error) {
	info := workflow.GetInfo(ctx)
	run := info.FirstRunID
	if run == "" {
		run = info.WorkflowExecution.RunID
	}
	p := &Progress{ctx: ctx, record: operation.Record{
		ID: operation.ID(info.WorkflowExecution.ID, run), Kind: op.Kind, WorkflowID: info.WorkflowExecution.ID, RunID: run,
		Environment: op.Environment, Subject: op.Subject, State: operation.Running, Summary: op.Summary,
		StartedBy: op.StartedBy, StartedAt: info.WorkflowStartTime, Input: encode(op.Input),
	}}
	err := workflow.SetQueryHandlerWithOptions(ctx, StatusQuery, func() (operation.Record, error) { return p.Record(), nil },
		workflow.QueryHandlerOptions{Description: "Where this operation stands."})
	if err != nil {
		return p, fmt.Errorf("answer the status query: %w", err)
	}
	p.listen()
	p.revise()
	return p, workflow.ExecuteActivity(bound(ctx, "take the lock and record the start"), acts.BeginOperation, p.Record()).Get(ctx, nil)
}

// ID is the operation's id.
func (p *Progress) ID() string { return p.record.ID }

// Record is where the operation stands.
func (p *Progress) Record() operation.Record {
	r := p.record
	r.Result = encode(operation.Result{Steps: p.steps, Hint: p.hint, Outcome: p.outcome})
	return r
}

// Step begins a step and ends the one before as done. The operation's summary becomes the step's name.
func (p *Progress) Step(name string) {
	p.close(operation.StepDone, "")
	p.steps = append(p.steps, operation.Step{Name: name, State: operation.StepRunning, StartedAt: workflow.Now(p.ctx)})
	p.record.Summary = name
	p.say()
}

// Done ends the current step with what came of it.
func (p *Progress) Done(detail string) {
	p.close(operation.StepDone, detail)
	p.say()
}

// Fail ends the current step with why it failed.
func (p *Progress) Fail(why string) {
	p.close(operation.StepFailed, why)
	p.say()
}

// Skip notes a step that is not needed, and why.
func (p *Progress) Skip(name, why string) {
	p.close(operation.StepDone, "")
	now := workflow.Now(p.ctx)
	p.steps = append(p.steps, operation.Step{Name: name, State: operation.StepSkipped, Detail: why, StartedAt: now, EndedAt: &now})
	p.say()
}

// Say changes the state, the summary and the outcome so far. A nil outcome keeps the last.
func (p *Progress) Say(state, summary string, outcome any) {
	p.hint = ""
	p.tell(state, summary, outcome)
}

func (p *Progress) tell(state, summary string, outcome any) {
	p.record.State, p.record.Summary = state, summary
	if outcome != nil {
		p.outcome = encode(outcome)
	}
	p.say()
}

// Note changes the outcome so far for those who ask; the next word puts it on record.
func (p *Progress) Note(outcome any) {
	p.outcome = encode(outcome)
	p.revise()
}

// Wait says that the operation waits for somebody, and in Markdown what can be done about it. A nil outcome keeps the last.
func (p *Progress) Wait(summary, hint string, outcome any) {
	p.hint = hint
	p.tell(operation.Waiting, summary, outcome)
}

// End records how the operation ended, even when the workflow is cancelled. A nil outcome keeps the last. A step that
// still runs ends as the operation does. The error says that the end could not be put on record.
func (p *Progress) End(state, summary string, outcome any) error {
	switch state {
	case operation.Failed:
		p.close(operation.StepFailed, "")
	case operation.Cancelled:
		p.close(operation.StepCancelled, "")
	default:
		p.close(operation.StepDone, "")
	}
	ended := workflow.Now(p.ctx)
	p.record.State, p.record.Summary, p.record.EndedAt = state, summary, &ended
	if outcome != nil {
		p.outcome = encode(outcome)
	}
	p.revise()
	ctx, cancel := workflow.NewDisconnectedContext(p.ctx)
	defer cancel()
	return workflow.ExecuteActivity(bound(ctx, "record the end: "+state), acts.RecordOperation, p.Record()).Get(ctx, nil)
}

// say records without waiting: a step goes on while ops_db is away.
func (p *Progress) say() {
	p.revise()
	ctx, _ := workflow.NewDisconnectedContext(p.ctx)
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: recordCall, ScheduleToCloseTimeout: betweenLimit, RetryPolicy: &boundRetry,
		Summary: "record: " + p.record.Summary,
	})
	workflow.ExecuteActivity(ctx, acts.RecordOperation, p.Record())
}

// listen shows what activities tell of how far they are.
func (p *Progress) listen() {
	words := workflow.GetSignalChannelWithOptions(p.ctx, operation.MovedSignal, workflow.SignalChannelOptions{Description: "How far the running step is."})
	workflow.Go(p.ctx, func(ctx workflow.Context) {
		for words.Receive(ctx, &p.moved) {
			workflow.SetCurrentDetails(p.ctx, p.markdown())
		}
	})
}

func (p *Progress) revise() {
	p.record.Revision++
	p.record.UpdatedAt = workflow.Now(p.ctx)
	workflow.SetCurrentDetails(p.ctx, p.markdown())
}

// close ends the current step, and with it what it waited for.
func (p *Progress) close(state, detail string) {
	p.moved, p.hint = "", ""
	if p.record.State == operation.Waiting {
		p.record.State = operation.Running
	}
	if len(p.steps) == 0 {
		return
	}
	last := &p.steps[len(p.steps)-1]
	if last.State != operation.StepRunning {
		return
	}
	now := workflow.Now(p.ctx)
	last.State, last.EndedAt = state, &now
	if detail != "" {
		last.Detail = detail
	}
}

var marks = map[string]string{operation.StepRunning: "▶", operation.StepDone: "✔", operation.StepFailed: "✘",
	operation.StepSkipped: "–", operation.StepCancelled: "■"}

// markdown is what the Temporal UI shows.
func (p *Progress) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s** · %s\n\n", p.record.State, p.record.Summary)
	if p.hint != "" {
		fmt.Fprintf(&b, "%s\n\n", p.hint)
	}
	for i, s := range p.steps {
		fmt.Fprintf(&b, "%d. %s %s", i+1, marks[s.State], s.Name)
		if s.EndedAt != nil && s.State != operation.StepSkipped {
			fmt.Fprintf(&b, " (%.1f s)", s.EndedAt.Sub(s.StartedAt).Seconds())
		}
		if s.Detail != "" {
			fmt.Fprintf(&b, ": %s", s.Detail)
		}
		if s.State == operation.StepRunning && p.moved != "" {
			fmt.Fprintf(&b, ": %s", p.moved)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "\nOperation `%s`, started by %s.\n", p.record.ID, p.record.StartedBy)
	return b.String()
}

func bound(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: recordCall, ScheduleToCloseTimeout: boundLimit, RetryPolicy: &boundRetry, Summary: summary,
	})
}

func encode(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(`{}`) // only a value that no JSON can hold, which no input or outcome is
	}
	return raw
}
