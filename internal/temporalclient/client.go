// Package temporalclient is the platform's way to Temporal.
package temporalclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// TaskQueue is where every workflow and activity of the platform runs.
const TaskQueue = "sms"

// Config is how a process reaches Temporal.
type Config struct {
	// Address of the Temporal frontend, host:port.
	Address string `env:"TEMPORAL_ADDRESS" envDefault:"127.0.0.1:7233"`
	// Namespace of the platform's workflows.
	Namespace string `env:"TEMPORAL_NAMESPACE" envDefault:"sms"`
}

// reconnect finds a Temporal that has come back within a second. Calls wait for that as long as their context allows,
// instead of failing at once.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// New makes a client that connects when first used, so that a process starts while Temporal is away.
func New(cfg Config, logger *slog.Logger) (client.Client, error) {
	c, err := client.NewLazyClient(Options(cfg, logger))
	if err != nil {
		return nil, fmt.Errorf("TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE: %w", err)
	}
	return c, nil
}

// Options are those of New's client.
func Options(cfg Config, logger *slog.Logger) client.Options {
	return client.Options{
		HostPort: cfg.Address, Namespace: cfg.Namespace, Logger: log.NewStructuredLogger(logger),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(reconnect), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), grpc.WithChainUnaryInterceptor(byOwnClock),
		}},
	}
}

// Unavailable reports whether err means that Temporal cannot be reached or cannot serve now, rather than that it
// refused what was asked.
func Unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if _, ok := errors.AsType[*serviceerror.Unavailable](err); ok {
		return true
	}
	if _, ok := errors.AsType[*serviceerror.DeadlineExceeded](err); ok {
		return true
	}
	if _, ok := errors.AsType[*serviceerror.NamespaceNotFound](err); ok { // before its first start has come to an end
		return true
	}
	_, ok := errors.AsType[*serviceerror.ResourceExhausted](err)
	return ok
}

// NotFound reports whether err means that Temporal knows no such workflow or schedule.
func NotFound(err error) bool {
	_, ok := errors.AsType[*serviceerror.NotFound](err)
	return ok
}

// Liveness tells whether workflows still run.
type Liveness struct{ Client client.Client }

// Running reports whether the run is open. A workflow that Temporal does not know does not run; that is no error.
func (l Liveness) Running(ctx context.Context, workflowID, runID string) (bool, error) {
	described, err := l.Client.DescribeWorkflowExecution(ctx, workflowID, runID)
	if NotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("describe workflow %s: %w", workflowID, err)
	}
	return described.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}
