// Package operation is what the platform remembers of its operations: rollouts, smoke tests, backups, drills. Each is
// a Temporal workflow; its record is for listing, and outlives the workflow's history.
//
// A record's words are for operators. It holds no personal data and no secret.
package operation

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what an operation does.
type Kind string

// The kinds of operations.
const (
	Rollout      Kind = "rollout"
	SmokeTest    Kind = "smoke-test"
	Backup       Kind = "backup"
	RestoreDrill Kind = "restore-drill"
	Restore      Kind = "restore"
	Retention    Kind = "retention"
)

// States that every kind has. A kind may have more, such as a backup's stored and verified.
const (
	Running = "running"
	// Waiting: it goes on when somebody decides, or when a time has come that was set for it. The summary says for what.
	Waiting   = "waiting"
	Succeeded = "succeeded"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Record is one operation.
type Record struct {
	ID         string `json:"id"`
	Kind       Kind   `json:"kind"`
	WorkflowID string `json:"workflowId"`
	RunID      string `json:"runId"`
	// Environment is empty for what belongs to none, such as a backup.
	Environment string `json:"environment,omitempty"`
	// Subject is the service or database that is operated on.
	Subject string `json:"subject"`
	State   string `json:"state"`
	// Summary is one sentence that says where the operation stands, or how it ended.
	Summary   string     `json:"summary"`
	StartedBy string     `json:"startedBy"`
	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
	// Input is what was asked for.
	Input json.RawMessage `json:"input,omitempty"`
	// Result is a Result: the steps so far, and the outcome.
	Result json.RawMessage `json:"result,omitempty"`
	// Revision counts what the workflow has said; a later word has a higher one.
	Revision  int64     `json:"revision"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// Lost is what is recorded of an operation whose workflow ended without a word.
const Lost = "Ended without a word: its workflow was terminated or lost."

// Ended reports whether the operation is over.
func (r Record) Ended() bool { return r.EndedAt != nil }

// Result is what an operation has done so far.
type Result struct {
	Steps []Step `json:"steps"`
	// Hint is Markdown: what somebody can do about the step that runs.
	Hint string `json:"hint,omitempty"`
	// Outcome is what the kind of operation reports: a backup's manifest, a smoke test's checks.
	Outcome json.RawMessage `json:"outcome,omitempty"`
}

// States of a step.
const (
	StepRunning   = "running"
	StepDone      = "done"
	StepFailed    = "failed"
	StepSkipped   = "skipped"
	StepCancelled = "cancelled"
)

// MovedSignal is the signal by which an activity that takes long tells its workflow, in words, how far it is.
const MovedSignal = "moved"

// Step is one step of an operation, in the order begun.
type Step struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Detail says what came of it, or why it failed.
	Detail    string     `json:"detail,omitempty"`
	StartedAt time.Time  `json:"startedAt"`
	EndedAt   *time.Time `json:"endedAt,omitempty"`
}

// crockford is Douglas Crockford's base 32 in lower case: no i, l, o, u to misread.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// ID names an operation: ten characters that the service that starts a workflow and the workflow itself derive alike.
// runID is that of the first run.
func ID(workflowID, runID string) string {
	sum := sha256.Sum256([]byte(workflowID + "\n" + runID))
	return strings.ToLower(crockford.EncodeToString(sum[:])[:10])
}

// ErrNotFound says that no operation has the id or prefix.
var ErrNotFound = errors.New("no such operation")

// ErrAmbiguous says that more than one operation has the prefix.
var ErrAmbiguous = errors.New("more than one operation's id begins like this: give more of it")

// HeldError says that another operation holds the lock.
type HeldError struct{ Holder Record }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s %s of %s has been running since %s", e.Holder.Kind, e.Holder.ID, e.Holder.Subject,
		e.Holder.StartedAt.UTC().Format(time.RFC3339))
}
