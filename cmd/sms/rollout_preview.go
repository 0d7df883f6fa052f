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
		var notes []string
		note := func(number int, lines ...string) {
			for _, line := range lines {
				notes = append(notes, fmt.Sprintf("%d. %s", number, line))
			}
		}
		gate := found.Gate
		t.row("", "ENVIRONMENT", "SERVICE", "FROM", "TO", "INSTANCES", "HOW")
		for i, step := range found.Steps {
			to := shortDigest(step.To)
			if step.From == step.To {
				to = "the same"
			}
			t.row(fmt.Sprintf("%d.", i+1), step.Environment, step.Service, shortDigest(step.From), to, fmt.Sprint(step.Replicas), step.How)
			if step.Environment == rollout.Production && gate != "" {
				note(i+1, "waits for "+gate)
				gate = ""
			}
			if step.Proof != "" {
				note(i+1, "proof: "+step.Proof)
			}
			for _, migration := range step.Migrations {
				note(i+1, "migrates: "+migration)
			}
			for _, why := range step.Waits {
				note(i+1, "waits: "+why)
			}
			for _, why := range step.Stops {
				note(i+1, "STOPS: "+why)
			}
		}
		for _, line := range notes {
			t.row(line)
		}
	})
	if err == nil && slices.ContainsFunc(found.Steps, func(step flow.PreviewedRollout) bool { return len(step.Stops) > 0 }) {
		return errStopped
	}
	return err
}
