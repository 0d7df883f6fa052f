package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
)

const smokeTestsPath = "/api/v1/ops/smoke-tests"

func newSmokeCommand(g *globals) *cobra.Command {
	group := newGroup("smoke", "Ask an environment, through its gateway, whether it works")
	run := &cobra.Command{
		Use: "run", Short: "Run a smoke test", Example: "  sms smoke run --env production --wait\n  sms smoke run --url http://127.0.0.1:8090 --wait",
		Args: usageArgs(cobra.NoArgs),
	}
	environment := run.Flags().String("env", "", "the environment to test (default production)")
	url := run.Flags().String("url", "", "instead of an environment: the URL of a gateway")
	wait := waitFlag(run)
	run.RunE = func(cmd *cobra.Command, _ []string) error {
		if *environment != "" && *url != "" {
			return usageError{errors.New("--env and --url: give one of them")}
		}
		body := map[string]string{"url": *url}
		if *url == "" {
			body = map[string]string{"environment": orDefault(*environment, "production")}
		}
		return g.begin(cmd, smokeTestsPath, body, *wait, operation.Succeeded)
	}
	show := newShowCommand(g, smokeTestsPath, "Show a smoke test")
	group.AddCommand(run,
		newListCommand(g, smokeTestsPath, "List smoke tests, newest first", []string{"ID", "TARGET", "STATE", "CHECKS", "STARTED", "TOOK", ""}, smokeRow), show)
	return group
}

func smokeRow(o ops.Operation) []string {
	checks := "-"
	var report smoketest.Report
	if json.Unmarshal(o.Outcome, &report) == nil && len(report.Checks) > 0 {
		good := 0
		for _, c := range report.Checks {
			if c.OK {
				good++
			}
		}
		checks = fmt.Sprintf("%d/%d", good, len(report.Checks))
	}
	return []string{o.ID, o.Subject, o.State, checks, when(o.StartedAt), took(o.StartedAt, o.EndedAt), o.Summary}
}
