package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/workflows/rollout"
)

// releaseHistory is what is known to be good now, and every attempt to change that.
type releaseHistory struct {
	Promoted ops.PromotionPage `json:"promoted"`
	Rollouts ops.Page          `json:"rollouts"`
}

func newRolloutHistoryCommand(g *globals) *cobra.Command {
	history := &cobra.Command{Use: "history [SERVICE]", Short: "Show who released what, when, and why it failed", Args: usageArgs(cobra.MaximumNArgs(1)),
		Long: "Shows the release that each service has come to by a rollout that went well, and then all rollouts, newest first: from which release\n" +
			"to which, by whom, and how they ended.",
		Example: "  sms rollout history student-service --env production\n  sms rollout history --state rolled-back",
	}
	environment := history.Flags().String("env", "", "only of this environment")
	state := history.Flags().String("state", "", "only rollouts in this state, such as rolled-back")
	page := history.Flags().Int("page", 0, "which page, from 0")
	size := history.Flags().Int("size", 20, "how many on a page")
	history.RunE = func(cmd *cobra.Command, args []string) error {
		filter := url.Values{"environment": {*environment}, "service": {strings.Join(args, "")}}
		filter.Set("current", "true")
		filter.Set("size", "100")
		var found releaseHistory
		if err := g.call(cmd.Context(), http.MethodGet, "/api/v1/ops/promotions?"+filter.Encode(), nil, &found.Promoted); err != nil {
			return err
		}
		filter.Del("current")
		filter.Set("state", *state)
		filter.Set("page", fmt.Sprint(*page))
		filter.Set("size", fmt.Sprint(*size))
		if err := g.call(cmd.Context(), http.MethodGet, rolloutsPath+"?"+filter.Encode(), nil, &found.Rollouts); err != nil {
			return err
		}
		return g.print(cmd, found, func(t *table) { showHistory(t, found) })
	}
	return history
}

func showHistory(t *table, found releaseHistory) {
	rows := [][]string{{"ENVIRONMENT", "SERVICE", "RUNS", "BEFORE", "SINCE", "BY", ""}}
	for _, p := range found.Promoted.Content {
		how := "rollout " + p.Operation
		if p.Rollback {
			how = "rollback " + p.Operation
		}
		rows = append(rows, []string{p.Environment, p.Service, shortDigest(p.Release), shortDigest(p.Replaced), when(p.PromotedAt), p.PromotedBy, how})
	}
	if len(rows) > 1 {
		slices.SortFunc(rows[1:], func(a, b []string) int { return slices.Compare(a[:2], b[:2]) })
		t.rows(rows)
		t.row("")
	}
	rows = [][]string{{"STARTED", "ENVIRONMENT", "SERVICE", "FROM", "TO", "BY", "ID", "STATE", ""}}
	for _, o := range found.Rollouts.Content {
		from, to := releasesOf(o)
		rows = append(rows, []string{when(o.StartedAt), o.Environment, o.Subject, from, to, o.StartedBy, o.ID, o.State, o.Summary})
	}
	t.rows(rows) // nothing of why is cut
	t.more(found.Rollouts.Paging)
}

// releasesOf are the releases of a rollout or plan, as far as they are known.
func releasesOf(o ops.Operation) (from, to string) {
	var out rollout.Outcome
	var plan rollout.PlanOutcome
	_ = json.Unmarshal(o.Outcome, &out) // empty until the releases are known
	_ = json.Unmarshal(o.Outcome, &plan)
	switch len(plan.Services) {
	case 0:
		return shortDigest(out.From), shortDigest(out.To)
	case 1:
		return "-", shortDigest(plan.Services[0].Release)
	}
	return "-", fmt.Sprintf("%d releases", len(plan.Services))
}
