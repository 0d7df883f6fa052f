package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/settings"
	"github.com/school-sms/sms/internal/standalone"
	"github.com/school-sms/sms/internal/target/process"
)

func newUpCommand(g *globals) *cobra.Command {
	var noStaging, replica bool
	var ports []string
	cmd := &cobra.Command{
		Use: "up", Short: "Start the whole platform on this machine, in the foreground",
		Long: "Starts PostgreSQL, Temporal, the registry, the gateways and every service as child processes, and stops them\n" +
			"in order on Ctrl-C or SIGTERM. Every setting is an environment variable; `sms doctor` lists them.",
		Example: "  sms up\n  sms up --data-dir /srv/school --set SMS_GATEWAY_PORT=9080 --set SMS_POSTGRES_PORT=0",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := upOptions(g, ports)
			if err != nil {
				return usageError{err}
			}
			options.Staging = options.Staging && !noStaging
			options.Replica = options.Replica || replica
			return standalone.Run(cmd.Context(), options, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&noStaging, "no-staging", false, "leave the staging environment out")
	cmd.Flags().BoolVar(&replica, "replica", false, "run a streaming replica of PostgreSQL, which the services read from")
	cmd.Flags().StringArrayVar(&ports, "set", nil, "a setting for this start, NAME=VALUE, over the environment's")
	return cmd
}

// upOptions reads the settings of `sms up`: those given with --set over those of the environment over the defaults.
func upOptions(g *globals, set []string) (standalone.Options, error) {
	environ := env.ToMap(os.Environ())
	for _, s := range set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return standalone.Options{}, fmt.Errorf("--set %s: want NAME=VALUE", s)
		}
		if !isUpSetting(name) {
			return standalone.Options{}, fmt.Errorf("--set %s: there is no such setting; `sms doctor` lists them", name)
		}
		environ[name] = value
	}
	options, err := settings.From[standalone.Options](environ)
	if err != nil {
		return options, err
	}
	options.Services = standalone.Passed(environ)
	if options.DataDir, err = filepath.Abs(g.dataDir); err != nil {
		return options, err
	}
	if options.BinDir == "" {
		program, err := os.Executable()
		if err != nil {
			return options, err
		}
		options.BinDir = filepath.Dir(program)
	}
	return options, nil
}

func isUpSetting(name string) bool {
	if standalone.Passes(name) {
		return true
	}
	for _, s := range settings.Describe[standalone.Options](nil) {
		if s.Name == name {
			return true
		}
	}
	return false
}

func newDownCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop the platform that runs with this data directory, and wait until it has stopped",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			layout := standalone.Layout{Root: g.dataDir}
			status, err := standalone.Dial(layout.Socket()).PlatformStatus(cmd.Context())
			if errors.Is(err, process.ErrNotRunning) {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing runs with data directory", g.dataDir)
				return nil
			}
			if err != nil {
				return err
			}
			if err := syscall.Kill(status.PID, syscall.SIGTERM); err != nil {
				return fmt.Errorf("stop `sms up` (pid %d): %w", status.PID, err)
			}
			if err := layout.WaitReleased(); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "stopped")
			return nil
		},
	}
}
