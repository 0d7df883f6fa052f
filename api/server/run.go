package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/dig"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"github.com/school-sms/sms/internal/migration"
	"github.com/school-sms/sms/internal/settings"
)

// stopMargin is what a process may need to stop besides its HTTP server: to close a pool, to leave the registry.
const stopMargin = 10 * time.Second

// Run starts a process of the given modules, waits for a signal or for fx.Shutdowner, stops it, and exits with the code of the
// shutdown: 0 after a signal. A failure to start or to stop is one plain line on stderr and exit code 1.
//
// On SIGTERM it hands over and drains, see Server.Stop. SIGINT, then or instead, says that everything ends: there is nobody to hand
// over to, and no idle connection to wait for. The time to stop is what the server may take and a margin; fx.StopTimeout among
// opts overrides it.
//
// With the argument `migrate` the process looks at the schema of its database, or changes it, and ends: see migration.Command.
func Run(opts ...fx.Option) {
	if len(os.Args) > 1 && os.Args[1] == migration.Command {
		ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		os.Exit(runMigrations(ctx, os.Stdout, os.Args[2:], migratorOf(opts)))
	}
	os.Exit(run(os.Stderr, filepath.Base(os.Args[0]), opts...))
}

func run(stderr io.Writer, process string, opts ...fx.Option) int {
	stopTimeout := stopMargin
	if cfg, err := settings.Load[Config](); err == nil { // Module names the faults
		stopTimeout += cfg.stopTimeout()
	}
	opts = append([]fx.Option{fx.StopTimeout(stopTimeout)}, opts...)
	app := fx.New(append(opts, fx.WithLogger(debugLogger))...)

	ctx, cancel := context.WithTimeout(context.Background(), app.StartTimeout())
	defer cancel()
	done := app.Wait() // a signal from here on ends the process the orderly way
	hurry, finished := interrupted()
	defer finished()
	if err := app.Start(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: cannot start: %s\n", process, oneLine(err))
		return 1
	}
	end := <-done
	ctx, cancel = context.WithTimeout(withHurry(context.Background(), hurry), app.StopTimeout())
	defer cancel()
	if err := app.Stop(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: did not stop cleanly: %s\n", process, oneLine(err))
		return 1
	}
	return end.ExitCode
}

// migratorOf is that of Database among the options; nil: there is none.
func migratorOf(opts []fx.Option) migrator {
	for _, opt := range opts {
		if m, ok := opt.(migrated); ok {
			return m.migrate
		}
	}
	return nil
}

// interrupted returns a channel that is closed at the first SIGINT.
func interrupted() (hurry <-chan struct{}, finished func()) {
	ctx, finished := signal.NotifyContext(context.Background(), os.Interrupt)
	return ctx.Done(), finished
}

// debugLogger writes what fx does, errors too, at debug level: Run says what went wrong. It needs nothing that could fail.
func debugLogger() fxevent.Logger { return fxLogger{} }

type fxLogger struct{}

func (fxLogger) LogEvent(event fxevent.Event) {
	l := &fxevent.SlogLogger{Logger: slog.Default()} // which Module sets, once it is there
	l.UseLogLevel(slog.LevelDebug)
	l.UseErrorLevel(slog.LevelDebug)
	l.LogEvent(event)
}

// oneLine says the cause without what the container adds to it.
func oneLine(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it took too long: %w", err)
	}
	lines := strings.FieldsFunc(dig.RootCause(err).Error(), func(r rune) bool { return r == '\n' })
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " -")
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ":; ", ": ")
}
