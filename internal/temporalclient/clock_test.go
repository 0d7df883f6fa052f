package temporalclient

import (
	"context"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Whatever this machine's clock says, an activity that was scheduled a minute before it started was scheduled a minute ago.
func TestActivitiesAreScheduledByTheOwnClock(t *testing.T) {
	t.Parallel()
	const waited, tolerated = time.Minute, 5 * time.Second
	for name, server := range map[string]time.Duration{"ahead of the server": -10 * time.Minute, "behind it": 10 * time.Minute, "alike": 0} {
		started := time.Now().Add(server)
		task := func() *workflowservice.PollActivityTaskQueueResponse {
			return &workflowservice.PollActivityTaskQueueResponse{
				ScheduledTime: timestamppb.New(started.Add(-waited)), StartedTime: timestamppb.New(started)}
		}
		polled := task()
		eager := &workflowservice.RespondWorkflowTaskCompletedResponse{ActivityTasks: []*workflowservice.PollActivityTaskQueueResponse{task()}}
		for _, reply := range []any{polled, eager, &workflowservice.PollActivityTaskQueueResponse{}} {
			answered := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
			if err := byOwnClock(t.Context(), "", nil, reply, nil, answered); err != nil {
				t.Fatal(err)
			}
		}
		for _, got := range []*workflowservice.PollActivityTaskQueueResponse{polled, eager.ActivityTasks[0]} {
			if ago := time.Since(got.GetScheduledTime().AsTime()); ago < waited || ago > waited+tolerated {
				t.Errorf("%s: scheduled %s ago, want %s", name, ago, waited)
			}
		}
	}
}
