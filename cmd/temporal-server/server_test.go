package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const taskQueue = "tests"

// counterWorkflow adds up what its updates bring and ends with the sum when one brings 0.
func counterWorkflow(ctx workflow.Context) (int, error) {
	sum, done := 0, false
	workflow.SetCurrentDetails(ctx, "sum is **0**")
	err := workflow.SetUpdateHandlerWithOptions(ctx, "add", func(ctx workflow.Context, n int) (int, error) {
		sum += n
		done = n == 0
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("sum is **%d**", sum))
		return sum, nil
	}, workflow.UpdateHandlerOptions{Validator: func(n int) error {
		if n < 0 {
			return errors.New("negative")
		}
		return nil
	}})
	if err != nil {
		return 0, err
	}
	err = workflow.Await(ctx, func() bool { return done && workflow.AllHandlersFinished(ctx) })
	return sum, err
}

// tickWorkflow is what a schedule starts.
func tickWorkflow(workflow.Context) error { return nil }

func runWorker(t *testing.T, c client.Client, options worker.Options) {
	t.Helper()
	options.WorkerStopTimeout = time.Second
	w := worker.New(c, taskQueue, options)
	w.RegisterWorkflow(counterWorkflow)
	w.RegisterWorkflow(tickWorkflow)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
}

func startCounter(ctx context.Context, t *testing.T, c client.Client, id string) client.WorkflowRun {
	t.Helper()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: taskQueue, StaticSummary: "counts", StaticDetails: "adds up what updates bring",
	}, counterWorkflow)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// add sends an update and returns the sum.
func add(ctx context.Context, c client.Client, id string, n int) (sum int, err error) {
	handle, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: "add", Args: []any{n}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return 0, err
	}
	return sum, handle.Get(ctx, &sum)
}

func expectRetention(ctx context.Context, t *testing.T, c client.Client, namespace string, want time.Duration) {
	t.Helper()
	known, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	if got := known.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); got != want {
		t.Errorf("retention is %s, want %s", got, want)
	}
}

func TestWorkflowsOutliveTheServer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	environment := postgres.environment()

	first := start(t, environment)
	c := first.dial(ctx)
	expectRetention(ctx, t, c, "sms", 720*time.Hour)
	expectHealthy(t, first)
	expectUI(t, first)

	runWorker(t, c, worker.Options{})
	startCounter(ctx, t, c, "counter")
	if sum, err := add(ctx, c, "counter", 5); err != nil || sum != 5 {
		t.Fatalf("got %d, %v", sum, err)
	}
	if _, err := add(ctx, c, "counter", -1); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Fatalf("the validator let -1 through: %v", err)
	}
	expectUpdateWithStart(ctx, t, c)
	expectSchedule(ctx, t, c)
	first.stop()

	second := start(t, environment, "TEMPORAL_RETENTION=48h", "TEMPORAL_UI_ADDRESS=", "TEMPORAL_HISTORY_SHARDS=8")
	c = second.dial(ctx)
	expectRetention(ctx, t, c, "sms", 48*time.Hour)
	runWorker(t, c, worker.Options{})
	if sum, err := add(ctx, c, "counter", 0); err != nil || sum != 5 {
		t.Fatalf("got %d, %v", sum, err)
	}
	var sum int
	if err := c.GetWorkflow(ctx, "counter", "").Get(ctx, &sum); err != nil || sum != 5 {
		t.Fatalf("got %d, %v", sum, err)
	}
	second.stop()
}

func expectHealthy(t *testing.T, p *process) {
	t.Helper()
	for _, path := range []string{"/actuator/health", "/actuator/health/readiness", "/actuator/health/liveness"} {
		if code, report := p.health(path); code != http.StatusOK || report.Status != statusUp {
			t.Errorf("%s: %d %+v", path, code, report)
		}
	}
	if body := get(t, "http://"+p.HealthAddress+metricsPath); !strings.Contains(body, "service_requests") {
		t.Error("no metrics")
	}
}

func expectUI(t *testing.T, p *process) {
	t.Helper()
	settings := get(t, "http://"+p.UIAddress+"/api/v1/settings")
	for _, want := range []string{
		`"DefaultNamespace":"sms"`, `"ShowTemporalSystemNamespace":false`, `"DisableNewsFetch":true`, `"Endpoint":""`,
	} {
		if !strings.Contains(settings, want) {
			t.Errorf("the UI's settings lack %s", want)
		}
	}
	if body := get(t, "http://"+p.UIAddress+"/api/v1/namespaces/sms"); !strings.Contains(body, "sms") {
		t.Error("the UI does not reach the frontend")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return string(body)
}

func expectUpdateWithStart(ctx context.Context, t *testing.T, c client.Client) {
	t.Helper()
	start := c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID: "started-by-update", TaskQueue: taskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	}, counterWorkflow)
	handle, err := c.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateName: "add", Args: []any{7}, WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	var sum int
	if err == nil {
		err = handle.Get(ctx, &sum)
	}
	if err != nil || sum != 7 {
		t.Fatalf("update with start: %d, %v", sum, err)
	}
}

func expectSchedule(ctx context.Context, t *testing.T, c client.Client) {
	t.Helper()
	schedule, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: "every-second",
		Spec: client.ScheduleSpec{
			Intervals: []client.ScheduleIntervalSpec{{Every: time.Second}}, TimeZoneName: "Asia/Kolkata",
		},
		Action: &client.ScheduleWorkflowAction{ID: "tick", Workflow: tickWorkflow, TaskQueue: taskQueue},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, func() error {
		state, err := schedule.Describe(ctx)
		if err == nil && state.Info.NumActions < 2 {
			err = fmt.Errorf("the schedule acted %d times", state.Info.NumActions)
		}
		return err
	})
	// Searching goes through the visibility database.
	eventually(ctx, t, func() error {
		count, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Query: "WorkflowType = 'tickWorkflow' and ExecutionStatus = 'Completed'",
		})
		if err == nil && count.GetCount() < 1 {
			err = errors.New("no completed run is listed")
		}
		return err
	})
}

