// Package migration holds the rules by which the schema of a database changes while releases that know the old one still serve.
// Nothing here acts or waits.
//
// A migration is a file of numbered SQL. One that is expand-only leaves a schema with which older releases go on: it may run beside
// them. A contract step takes away what they need, and runs once none of them is left.
package migration

import (
	"fmt"
	"strings"
)

// Kind says when a migration may run.
type Kind string

// The kinds of migrations.
const (
	// Expand may run beside older releases and their traffic.
	Expand Kind = "expand"
	// Contract is marked as a contract step, and runs once no older release is left.
	Contract Kind = "contract"
	// Refused is neither marked as a contract step nor expand-only.
	Refused Kind = "refused"
)

// Migration is one migration that has not run yet.
type Migration struct {
	Number int32  `json:"number"`
	Name   string `json:"name"`
	Kind   Kind   `json:"kind"`
	// Findings say what in it is not expand-only, and in which line.
	Findings []string `json:"findings,omitempty"`
	// Overruled is the reason that its author gives for why it may run beside older releases in spite of the findings.
	Overruled string `json:"overruled,omitempty"`
}

// Plan is where a database stands, as a release sees it.
type Plan struct {
	// Database is its name; empty: the service has none.
	Database string `json:"database,omitempty"`
	// Version is the number of the last migration that has run, Known that of the last one that the release has.
	Version int32 `json:"version"`
	Known   int32 `json:"known"`
	// Pending have not run, in their order.
	Pending []Migration `json:"pending,omitempty"`
	// Contracts are the numbers of all contract steps that the release knows, also of those that have run.
	Contracts []int32 `json:"contracts,omitempty"`
	// Untold says why the release does not tell its migrations: it was built before releases did, or is none.
	Untold string `json:"untold,omitempty"`
}

// Of lists what is pending of a kind.
func (p Plan) Of(kind Kind) []Migration {
	var of []Migration
	for _, m := range p.Pending {
		if m.Kind == kind {
			of = append(of, m)
		}
	}
	return of
}

// Next lists what runs when the steps of a kind are to run: those at the head of what is pending, for they run in their order.
func (p Plan) Next(kind Kind) []Migration {
	for i, m := range p.Pending {
		if m.Kind != kind {
			return p.Pending[:i]
		}
	}
	return p.Pending
}

// Faults names everything for which the pending migrations must not run in a rollout.
func (p Plan) Faults() []string {
	var faults []string
	var contract *Migration
	for i, m := range p.Pending {
		switch {
		case m.Kind == Refused:
			faults = append(faults, fmt.Sprintf("%s is neither expand-only nor marked as a contract step: %s", m.Name, strings.Join(m.Findings, "; ")))
		case m.Kind == Contract && contract == nil:
			contract = &p.Pending[i]
		case m.Kind == Expand && contract != nil:
			faults = append(faults, fmt.Sprintf("%s comes after contract step %s, which runs only once no older release is left: "+
				"roll out the release that ends with that step first, again if it runs already", m.Name, contract.Name))
		}
	}
	return faults
}

// Bars says why a release cannot live with the schema of its database, or nothing: a contract step that it does not know has run.
// contracts are those that the running release knows. Only the release that has a contract step runs it, and is the
// running one then, so that the running one knows all that have run.
func (p Plan) Bars(contracts []int32) string {
	for _, number := range contracts {
		if p.Known < number && number <= p.Version {
			return fmt.Sprintf("%s is at version %d, this release knows up to %d, and %d was a contract step: it took away what this release needs. "+
				"Restore a backup from before it, or roll out a release that knows it", p.Database, p.Version, p.Known, number)
		}
	}
	return ""
}

// Names lists migrations for people.
func Names(migrations []Migration) string {
	names := make([]string, len(migrations))
	for i, m := range migrations {
		names[i] = m.Name
		if m.Overruled != "" {
			names[i] += " (" + strings.Join(m.Findings, "; ") + ": overruled, " + m.Overruled + ")"
		}
	}
	return strings.Join(names, ", ")
}
