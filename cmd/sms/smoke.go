package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/smoke"
)

const smokeTestsPath = "/api/v1/ops/smoke-tests"

func newSmokeCommand(g *globals) *cobra.Command {
	group := newGroup("smoke", "Ask an environment, through its gateway, whether it works")
	show := newShowCommand(g, smokeTestsPath, "Show a smoke test")
	junit := junitFlag(show)
	plainShow := show.RunE
	show.RunE = func(cmd *cobra.Command, args []string) error {
		if *junit == "" {
			return plainShow(cmd, args)
		}
		return g.fetchJUnit(cmd.Context(), cmd.OutOrStdout(), args[0], *junit)
	}
	group.AddCommand(newSmokeRunCommand(g), newSmokeCheckCommand(g), newSmokeSuiteCommand(),
		newListCommand(g, smokeTestsPath, "List smoke tests, newest first", []string{"ID", "TARGET", "STATE", "CHECKS", "STARTED", "TOOK", ""}, smokeRow), show)
	return group
}

func newSmokeRunCommand(g *globals) *cobra.Command {
	run := &cobra.Command{
		Use: "run", Short: "Have the platform run a smoke test",
		Example: "  sms smoke run --env production --wait\n  sms smoke run --url http://127.0.0.1:8090 --wait --junit smoke.xml",
		Args:    usageArgs(cobra.NoArgs),
	}
	environment := run.Flags().String("env", "", "the environment to test (default production)")
	url := run.Flags().String("url", "", "instead of an environment: the URL of a gateway")
	wait := waitFlag(run)
	junit := junitFlag(run)
	run.RunE = func(cmd *cobra.Command, _ []string) error {
		if *environment != "" && *url != "" {
			return usageError{errors.New("--env and --url: give one of them")}
		}
		if *junit != "" && !*wait {
			return usageError{errors.New("--junit: there is no report before the end; give --wait, too")}
		}
		body := map[string]string{"url": *url}
		if *url == "" {
			body = map[string]string{"environment": orDefault(*environment, "production")}
		}
		var started ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, smokeTestsPath, body, &started); err != nil {
			return err
		}
		stdout := cmd.OutOrStdout()
		if *junit == toStdout {
			cmd.SetOut(cmd.ErrOrStderr())
		}
		err := g.begun(cmd, smokeTestsPath, started, *wait, operation.Succeeded)
		if *junit == "" || cmd.Context().Err() != nil {
			return err
		}
		return errors.Join(err, g.fetchJUnit(cmd.Context(), stdout, started.ID, *junit))
	}
	return run
}

// toStdout is the file name that means standard output.
const toStdout = "-"

func junitFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("junit", "", "write the report as JUnit XML to this file; - is standard output, and then nothing else is written there")
}

// fetchJUnit writes the report of a smoke test of the platform.
func (g *globals) fetchJUnit(ctx context.Context, stdout io.Writer, id, file string) error {
	var o ops.Operation
	if err := g.call(ctx, http.MethodGet, smokeTestsPath+"/"+url.PathEscape(id), nil, &o); err != nil {
		return err
	}
	var report smoke.Report
	if json.Unmarshal(o.Outcome, &report) != nil || len(report.Checks) == 0 {
		return fmt.Errorf("smoke test %s has no report: it is %s. %s", o.ID, o.State, o.Summary)
	}
	return writeJUnit(stdout, file, report)
}

// writeJUnit writes a report to a file, or to standard output.
func writeJUnit(stdout io.Writer, file string, report smoke.Report) error {
	if file == toStdout {
		return smoke.WriteJUnit(stdout, report)
	}
	var b bytes.Buffer
	if err := smoke.WriteJUnit(&b, report); err != nil {
		return err
	}
	const mode = 0o644 // it is for others to read, and holds no secret
	if err := os.WriteFile(file, b.Bytes(), mode); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

func smokeRow(o ops.Operation) []string {
	checks := "-"
	var report smoke.Report
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
