package temporalclient

import (
	"context"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// byOwnClock turns the time at which an activity was scheduled into that of this machine's clock. The SDK reckons the deadline of a
// schedule-to-close timeout from it: where the clock is ahead of Temporal's, an activity would begin with its time over.
func byOwnClock(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoker(ctx, method, req, reply, cc, opts...)
	var tasks []*workflowservice.PollActivityTaskQueueResponse
	switch reply := reply.(type) {
	case *workflowservice.PollActivityTaskQueueResponse:
		tasks = append(tasks, reply)
	case *workflowservice.RespondWorkflowTaskCompletedResponse: // those that the workflow's worker is given at once
		tasks = reply.GetActivityTasks()
	}
	for _, task := range tasks {
		if task.GetScheduledTime() != nil && task.GetStartedTime() != nil { // an answer without a task has neither
			ahead := time.Since(task.GetStartedTime().AsTime())
			task.ScheduledTime = timestamppb.New(task.GetScheduledTime().AsTime().Add(ahead))
		}
	}
	return err
}
