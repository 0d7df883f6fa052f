package rollout

import (
	"context"

	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/target"
)

// UnprovenType: staging does not run the release that is to go to production.
const UnprovenType = "Unproven"

// NoneGoodType: there is no earlier release that is known to be good.
const NoneGoodType = "NoneGood"

// Promotions remember which releases have become stable.
type Promotions interface {
	Promote(ctx context.Context, p rollout.Promotion) error
	// Promotions begin with the oldest.
	Promotions(ctx context.Context, environment, service string) ([]rollout.Promotion, error)
}

// PromoteRelease remembers that a release is known to be good.
func (a *Activities) PromoteRelease(ctx context.Context, p rollout.Promotion) error {
	return a.Promotions.Promote(ctx, p)
}

// CurrentInput is a service and the release that it runs.
type CurrentInput struct {
	Service
	Release string
}

// FindLastGood returns the digest of the release to go back to. It fails with NoneGoodType when none is known.
func (a *Activities) FindLastGood(ctx context.Context, in CurrentInput) (string, error) {
	history, err := a.Promotions.Promotions(ctx, in.Environment, in.Service.Service)
	if err != nil {
		return "", err
	}
	good := rollout.LastGood(history, in.Release)
	if good == "" {
		return "", temporal.NewNonRetryableApplicationError("no earlier release is known to be good: start a rollout of the one that you want", NoneGoodType, nil)
	}
	return good, nil
}

// ProveRelease fails with UnprovenType when a release must be proven by another environment, and is not. Otherwise it says what proves it.
func (a *Activities) ProveRelease(ctx context.Context, in CurrentInput) (string, error) {
	if a.ProveIn == "" || !rollout.Runs(a.ProveIn, in.Service.Service) {
		return "no environment is there to prove it", nil
	}
	history, err := a.Promotions.Promotions(ctx, a.ProveIn, in.Service.Service)
	if err != nil {
		return "", err
	}
	observed, err := a.Target.Status(ctx, a.ProveIn, in.Service.Service)
	if err != nil {
		return "", err
	}
	by, why := rollout.Proven(history, observed.Tracks[target.Stable].Release, in.Release)
	if why != "" {
		return "", temporal.NewNonRetryableApplicationError(why+": roll it out there first, or say why that is not needed", UnprovenType, nil)
	}
	return "rollout " + by.Operation, nil
}
