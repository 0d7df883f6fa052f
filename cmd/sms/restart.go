package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/standalone"
)

const (
	// restartWithin is how long one process may take to be ready again.
	restartWithin = 60 * time.Second
	restartPoll   = 50 * time.Millisecond
)

// restartable are the services that `sms restart` replaces without losing a request, what others stand on first.
var restartable = []string{"eureka-server", "configuration-service", "student-service", "ops-worker", "ops-service", "api-gateway"}

func newRestartCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "restart [SERVICE…]", Short: "Restart services of this machine one process after the other, without losing a request",
		Long: "Replaces each process of the services, or of all of them: its successor starts, the old one finishes what it has begun,\n" +
			"and the next one follows once the successor is ready. This brings changes of settings/<service>.env in the data directory\n" +
			"into force. Services: " + strings.Join(restartable, ", ") + ".",
		Example: "  sms restart\n  sms restart student-service api-gateway",
		Args: usageArgs(func(_ *cobra.Command, services []string) error {
			for _, service := range services {
				if !slices.Contains(restartable, service) {
					return fmt.Errorf("%q is not one of %s", service, strings.Join(restartable, ", "))
				}
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, services []string) error {
			return restart(cmd.Context(), standalone.Dial(standalone.Layout{Root: g.dataDir}.Socket()), services, cmd.OutOrStdout())
		},
	}
}

// restart replaces the processes of the services that run now; of all of them when none is named.
func restart(ctx context.Context, platform standalone.Client, services []string, out io.Writer) error {
	if len(services) == 0 {
		services = restartable
	}
	status, err := platform.PlatformStatus(ctx)
	if err != nil {
		return err
	}
	for _, service := range restartable {
		for _, p := range status.Processes {
			if serviceOf(p.Name) != service || !slices.Contains(services, service) {
				continue
			}
			if err := replace(ctx, platform, p.Name, out); err != nil {
				return fmt.Errorf("restart %s: %w; nothing further was restarted", p.Name, err)
			}
		}
	}
	return nil
}

// serviceOf takes environment and number off a process's name.
func serviceOf(process string) string {
	name := process[strings.LastIndex(process, "/")+1:]
	return strings.TrimRight(name, "-0123456789")
}

// replace asks a process to stop, and waits until its successor is ready.
func replace(ctx context.Context, platform standalone.Client, name string, out io.Writer) error {
	old, err := processNamed(ctx, platform, name)
	if err != nil {
		return err
	}
	if old.State != standalone.Ready {
		return fmt.Errorf("it is %s, not ready", old.State)
	}
	if err := syscall.Kill(old.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop pid %d: %w", old.PID, err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, restartWithin, fmt.Errorf("it was not ready within %s, see `sms status`", restartWithin))
	defer cancel()
	tick := time.NewTicker(restartPoll)
	defer tick.Stop()
	for {
		now, err := processNamed(ctx, platform, name)
		if err != nil {
			return err
		}
		if now.PID != old.PID && now.State == standalone.Ready {
			fmt.Fprintf(out, "%s restarted in %.1f s\n", name, time.Since(began).Seconds())
			return nil
		}
		if now.Restarts > old.Restarts+1 { // one may be the old one's own end
			return fmt.Errorf("its successor does not start: %s", now.Failure)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func processNamed(ctx context.Context, platform standalone.Client, name string) (standalone.ProcessStatus, error) {
	status, err := platform.PlatformStatus(ctx)
	if err != nil {
		return standalone.ProcessStatus{}, err
	}
	for _, p := range status.Processes {
		if p.Name == name {
			return p, nil
		}
	}
	return standalone.ProcessStatus{}, errors.New("it has been removed meanwhile")
}
