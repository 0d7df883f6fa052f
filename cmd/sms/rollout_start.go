package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
)

func newRolloutStartCommand(g *globals) *cobra.Command {
	start := &cobra.Command{
		Use: "start SERVICE=RELEASE [SERVICE=RELEASE …]", Short: "Start a rollout",
		Long: "Takes releases through staging, and on to production once somebody has approved them there. In each, instances of the release\n" +
			"start beside those that run, are tested before they get traffic, get it in steps while they are watched, and the old ones drain.\n" +
			"Whatever fails puts everything back. RELEASE is the path of an executable, or the digest of a release that was there before.\n\n" +
			"A plan file is YAML with the fields of POST " + rolloutsPath + " (see /docs); what is given here besides counts more.",
		Example: "  sms rollout start student-service=./bin/student-service --wait\n" +
			"  sms rollout start student-service=./bin/student-service --env staging --wait\n" +
			"  sms rollout start --plan release.yaml --dry-run",
	}
	f := start.Flags()
	environments := f.StringSlice("env", []string{"staging", rollout.Production}, "where to, in this order")
	plan := f.String("plan", "", "a YAML file that says all or some of this")
	gate := f.Bool("gate", true, "wait before production until somebody approves; for several environments")
	other := f.Bool("other-approver", false, "that must be somebody else than you")
	approve := f.String("approve-within", "", "how long it waits for that (default 24h)")
	unproven := f.String("unproven", "", "why it may go to production though staging does not run it")
	strategy := f.String("strategy", "", "canary, blue-green or rolling (default canary)")
	thaw := f.String("thaw", "", "why it may begin though a freeze holds")
	supersede := f.Bool("supersede", false, "end what is under way of the service first, cleanly")
	notify := f.StringSlice("notify", nil, "the webhooks that are told of it (default: all)")
	dry := f.Bool("dry-run", false, "show what would be done, and do nothing")
	weights := f.IntSlice("weights", nil, "percentages of traffic, rising to 100 (default 10,50,100)")
	soak := f.String("soak", "", "how long each weight is watched (default 5s)")
	within := f.String("ready-within", "", "how long new instances may take to become ready (default 1m)")
	errorRate := f.Float64("max-error-rate", 0.01, "the share of answers with status 5xx beyond which everything is put back, unless the stable release is no better")
	latency := f.Duration("max-latency", 250*time.Millisecond, "likewise for the time that 95 of 100 answers take at most")
	memory := f.Int("max-memory", 256, "likewise for the MiB that an instance holds resident")
	minimum := f.Int("min-requests", 0, "how many requests the release must answer at each weight before it can be called good (default 50)")
	sure := f.String("sure-within", "", "how long after a soak that may be undecided (default 5m)")
	wait := waitFlag(start)
	start.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := readPlan(*plan)
		if err != nil {
			return err
		}
		parts, err := partsOf(args)
		if err != nil {
			return err
		}
		if len(parts) > 0 {
			delete(body, "service")
			delete(body, "release")
			body["services"] = parts
		} else if *plan == "" {
			return usageError{errors.New("which release? Want SERVICE=RELEASE, such as student-service=./bin/student-service, or --plan")}
		}
		if _, one := body["environment"]; f.Changed("env") || !one && body["environments"] == nil {
			delete(body, "environment")
			body["environments"] = *environments
		}
		if in, ok := body["environments"].([]string); ok && len(in) == 1 && len(parts) == 1 {
			delete(body, "environments")
			delete(body, "services")
			body["environment"], body["service"], body["release"] = in[0], parts[0].Service, parts[0].Release
		}
		for flag, value := range map[string]any{"gate": gate, "other-approver": other, "approve-within": approve, "unproven": unproven, "strategy": strategy,
			"thaw": thaw, "supersede": supersede, "notify": notify, "weights": weights, "soak": soak, "ready-within": within, "min-requests": minimum, "sure-within": sure} {
			if f.Changed(flag) {
				body[fieldOf(flag)] = value
			}
		}
		if f.Changed("max-error-rate") || f.Changed("max-latency") || f.Changed("max-memory") {
			body["rules"] = []rollout.Rule{{Metric: rollout.ErrorRate, Max: *errorRate}, {Metric: rollout.Latency, Max: latency.Seconds()},
				{Metric: rollout.Memory, Max: float64(*memory) * (1 << 20)}}
		}
		if *dry {
			return g.preview(cmd, body)
		}
		return g.begin(cmd, rolloutsPath, body, *wait, operation.Succeeded)
	}
	return start
}

// fieldOf is the field of a plan that a flag says: otherApprover for other-approver.
func fieldOf(flag string) string {
	field, more, _ := strings.Cut(flag, "-")
	if more == "" {
		return field
	}
	return field + strings.ToUpper(more[:1]) + fieldOf(more[1:])
}

// partsOf reads SERVICE=RELEASE, and names everyone that is not.
func partsOf(args []string) ([]rollout.Part, error) {
	var parts []rollout.Part
	var faults []error
	for _, arg := range args {
		service, release, ok := strings.Cut(arg, "=")
		if !ok || service == "" || release == "" {
			faults = append(faults, fmt.Errorf("%q: want SERVICE=RELEASE, such as student-service=./bin/student-service", arg))
			continue
		}
		release, err := absolute(".", release)
		faults = append(faults, err)
		parts = append(parts, rollout.Part{Service: service, Release: release})
	}
	if err := errors.Join(faults...); err != nil {
		return nil, usageError{err}
	}
	return parts, nil
}

// readPlan reads a plan file; without one the plan says nothing. Paths of releases in it are relative to it.
func readPlan(path string) (map[string]any, error) {
	body := map[string]any{}
	if path == "" {
		return body, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("read the plan: %w", err)}
	}
	if err := yaml.Unmarshal(content, &body); err != nil {
		return nil, usageError{fmt.Errorf("the plan %s is not YAML: %w", path, err)}
	}
	parts, _ := body["services"].([]any) // the server says what else it is
	for _, part := range append(parts, any(body)) {
		fields, _ := part.(map[string]any)
		if release, ok := fields["release"].(string); ok {
			if fields["release"], err = absolute(filepath.Dir(path), release); err != nil {
				return nil, err
			}
		}
	}
	return body, nil
}

// absolute is a release as the server takes it: a digest, or a path that does not depend on where a command is run.
func absolute(folder, release string) (string, error) {
	if strings.HasPrefix(release, "sha256:") || filepath.IsAbs(release) {
		return release, nil
	}
	return filepath.Abs(filepath.Join(folder, release))
}
