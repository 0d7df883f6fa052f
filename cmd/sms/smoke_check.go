package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/smoke"
)

func newSmokeCheckCommand(g *globals) *cobra.Command {
	check := &cobra.Command{
		Use: "check --url URL", Short: "Run suites from here against any URL, without the platform",
		Long: "Runs suites from here against any URL, without the platform, and cleans up after them, also when it is interrupted. It ends with 0 when\n" +
			"all checks passed, 1 when one failed, 2 when a suite has faults. The token goes to that URL: it is sent only if its file is named.",
		Example: "  sms smoke check --url https://sms.school.example --token-file operator.token\n" +
			"  sms smoke check --url http://127.0.0.1:8080 --suite school.yaml --token-file operator.token --junit smoke.xml",
		Args: usageArgs(cobra.NoArgs),
	}
	f := check.Flags()
	target := f.String("url", "", "what to test")
	files := f.StringArray("suite", nil, "a suite's YAML file, may be given several times (default: the built-in suite; see `sms smoke suite`)")
	environment := f.String("env", "", "make also the checks that are for this environment only")
	junit := junitFlag(check)
	check.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := smoke.CheckURL(*target); err != nil {
			return usageError{fmt.Errorf("--url: %w", err)}
		}
		suites, err := readSuites(*files)
		if err != nil {
			return usageError{err}
		}
		runner := smoke.Runner{Target: smoke.Target{URL: *target, Environment: *environment}}
		if g.tokenFile != "" {
			if runner.Target.Token, err = g.token(); err != nil {
				return err
			}
		} else if slices.ContainsFunc(suites, smoke.Suite.NeedsToken) {
			return usageError{errors.New("the suite sends a token: name its file with --token-file, or say `anonymous: true` in the suite's requests")}
		}
		report := runner.Run(cmd.Context(), suites...)
		if cmd.Context().Err() != nil {
			return errors.New("interrupted; what the checks had made is cleaned up, as far as that could be reached")
		}
		if *junit != "" {
			if err := writeJUnit(cmd.OutOrStdout(), *junit, report); err != nil {
				return err
			}
		}
		if *junit != toStdout {
			if err := g.print(cmd, report, func(t *table) { showReport(t, report) }); err != nil {
				return err
			}
		}
		if !report.Passed {
			return errors.New(report.Summary())
		}
		return nil
	}
	return check
}

// readSuites names the faults of all files.
func readSuites(files []string) ([]smoke.Suite, error) {
	if len(files) == 0 {
		return []smoke.Suite{smoke.Platform()}, nil
	}
	var suites []smoke.Suite
	var faults []error
	for _, file := range files {
		suite, err := smoke.ReadFile(file)
		if err == nil && slices.ContainsFunc(suites, func(s smoke.Suite) bool { return s.Name == suite.Name }) {
			err = fmt.Errorf("suite %s: another suite has the name %q", file, suite.Name)
		}
		suites, faults = append(suites, suite), append(faults, err)
	}
	return suites, errors.Join(faults...)
}

func showReport(t *table, r smoke.Report) {
	for _, c := range r.Checks {
		name := c.Suite + ": " + c.Name
		switch {
		case c.LeftOut != "":
			t.row(stepMarks["skipped"]+" "+name, "", "left out: "+c.LeftOut)
		case c.OK:
			t.row(stepMarks["done"]+" "+name, milliseconds(c.DurationMS))
		default:
			t.row(stepMarks["failed"]+" "+name, milliseconds(c.DurationMS), "expected "+c.Expected+", found "+c.Found)
		}
	}
	if r.Passed {
		t.row("")
		t.row(r.Summary())
	}
}

func milliseconds(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func newSmokeSuiteCommand() *cobra.Command {
	suite := &cobra.Command{
		Use: "suite", Short: "Print the built-in suite, to begin one's own from",
		Example: "  sms smoke suite > school.yaml\n  sms smoke suite --schema > smoke-suite.schema.json", Args: usageArgs(cobra.NoArgs),
	}
	schema := suite.Flags().Bool("schema", false, "print the JSON Schema of suites instead, which says what every key means")
	suite.RunE = func(cmd *cobra.Command, _ []string) error {
		raw := smoke.PlatformYAML
		if *schema {
			raw = smoke.Schema
		}
		_, err := cmd.OutOrStdout().Write(raw)
		return err
	}
	return suite
}