func TestWorkerVersioning(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := start(t, postgres.environment()).dial(ctx)
	version := worker.WorkerDeploymentVersion{DeploymentName: "ops-worker", BuildID: "1.0"}
	runWorker(t, c, worker.Options{DeploymentOptions: worker.DeploymentOptions{
		UseVersioning: true, Version: version, DefaultVersioningBehavior: workflow.VersioningBehaviorPinned,
	}})
	deployment := c.WorkerDeploymentClient().GetHandle(version.DeploymentName)
	eventually(ctx, t, func() error {
		_, err := deployment.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: version.BuildID})
		return err
	})
	startCounter(ctx, t, c, "pinned")
	if sum, err := add(ctx, c, "pinned", 3); err != nil || sum != 3 {
		t.Errorf("got %d, %v", sum, err)
	}
}

func TestPostgresCrash(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	private, err := newPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(private.remove)
	server := start(t, private.environment())
	c := server.dial(ctx)
	runWorker(t, c, worker.Options{})
	run := startCounter(ctx, t, c, "survivor")
	if _, err := add(ctx, c, "survivor", 2); err != nil {
		t.Fatal(err)
	}

	private.kill()
	expectCode := func(want int) {
		t.Helper()
		eventually(ctx, t, func() error {
			if code, report := server.health("/actuator/health"); code != want {
				return fmt.Errorf("health is %d %+v, want %d", code, report, want)
			}
			return nil
		})
	}
	expectCode(http.StatusServiceUnavailable)
	if code, _ := server.health("/actuator/health/liveness"); code != http.StatusOK {
		t.Errorf("liveness is %d while PostgreSQL is away", code)
	}
	if err := private.start(); err != nil {
		t.Fatal(err)
	}
	expectCode(http.StatusOK)

	for _, n := range []int{3, 0} {
		eventually(ctx, t, func() error { _, err := add(ctx, c, "survivor", n); return err })
	}
	var sum int
	if err := run.Get(ctx, &sum); err != nil || sum != 5 {
		t.Fatalf("got %d, %v", sum, err)
	}
	expectSchedule(ctx, t, c)
	server.stop()
}

func TestFailuresToStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	wrong := filepath.Join(t.TempDir(), "wrong-password")
	if err := os.WriteFile(wrong, []byte("guessed"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for name, test := range map[string]struct{ setting, want string }{
		"configuration":  {"TEMPORAL_RETENTION=never", "TEMPORAL_RETENTION is not a valid duration"},
		"frontend port":  {"TEMPORAL_ADDRESS=" + taken.Addr().String(), "TEMPORAL_ADDRESS: port " + port + " is already in use"},
		"UI port":        {"TEMPORAL_UI_ADDRESS=" + taken.Addr().String(), "TEMPORAL_UI_ADDRESS: port " + port + " is already in use"},
		"health port":    {"TEMPORAL_HEALTH_ADDRESS=" + taken.Addr().String(), "TEMPORAL_HEALTH_ADDRESS: port " + port + " is already in use"},
		"wrong password": {"TEMPORAL_DATABASE_PASSWORD_FILE=" + wrong, "refuses the role or password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expectFailure(t, test.want, postgres.environment(), test.setting)
		})
	}
	t.Run("unreachable database", func(t *testing.T) {
		t.Parallel()
		free, err := reserveLoopback()
		if err != nil {
			t.Fatal(err)
		}
		expectFailure(t, "PostgreSQL is not reachable after 100ms", postgres.environment(),
			"TEMPORAL_DATABASE_WAIT=100ms", "TEMPORAL_DATABASE_URL=postgres://temporal:guessed@"+free.dial+"/temporal")
	})
}

// expectFailure checks for exit code 1, one line that says why, and no password in it.
func expectFailure(t *testing.T, want string, environment map[string]string, settings ...string) {
	t.Helper()
	p := launch(t, environment, settings...)
	code, output := p.exitCode(), p.stderr.String()
	if code != 1 || strings.Count(output, "\n") != 1 || !strings.Contains(output, want) {
		t.Errorf("exit code %d, wanted one line with %q, got:\n%s", code, want, output)
	}
	if strings.Contains(output, testPassword) || strings.Contains(output, "guessed") {
		t.Errorf("tells a password: %s", output)
	}
}

func TestStoppedWhileWaitingForPostgres(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	nobody, err := reserveLoopback()
	if err != nil {
		t.Fatal(err)
	}
	health, err := reserveLoopback()
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, postgres.environment(),
		"TEMPORAL_DATABASE_URL=postgres://temporal@"+nobody.dial+"/temporal", "TEMPORAL_HEALTH_ADDRESS="+health.dial)
	p.HealthAddress = health.dial
	eventually(ctx, t, func() error {
		code, report := p.health("/actuator/health")
		if code != http.StatusServiceUnavailable || report.Components["process"].Detail != "preparing databases" {
			return fmt.Errorf("health is %d %+v", code, report)
		}
		return nil
	})
	if code, _ := p.health("/actuator/health/liveness"); code != http.StatusOK {
		t.Errorf("liveness is %d while starting", code)
	}
	p.stop()
}
