// Package notice tells webhooks what happens to operations: that one has begun, waits for somebody, has failed.
//
// A trigger of ops_db writes a notice whenever an operation begins or its state changes. A Deliverer sends each to the webhooks of a File
// whose filters it passes: at least once, and to each webhook in the order in which things happened. What a webhook does not take is
// tried again, and holds nobody but what comes after it for the same webhook.
package notice

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/school-sms/sms/internal/operation"
)

// Notice is one thing that happened to an operation.
type Notice struct {
	ID                                   int64
	Operation                            string
	Kind                                 operation.Kind
	Environment, Subject, State, Summary string
	StartedBy                            string
	// Notify are the webhooks that the operation's caller wants told; nil: all.
	Notify []string
	At     time.Time
	// Late says that it is too old to be told.
	Late bool
}

// message is a notice as receivers read it. The form is that of the Standard Webhooks specification; chats that take {"text": "…"} show the
// text.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Text      string    `json:"text"`
	Data      data      `json:"data"`
}

type data struct {
	ID          string         `json:"id"`
	Kind        operation.Kind `json:"kind"`
	Environment string         `json:"environment,omitempty"`
	Subject     string         `json:"subject"`
	State       string         `json:"state"`
	Summary     string         `json:"summary"`
	StartedBy   string         `json:"startedBy"`
	// Path is where the platform's API shows the operation.
	Path string `json:"path,omitempty"`
}

// collections are where the API shows operations, by kind.
var collections = map[operation.Kind]string{operation.Rollout: "rollouts", operation.SmokeTest: "smoke-tests", operation.Backup: "backups",
	operation.RestoreDrill: "backups", operation.Retention: "backups", operation.Restore: "restores"}

// body is what is sent, the same at each try.
func (n Notice) body() ([]byte, error) {
	m := message{
		Type: string(n.Kind) + "." + n.State, Timestamp: n.At.UTC(), Text: n.text(),
		Data: data{ID: n.Operation, Kind: n.Kind, Environment: n.Environment, Subject: n.Subject, State: n.State, Summary: n.Summary, StartedBy: n.StartedBy},
	}
	if collection, ok := collections[n.Kind]; ok {
		m.Data.Path = "/api/v1/ops/" + collection + "/" + n.Operation
	}
	return json.Marshal(m)
}

func (n Notice) text() string {
	where := n.Subject
	if n.Environment != "" && n.Environment != n.Subject {
		where += " in " + n.Environment
	}
	return fmt.Sprintf("%s of %s: %s. %s", n.Kind, where, n.State, n.Summary)
}

// messageID is the same at each try, by which a receiver knows what it has had.
func (n Notice) messageID() string { return fmt.Sprintf("notice_%s_%d", n.Operation, n.ID) }

// wants reports whether the webhook is told of a notice.
func (w Webhook) wants(n Notice) bool {
	switch {
	case n.Notify != nil && !slices.Contains(n.Notify, w.Name),
		len(w.Events.Kinds) > 0 && !slices.Contains(w.Events.Kinds, n.Kind):
		return false
	case len(w.Events.States) == 0:
		return n.State != operation.Running
	}
	return slices.Contains(w.Events.States, n.State)
}
