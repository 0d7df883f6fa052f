// Command worker is ops-worker that tells a test at which moment of which activity of a rollout it is, and waits there until the test
// lets it go on. Without a test that listens it is ops-worker.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/migrations"
	"github.com/school-sms/sms/workers"
)

func main() {
	for _, name := range []string{"TARGET_SOCKET", "DISCOVERY_URL"} { // which a test may put a proxy before
		if instead := os.Getenv("TEST_" + name); instead != "" {
			os.Setenv(name, instead)
		}
	}
	server.Run(
		server.Module("ops-worker"),
		server.Database("ops-worker", migrations.Ops()),
		temporalclient.Module,
		fx.Decorate(func(cfg temporalclient.Config, logger *slog.Logger) (client.Client, error) {
			options := temporalclient.Options(cfg, logger)
			options.Interceptors = append(options.Interceptors, &moments{socket: os.Getenv("TEST_MOMENTS")})
			return client.NewLazyClient(options)
		}),
		workers.Module,
		server.Serve,
	)
}

// moments tells of activities on a socket.
type moments struct {
	interceptor.InterceptorBase
	interceptor.ActivityInboundInterceptorBase
	socket string
}

func (m *moments) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	with := &moments{socket: m.socket}
	with.Next = next
	return with
}

func (m *moments) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	name := activity.GetInfo(ctx).ActivityType.Name
	if record, ok := in.Args[0].(operation.Record); ok && record.Ended() {
		name += " of the end"
	}
	m.tell(ctx, name, "before", nil)
	go m.tell(ctx, name, "during", nil)
	out, err := m.Next.ExecuteActivity(ctx, in)
	m.tell(ctx, name, "after", err)
	return out, err
}

// tell returns when the test says so by closing the connection.
func (m *moments) tell(ctx context.Context, name, at string, failure error) {
	info := activity.GetInfo(ctx)
	if !strings.HasPrefix(info.WorkflowExecution.ID, "rollout/") {
		return
	}
	conn, err := net.Dial("unix", m.socket)
	if err != nil {
		return
	}
	defer conn.Close()
	said := map[string]any{"pid": os.Getpid(), "run": info.WorkflowExecution.RunID, "activity": name, "id": info.ActivityID,
		"attempt": info.Attempt, "at": at}
	if failure != nil {
		said["failure"] = failure.Error()
	}
	if json.NewEncoder(conn).Encode(said) == nil {
		_, _ = io.ReadAll(conn)
	}
}
