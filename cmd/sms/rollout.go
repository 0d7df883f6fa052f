package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
	rules "github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/workflows/rollout"
)

const rolloutsPath = "/api/v1/ops/rollouts"

func newRolloutCommand(g *globals) *cobra.Command {
	group := newGroup("rollout", "Replace the release of a service while it serves")
	group.AddCommand(newRolloutStartCommand(g),
		newListCommand(g, rolloutsPath, "List rollouts, newest first",
			[]string{"ID", "ENVIRONMENT", "SERVICE", "FROM", "TO", "STATE", "STARTED", "TOOK", ""}, rolloutRow),
		newShowCommand(g, rolloutsPath, "Show a rollout"), newRolloutWatchCommand(g), newRolloutRollbackCommand(g),
		newRolloutDecisionCommand(g, rollout.AbortUpdate, "End a rollout and put everything back", rollout.Aborted),
		newRolloutDecisionCommand(g, rollout.PauseUpdate, "Hold the traffic where it is", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.ResumeUpdate, "Go on after a pause", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.SkipUpdate, "End the present soak", operation.Succeeded),
		newRolloutDecisionCommand(g, rollout.PromoteUpdate, "Give the new release all traffic without further soaks", operation.Succeeded))
	return group
}

func newRolloutStartCommand(g *globals) *cobra.Command {
	start := &cobra.Command{
		Use: "start SERVICE=RELEASE", Short: "Start a rollout",
		Long: "Starts instances of the release beside those that run, tests them before they get traffic, moves traffic over in\n" +
			"steps, and drains the old ones. Whatever fails puts everything back. RELEASE is the path of an executable.",
		Example: "  sms rollout start student-service=./bin/student-service --env production --wait",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	environment := start.Flags().String("env", "production", "where to: production or staging")
	weights := start.Flags().IntSlice("weights", nil, "percentages of traffic, rising to 100 (default 10,50,100)")
	soak := start.Flags().String("soak", "", "how long each weight is watched (default 5s)")
	within := start.Flags().String("ready-within", "", "how long new instances may take to become ready (default 1m)")
	errorRate := start.Flags().Float64("max-error-rate", 0.01, "the share of answers with status 5xx beyond which everything is put back, unless the stable release is no better")
	latency := start.Flags().Duration("max-latency", 250*time.Millisecond, "likewise for the time that 95 of 100 answers take at most")
	memory := start.Flags().Int("max-memory", 256, "likewise for the MiB that an instance holds resident")
	minimum := start.Flags().Int("min-requests", 0, "how many requests the release must answer at each weight before it can be called good (default 50)")
	sure := start.Flags().String("sure-within", "", "how long after a soak that may be undecided (default 5m)")
	wait := waitFlag(start)
	start.RunE = func(cmd *cobra.Command, args []string) error {
		service, release, ok := strings.Cut(args[0], "=")
		if !ok || service == "" || release == "" {
			return usageError{fmt.Errorf("%q: want SERVICE=RELEASE, such as student-service=./bin/student-service", args[0])}
		}
		path, err := filepath.Abs(release)
		if err != nil {
			return err
		}
		body := map[string]any{"environment": *environment, "service": service, "release": path}
		if len(*weights) > 0 {
			body["weights"] = *weights
		}
		if start.Flags().Changed("max-error-rate") || start.Flags().Changed("max-latency") || start.Flags().Changed("max-memory") {
			body["rules"] = []rules.Rule{{Metric: rules.ErrorRate, Max: *errorRate}, {Metric: rules.Latency, Max: latency.Seconds()},
				{Metric: rules.Memory, Max: float64(*memory) * (1 << 20)}}
		}
		if *minimum != 0 {
			body["minRequests"] = *minimum
		}
		for field, value := range map[string]string{"soak": *soak, "readyWithin": *within, "sureWithin": *sure} {
			if value != "" {
				body[field] = value
			}
		}
		return g.begin(cmd, rolloutsPath, body, *wait, operation.Succeeded)
	}
	return start
}

func newRolloutWatchCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Show how a rollout goes on, and end as it does", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.wait(cmd, rolloutsPath+"/"+url.PathEscape(args[0]), operation.Succeeded)
		},
	}
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

func newRolloutRollbackCommand(g *globals) *cobra.Command {
	rollback := &cobra.Command{
		Use: "rollback SERVICE", Short: "Go back at once to the last release that is known to be good", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Starts instances of the release that was stable before and was not rolled back itself, gives them all traffic as soon as they\n" +
			"are ready, and drains those that run now. A rollout that still runs is ended with `sms rollout abort` instead.",
		Example: "  sms rollout rollback student-service --wait",
	}
	environment := rollback.Flags().String("env", "production", "where: production or staging")
	wait := waitFlag(rollback)
	rollback.RunE = func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"environment": *environment, "service": args[0], "rollback": true}
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
	return []string{o.ID, o.Environment, o.Subject, shortDigest(outcome.From), shortDigest(outcome.To), state, when(o.StartedAt),
		took(o.StartedAt, o.EndedAt), o.Summary}
}
