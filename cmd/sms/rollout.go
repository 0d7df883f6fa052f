package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/rollout"
)

const rolloutsPath = "/api/v1/ops/rollouts"

func newRolloutCommand(g *globals) *cobra.Command {
	group := newGroup("rollout", "Replace the release of a service while it serves")
	group.AddCommand(newRolloutStartCommand(g),
		newListCommand(g, rolloutsPath, "List rollouts, newest first",
			[]string{"ID", "ENVIRONMENT", "SERVICE", "FROM", "TO", "STATE", "STARTED", "TOOK", ""}, rolloutRow),
		newShowCommand(g, rolloutsPath, "Show a rollout"), newRolloutWatchCommand(g), newRolloutHistoryCommand(g), newRolloutRollbackCommand(g),
		newRolloutApproveCommand(g),
		newRolloutDecisionCommand(g, rollout.AbortUpdate, "End a rollout and put everything back", rollout.Aborted),
		newRolloutDecisionCommand(g, rollout.PauseUpdate, "Hold the traffic where it is", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.ResumeUpdate, "Go on after a pause", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.SkipUpdate, "End the present soak", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.PromoteUpdate, "Give the new release all traffic without further soaks", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.ThawUpdate, "Let a plan go on without waiting for the end of a freeze", operation.Succeeded),
		newRolloutSchemaCommand())
	return group
}

// newRolloutDecisionCommand sends a rollout a decision; good are the states in which it then ends well.
func newRolloutDecisionCommand(g *globals, update, short, good string) *cobra.Command {
	decide := &cobra.Command{Use: update + " ID", Short: short, Args: usageArgs(cobra.ExactArgs(1))}
	reason := decide.Flags().String("reason", "", "why, for the record")
	wait := waitFlag(decide)
	decide.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usageError{errors.New("--reason is missing: why?")}
		}
		path := rolloutsPath + "/" + url.PathEscape(args[0])
		var o ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, path+"/"+update, map[string]string{"reason": *reason}, &o); err != nil {
			return err
		}
		if *wait {
			return g.wait(cmd, path, good)
		}
		return g.print(cmd, o, func(t *table) { t.row(fmt.Sprintf("rollout %s of %s: %s", o.ID, o.Subject, update)) })
	}
	return decide
}

// newRolloutApproveCommand approves the plan as it is shown: the server refuses when it is another by then.
func newRolloutApproveCommand(g *globals) *cobra.Command {
	approve := &cobra.Command{Use: "approve ID", Short: "Let a plan that waits go on to production", Args: usageArgs(cobra.ExactArgs(1)),
		Example: "  sms rollout approve 7h2k --reason \"seen in staging\" --wait"}
	reason := approve.Flags().String("reason", "", "why, for the record")
	plan := approve.Flags().String("plan", "", "the plan that is approved, by its hash (default: the one that waits now)")
	wait := waitFlag(approve)
	approve.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usageError{errors.New("--reason is missing: why?")}
		}
		path := rolloutsPath + "/" + url.PathEscape(args[0])
		var o ops.Operation
		if err := g.call(cmd.Context(), http.MethodGet, path, nil, &o); err != nil {
			return err
		}
		var outcome rollout.PlanOutcome
		_ = json.Unmarshal(o.Outcome, &outcome) // without a hash the server says why
		if *plan == "" {
			*plan = outcome.Hash
		}
		if err := g.call(cmd.Context(), http.MethodPost, path+"/approve", map[string]string{"reason": *reason, "plan": *plan}, &o); err != nil {
			return err
		}
		if *wait {
			return g.wait(cmd, path, operation.Succeeded)
		}
		return g.print(cmd, o, func(t *table) {
			t.row(fmt.Sprintf("plan %s is approved:", *plan))
			for _, part := range outcome.Services {
				t.row("  "+part.Service, part.Release)
			}
		})
	}
	return approve
}

func newRolloutRollbackCommand(g *globals) *cobra.Command {
	rollback := &cobra.Command{
		Use: "rollback SERVICE", Short: "Go back at once to the last release that is known to be good", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Starts instances of the release that was stable before and was not rolled back itself, gives them all traffic as soon as they\n" +
			"are ready, and drains those that run now. It waits for no freeze. A rollout that still runs is a conflict, unless --supersede ends it first.",
		Example: "  sms rollout rollback student-service --wait",
	}
	environment := rollback.Flags().String("env", "production", "where: production or staging")
	supersede := rollback.Flags().Bool("supersede", false, "end what is under way of the service first, cleanly")
	dry := rollback.Flags().Bool("dry-run", false, "show what would be done, and do nothing")
	wait := waitFlag(rollback)
	rollback.RunE = func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"environment": *environment, "service": args[0], "rollback": true, "supersede": *supersede}
		if *dry {
			return g.preview(cmd, body)
		}
		return g.begin(cmd, rolloutsPath, body, *wait, operation.Succeeded)
	}
	return rollback
}

func rolloutRow(o ops.Operation) []string {
	var outcome rollout.Outcome
	_ = json.Unmarshal(o.Outcome, &outcome) // empty until the releases are known
	state := o.State
	if o.EndedAt == nil && outcome.Weight > 0 {
		state += " at " + strconv.Itoa(outcome.Weight) + " %"
	}
	from, to := releasesOf(o)
	return []string{o.ID, o.Environment, o.Subject, from, to, state, when(o.StartedAt),
		took(o.StartedAt, o.EndedAt), o.Summary}
}
