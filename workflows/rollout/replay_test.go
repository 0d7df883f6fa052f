package rollout_test

import (
	"testing"

	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/rollout"
)

// The histories are those of real runs, recorded with `go test ./test/e2e -run TestWalk -record`.
func TestRecordedHistoriesReplay(t *testing.T) {
	t.Parallel()
	temporaltest.Replay(t, "testdata", rollout.Rollout)
}
