package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/rollout"
	flow "github.com/school-sms/sms/workflows/rollout"
)

// errStopped is the outcome of a preview of what would not begin.
var errStopped = errors.New("it would not go through as things are")

// preview shows what a plan would do. It is an error when something stops it.
func (g *globals) preview(cmd *cobra.Command, body map[string]any) error {
	var found flow.Previewed
	if err := g.call(cmd.Context(), http.MethodPost, rolloutsPath+"/preview", body, &found); err != nil {
		return err
	}
	err := g.print(cmd, found, func(t *table) {
		t.row("", "ENVIRONMENT", "SERVICE", "FROM", "TO", "VERSION", "INSTANCES", "HOW")
		gated := false
		for i, step := range found.Steps {
			in := found.Plan.Request(step.Environment, rollout.Part{Service: step.Service})
			if step.Environment == rollout.Production && found.Plan.Gate && !gated {
				gated = true
				t.row(fmt.Sprintf("   an approval of plan %s within %s", found.Hash, found.Plan.ApproveWithin))
			}
			to := shortDigest(step.To)
			if step.From == step.To {
				to = "the same"
			}
			t.row(fmt.Sprintf("%d.", i+1), step.Environment, step.Service, shortDigest(step.From), to, step.Version, fmt.Sprint(step.Replicas), how(in))
			for _, line := range step.Migrations {
				t.row("   migration: " + line)
			}
			if step.Proof != "" {
				t.row("   proven by " + step.Proof)
			}
			for _, why := range step.Stops {
				t.row("   stopped: " + why)
			}
		}
	})
	if err == nil && slices.ContainsFunc(found.Steps, func(step flow.PreviewedRollout) bool { return len(step.Stops) > 0 }) {
		return errStopped
	}
	return err
}

// how says in a few words how traffic would move.
func how(in rollout.Request) string {
	switch {
	case in.Rollback:
		return "at once"
	case in.Strategy == rollout.Canary:
		return fmt.Sprintf("%s %v %%, %s each", in.Strategy, in.Weights, in.Soak)
	default:
		return fmt.Sprintf("%s, %s each", in.Strategy, in.Soak)
	}
}
