package temporaltest

import (
	"time"

	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
)

// Workflow is the SDK's environment for one workflow. A workflow that does not yield for a second is no deadlock there: on a machine that is
// busy with other tests it has not had its turn.
func Workflow() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	return suite.NewTestWorkflowEnvironment().SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
}
