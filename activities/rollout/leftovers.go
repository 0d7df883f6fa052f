package rollout

import (
	"context"
	"errors"

	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/target"
)

// FindLeftovers reports whether a rollout of the service is under way, or has left instances or a split behind: there is a canary
// track, or a split that was set by a rollout. One that a person has set is not a rollout's.
func (a *Activities) FindLeftovers(ctx context.Context, in Service) (bool, error) {
	observed, err := a.Target.Status(ctx, in.Environment, in.Service)
	if errors.Is(err, target.ErrNotFound) {
		return false, nil // the environment or the service is not run here
	}
	if err != nil {
		return false, err
	}
	if _, canary := observed.Tracks[target.Canary]; canary {
		return true, nil
	}
	split, err := a.Traffic.SplitState(ctx, discovery.App(in.Service, in.Environment))
	return len(split.Split) > 0 && split.UpdatedBy == a.User, err
}
