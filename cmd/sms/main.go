// Command sms is the operator's command line, and with `sms up` the supervisor of a whole platform on one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of the public interface.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError marks an error as wrong usage.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := newRootCommand()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "sms:", err)
	if _, usage := errors.AsType[usageError](err); usage {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

func newRootCommand() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use: "sms", Short: "Run and operate the School Management System",
		SilenceUsage: true, SilenceErrors: true,
		Args: usageArgs(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g.bind(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	root.AddCommand(newUpCommand(g), newDownCommand(g), newRestartCommand(g), newStatusCommand(g), newDoctorCommand(g), newVersionCommand(), newTokenCommand(g),
		newRolloutCommand(g), newSmokeCommand(g), newBackupCommand(g), newRestoreCommand(g), newScheduleCommand(g), newWebhookCommand(g), newStudentCommand(g))
	return root
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
		}
		return nil
	}
}
