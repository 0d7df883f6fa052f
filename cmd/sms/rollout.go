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
		newShowCommand(g, rolloutsPath, "Show a rollout"), newRolloutWatchCommand(g), newRolloutAbortCommand(g))
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
		for field, value := range map[string]string{"soak": *soak, "readyWithin": *within} {
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

func newRolloutAbortCommand(g *globals) *cobra.Command {
	abort := &cobra.Command{Use: "abort ID", Short: "End a rollout and put everything back", Args: usageArgs(cobra.ExactArgs(1))}
	reason := abort.Flags().String("reason", "", "why, for the record")
	wait := waitFlag(abort)
	abort.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usageError{errors.New("--reason is missing: why is it aborted?")}
		}
		path := rolloutsPath + "/" + url.PathEscape(args[0])
		var o ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, path+"/abort", map[string]string{"reason": *reason}, &o); err != nil {
			return err
		}
		if *wait {
			return g.wait(cmd, path, rollout.Aborted)
		}
		return g.print(cmd, o, func(t *table) { t.row(fmt.Sprintf("rollout %s of %s puts everything back", o.ID, o.Subject)) })
	}
	return abort
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
