package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
)

const webhooksPath = "/api/v1/ops/webhooks"

func newWebhookCommand(g *globals) *cobra.Command {
	group := newGroup("webhook", "See who is told what happens to operations")
	group.AddCommand(newWebhookList(g), newWebhookTest(g))
	return group
}

func newWebhookList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the webhooks and how they are doing", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found struct {
				Content []ops.Webhook `json:"content"`
			}
			if err := g.call(cmd.Context(), http.MethodGet, webhooksPath, nil, &found); err != nil {
				return err
			}
			return g.print(cmd, found, func(t *table) {
				t.row("NAME", "KINDS", "STATES", "SIGNED", "LAST SENT", "WAITING SINCE", "")
				for _, w := range found.Content {
					t.row(w.Name, orDefault(strings.Join(w.Kinds, ","), "all"), orDefault(strings.Join(w.States, ","), "all but running"),
						fmt.Sprint(w.Signed), moment(w.LastSent), moment(w.WaitingSince), w.Failure)
				}
			})
		},
	}
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return when(*t)
}

func newWebhookTest(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "test NAME", Short: "Send a webhook a notice of nothing, now", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var test ops.WebhookTest
			if err := g.call(cmd.Context(), http.MethodPost, webhooksPath+"/"+url.PathEscape(args[0])+"/test", nil, &test); err != nil {
				return err
			}
			if !test.Taken {
				return fmt.Errorf("%s has not taken it: %s", args[0], test.Reason)
			}
			return g.print(cmd, test, func(t *table) { t.row(args[0] + " has taken it") })
		},
	}
}
