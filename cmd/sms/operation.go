package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
)

// newGroup is a command that only holds others.
func newGroup(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
}

func waitFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("wait", false, "show progress, and end as the operation does")
}

// newListCommand lists a collection of operations, a row of cells each.
func newListCommand(g *globals, collection, short string, head []string, row func(ops.Operation) []string) *cobra.Command {
	list := &cobra.Command{Use: "list", Short: short, Args: usageArgs(cobra.NoArgs)}
	page := list.Flags().Int("page", 0, "which page, from 0")
	size := list.Flags().Int("size", 20, "how many on a page")
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		var found ops.Page
		path := fmt.Sprintf("%s?page=%d&size=%d", collection, *page, *size)
		if err := g.call(cmd.Context(), http.MethodGet, path, nil, &found); err != nil {
			return err
		}
		return g.print(cmd, found, func(t *table) {
			rows := [][]string{head}
			for _, o := range found.Content {
				rows = append(rows, row(o))
			}
			t.fitted(rows)
			t.more(found.Paging)
		})
	}
	return list
}

// newShowCommand shows one operation.
func newShowCommand(g *globals, collection, short string) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: short, Long: short + ". The beginning of the id is enough.", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var o ops.Operation
			if err := g.call(cmd.Context(), http.MethodGet, collection+"/"+url.PathEscape(args[0]), nil, &o); err != nil {
				return err
			}
			return g.print(cmd, o, func(t *table) { showOperation(t, o) })
		},
	}
}

func showOperation(t *table, o ops.Operation) {
	t.row(o.Kind, o.ID)
	t.row("of", strings.TrimSpace(o.Subject))
	t.row("state", o.State)
	t.row("", o.Summary)
	if o.Hint != "" {
		t.row("", hintOf(o))
	}
	t.row("started", when(o.StartedAt)+" by "+o.StartedBy)
	t.row("took", took(o.StartedAt, o.EndedAt))
	t.row("workflow", o.WorkflowID)
	t.row("")
	for _, s := range o.Steps {
		t.row(stepMarks[s.State]+" "+s.Name, took(s.StartedAt, s.EndedAt), s.Detail)
	}
	if a := o.Activity; a != nil && a.LastFailure != "" {
		t.row("")
		t.row(fmt.Sprintf("attempt %d of %s; the one before failed: %s", a.Attempt, a.Name, a.LastFailure))
	}
	if len(o.Outcome) == 0 {
		return
	}
	t.row("")
	var pretty strings.Builder
	encoder := json.NewEncoder(&pretty)
	encoder.SetIndent("", "  ")
	if encoder.Encode(o.Outcome) == nil {
		for line := range strings.Lines(pretty.String()) {
			t.row(strings.TrimRight(line, "\n"))
		}
	}
}

// hintOf is what somebody can do about the step that runs, without the marks of Markdown.
func hintOf(o ops.Operation) string { return strings.ReplaceAll(o.Hint, "`", "") }

// begun prints an operation that was started, or waits for its end.
func (g *globals) begun(cmd *cobra.Command, collection string, started ops.Operation, wait bool, good ...string) error {
	if wait {
		return g.wait(cmd, collection+"/"+started.ID, good...)
	}
	return g.print(cmd, started, func(t *table) {
		t.row(fmt.Sprintf("%s %s of %s is started", started.Kind, started.ID, started.Subject))
	})
}
