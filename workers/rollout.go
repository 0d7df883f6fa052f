package workers

import (
	"go.temporal.io/sdk/worker"

	rolloutacts "github.com/school-sms/sms/activities/rollout"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/target/process"
	rolloutflow "github.com/school-sms/sms/workflows/rollout"
)

// RolloutConfig says where releases run.
type RolloutConfig struct {
	// TargetSocket is the control socket of the `sms up` whose processes are rolled out. Empty: no rollouts here.
	TargetSocket string `env:"TARGET_SOCKET"`
}

// RolloutRegistration adds rollouts on the process target.
func RolloutRegistration(cfg RolloutConfig, registry discovery.Config) Registration {
	return func(w worker.Registry) {
		if cfg.TargetSocket == "" {
			return
		}
		w.RegisterWorkflow(rolloutflow.Rollout)
		w.RegisterActivity(&rolloutacts.Activities{Target: process.NewClient(cfg.TargetSocket), Traffic: discovery.NewClient(registry)})
	}
}
