package rollout_test

import (
	"testing"

	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/rollout"
)

// The histories are those of real runs, recorded with `go test ./test/e2e -run 'TestWalk|TestBadReleases|TestPlan' -record`; those that begin with
// unmeasured are of rollouts before there was an analysis.
func TestRecordedHistoriesReplay(t *testing.T) {
	t.Parallel()
	temporaltest.Replay(t, "testdata", rollout.Rollout, rollout.RolloutPlan, rollout.Janitor)
}
