// Command temporal-server runs a whole Temporal installation in one process: the four Temporal services and the web UI,
// on PostgreSQL. It serves one machine; for more than one, run a Temporal cluster or Temporal Cloud instead.
//
// It is configured by environment variables only, listed in [Config], and logs JSON to standard error. When it is ready
// it writes one line of JSON, the [Ready] message, to standard output. SIGTERM and SIGINT stop it cleanly with exit
// code 0; a failure ends it with one line on standard error and exit code 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // schedules name time zones, and a container built from scratch has none

	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Ready tells where a server that has just become ready can be reached: the addresses to dial, as host:port, with the
// ports that were picked. An address that is switched off is empty.
type Ready struct {
	Address       string `json:"address"`
	UIAddress     string `json:"uiAddress"`
	HealthAddress string `json:"healthAddress"`
	Namespace     string `json:"namespace"`
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// Once the first signal came, the default behaviour is back, so that a second one ends a stop that hangs.
	context.AfterFunc(ctx, cancel)
	if err := run(ctx, os.Stdout); err != nil {
		// Libraries spread some errors over several lines.
		fmt.Fprintln(os.Stderr, "temporal-server:", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(1)
	}
}

// run serves until ctx ends. Being stopped while still starting is no failure.
func run(ctx context.Context, stdout io.Writer) error {
	cfg, err := loadConfig()
	if err != nil {
		return err
	}
	debug.SetGCPercent(cfg.GCPercent)
	logLevel := zap.NewAtomicLevelAt(log.ParseZapLevel(cfg.LogLevel))
	logger := newLogger(logLevel)

	health, err := listenHealth(cfg.HealthAddress)
	if err != nil {
		return err
	}
	defer health.close()
	frontend, err := reserve("TEMPORAL_ADDRESS", cfg.Address)
	if err != nil {
		return err
	}
	ui, err := reserve("TEMPORAL_UI_ADDRESS", cfg.UIAddress)
	if err != nil {
		return err
	}

	health.enter("preparing databases")
	if err := prepareDatabases(ctx, cfg, logger); err != nil {
		return unlessStopped(ctx, err)
	}
	health.enter("starting services")
	server, err := startServer(cfg, frontend, logger)
	if err != nil {
		return err
	}
	health.enter("registering the namespace")
	err = server.ensureNamespace(ctx, cfg.Namespace, cfg.Retention)
	if err == nil {
		health.enter("starting the web UI")
		err = serveUI(ctx, cfg.Namespace, ui, frontend, func() error {
			health.serve(server.components(cfg.Namespace))
			ready := Ready{frontend.dial, ui.dial, health.address, cfg.Namespace}
			logger.Info("temporal-server is ready")
			if err := json.NewEncoder(stdout).Encode(ready); err != nil {
				return fmt.Errorf("announce readiness: %w", err)
			}
			<-ctx.Done()
			return nil
		})
	}
	health.enter("stopping")
	// The services go one after another, and those that are left warn about the missing ones.
	logLevel.SetLevel(max(logLevel.Level(), zap.ErrorLevel))
	return errors.Join(unlessStopped(ctx, err), server.stop())
}

// newLogger logs JSON lines to standard error.
func newLogger(level zap.AtomicLevel) log.Logger {
	encoder := zapcore.NewJSONEncoder(log.DefaultZapEncoderConfig)
	return log.NewZapLogger(zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level)))
}

// unlessStopped drops the errors of work that was interrupted by the end of ctx.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
