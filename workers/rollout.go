package workers

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	rolloutacts "github.com/school-sms/sms/activities/rollout"
	smoketestacts "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/rollout"
	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/target/process"
	"github.com/school-sms/sms/internal/temporalclient"
	rolloutflow "github.com/school-sms/sms/workflows/rollout"
)

// RolloutConfig says where releases run, and how they are watched.
type RolloutConfig struct {
	// TargetSocket is the control socket of the `sms up` whose processes are rolled out. Empty: no rollouts here.
	TargetSocket string `env:"TARGET_SOCKET"`
	// User is who the registry knows the worker as: the user of the token in DISCOVERY_TOKEN_FILE. Splits of other users are theirs.
	User string `env:"ROLLOUT_USER" envDefault:"ops-worker"`
	// ScheduleJanitor is when what terminated rollouts have left is put back: five-field cron.
	ScheduleJanitor string `env:"SCHEDULE_ROLLOUT_JANITOR" envDefault:"*/2 * * * *"`
	// ProveIn is the environment that must run a release, at the end of a rollout that went well, before production may. Empty: none.
	ProveIn string `env:"ROLLOUT_PROVE_IN"`
	// Freezes is a YAML file that lists when nothing new is rolled out. Empty: there is no such time.
	Freezes rolloutacts.FreezesFile `env:"ROLLOUT_FREEZES_FILE"`
	// Prometheus answers the queries of rules.
	Prometheus rolloutacts.Prometheus
	// Probes is how many requests of its own a rollout sends each second to the new release and to the stable one while it watches, so
	// that there is something to judge by without users. 0: none.
	Probes int `env:"ROLLOUT_PROBES_PER_SECOND" envDefault:"20"`
	// ProbeTimeout bounds each of them.
	ProbeTimeout time.Duration `env:"ROLLOUT_PROBE_TIMEOUT" envDefault:"5s"`
	// MetricsTimeout bounds the reading of one gateway's metrics.
	MetricsTimeout time.Duration `env:"ROLLOUT_METRICS_TIMEOUT" envDefault:"3s"`
}

// maxProbes each second; gateways limit what one user may ask.
const maxProbes = 200

// Check names every fault.
func (c RolloutConfig) Check() error {
	var faults []error
	if c.Probes < 0 || c.Probes > maxProbes {
		faults = append(faults, errors.New("ROLLOUT_PROBES_PER_SECOND must be from 0 to 200"))
	}
	if c.ProbeTimeout <= 0 || c.MetricsTimeout <= 0 {
		faults = append(faults, errors.New("ROLLOUT_PROBE_TIMEOUT and ROLLOUT_METRICS_TIMEOUT must be above zero"))
	}
	if _, err := schedule.ParseCron(c.ScheduleJanitor); err != nil {
		faults = append(faults, fmt.Errorf("SCHEDULE_ROLLOUT_JANITOR: %w", err))
	}
	if _, err := c.Freezes.Read(); err != nil {
		faults = append(faults, fmt.Errorf("ROLLOUT_FREEZES_FILE: %w", err))
	}
	return errors.Join(append(faults, c.Prometheus.Check())...)
}

// RolloutRegistration adds rollouts on the process target.
func RolloutRegistration(cfg RolloutConfig, registry discovery.Config, smoke smoketestacts.Config, backups backup.Config, store *operation.Store, temporal client.Client,
	liveness temporalclient.Liveness) Registration {
	return func(w worker.Registry) {
		if cfg.TargetSocket == "" {
			return
		}
		w.RegisterWorkflow(rolloutflow.Rollout)
		w.RegisterWorkflow(rolloutflow.RolloutPlan)
		w.RegisterWorkflow(rolloutflow.Preview)
		w.RegisterWorkflow(rolloutflow.Janitor)
		w.RegisterActivity(&rolloutacts.Activities{
			Target: process.NewClient(cfg.TargetSocket), Traffic: discovery.NewClient(registry), User: cfg.User, ProveIn: cfg.ProveIn,
			Temporal: temporal, Freezes: cfg.Freezes, Prometheus: cfg.Prometheus,
			HTTP: &http.Client{Timeout: cfg.MetricsTimeout}, Promotions: store,
			BackedUp: backups.Databases.Names(), Backups: store, Liveness: liveness,
			Probes: rolloutacts.Probes{Door: smoke.Gateways.URL, TokenFile: smoke.TokenFile, PerSecond: cfg.Probes, Timeout: cfg.ProbeTimeout},
		})
	}
}

// janitorSchedule puts back what terminated rollouts have left.
func janitorSchedule(cfg RolloutConfig, zone string) (schedule.Definition, error) {
	cron, err := schedule.ParseCron(cfg.ScheduleJanitor)
	return schedule.Definition{
		ID: rolloutflow.JanitorID, Cron: cron, Zone: zone, WorkflowID: rolloutflow.JanitorID, Workflow: rolloutflow.Janitor,
		Input:   rolloutflow.JanitorInput{Environments: rollout.Environments(), Services: rollout.Services()},
		Summary: "Put back what terminated rollouts have left",
	}, err
}
