package rollout_test

import (
	"testing"

	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/rollout"
)

// The histories are those of real runs. Each shape that was ever released has some, and those stay: what records new ones is
// `go test ./test/e2e -run 'TestWalk|TestBadReleases|TestPlan|TestMigrations' -args -record NAME`. Those without a name are the first with an
// analysis, and those that begin with unmeasured are from before it.
func TestRecordedHistoriesReplay(t *testing.T) {
	t.Parallel()
	temporaltest.Replay(t, "testdata", rollout.Rollout, rollout.RolloutPlan, rollout.Janitor, rollout.Preview)
}
