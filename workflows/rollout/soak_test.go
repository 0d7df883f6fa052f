package rollout

import (
	"errors"
	"testing"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
)

func TestOnlyAVerdictIsHeldAgainstTheRelease(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"a broken rule":         {temporal.NewNonRetryableApplicationError("error rate 12 %", "RuleBroken", nil), true},
		"told to end":           {temporal.NewCanceledError(), false},
		"its worker was killed": {temporal.NewTimeoutError(enums.TIMEOUT_TYPE_HEARTBEAT, nil), false},
		"its context has ended": {temporal.NewApplicationErrorWithCause("context canceled", "", errors.New("context canceled")), false},
	} {
		if got := judged(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
