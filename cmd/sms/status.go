package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/standalone"
)

func newStatusCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs on this machine; exits 1 unless all is healthy",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := standalone.Dial(standalone.Layout{Root: g.dataDir}.Socket()).PlatformStatus(cmd.Context())
			if err != nil {
				return err
			}
			if err := g.print(cmd, status, func(t *table) { statusTable(t, status) }); err != nil {
				return err
			}
			if !status.Healthy {
				return errors.New("not everything is ready")
			}
			return nil
		},
	}
}

func statusTable(t *table, status standalone.Status) {
	t.row("PROCESS", "STATE", "PID", "PORT", "RELEASE", "RESTARTS", "SINCE", "")
	for _, p := range status.Processes {
		t.row(p.Name, p.State, number(p.PID), number(p.Port), shortDigest(p.Release), fmt.Sprint(p.Restarts),
			time.Since(p.Since).Round(time.Second).String(), p.Failure+draining(p.Draining))
	}
}

// draining names the former processes that still finish what they have begun.
func draining(pids []int) string {
	if len(pids) == 0 {
		return ""
	}
	return "(draining: " + strings.Trim(fmt.Sprint(pids), "[]") + ")"
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// shortDigest is enough of a digest to tell releases apart.
func shortDigest(digest string) string {
	const enough = 12
	hash := strings.TrimPrefix(digest, "sha256:")
	if hash == "" {
		return "-"
	}
	return hash[:min(enough, len(hash))]
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: usageArgs(cobra.NoArgs),
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "sms %s (%s)\n", server.Version, server.Commit)
		},
	}
}
