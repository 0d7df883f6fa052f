package workers

import (
	"log/slog"

	"go.temporal.io/sdk/worker"

	backupacts "github.com/school-sms/sms/activities/backup"
	operationacts "github.com/school-sms/sms/activities/operation"
	smoketestacts "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/discovery"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/storage"
	"github.com/school-sms/sms/internal/temporalclient"
	backupflow "github.com/school-sms/sms/workflows/backup"
	smoketestflow "github.com/school-sms/sms/workflows/smoketest"
)

// RecordRegistration adds the activities that keep records, which every workflow uses.
func RecordRegistration(store *operation.Store, liveness temporalclient.Liveness) Registration {
	return func(r worker.Registry) {
		r.RegisterActivity(&operationacts.Activities{Store: store, Liveness: liveness})
	}
}

// SmokeTestRegistration adds smoke tests.
func SmokeTestRegistration(cfg smoketestacts.Config) Registration {
	return func(r worker.Registry) {
		r.RegisterWorkflow(smoketestflow.SmokeTest)
		r.RegisterActivity(&smoketestacts.Activities{Config: cfg})
	}
}

// NewBackupActivities are those of backups and drills.
func NewBackupActivities(cfg backup.Config, store *operation.Store, liveness temporalclient.Liveness, running *backupacts.Running, log *slog.Logger) (*backupacts.Activities, error) {
	kept, err := storage.Open(cfg.Storage)
	if err != nil {
		return nil, err
	}
	second, err := storage.OpenCopy(cfg.Storage)
	if err != nil {
		return nil, err
	}
	return &backupacts.Activities{Sources: cfg.Databases, Tools: cfg.Tools(), Store: kept, Copy: second, Storage: cfg.Storage, Policy: cfg.Retention,
		Operations: store, Liveness: liveness, Slots: make(chan struct{}, cfg.Parallel), Running: running, Log: log}, nil
}

// BackupRegistration adds backups, drills, restores and retention.
func BackupRegistration(acts *backupacts.Activities) Registration {
	return func(r worker.Registry) {
		r.RegisterWorkflow(backupflow.Backup)
		r.RegisterWorkflow(backupflow.RestoreDrill)
		r.RegisterWorkflow(backupflow.Restore)
		r.RegisterWorkflow(backupflow.Retention)
		r.RegisterActivity(acts)
	}
}

// Schedules are those that the platform makes: a backup of every database each night, a smoke test of production each hour.
func Schedules(cfg Config, backups backup.Config, smoke smoketestacts.Config, rollouts RolloutConfig) ([]schedule.Definition, error) {
	nightly, err := schedule.ParseCron(cfg.ScheduleBackup)
	if err != nil {
		return nil, err
	}
	hourly, err := schedule.ParseCron(cfg.ScheduleSmoke)
	if err != nil {
		return nil, err
	}
	var all []schedule.Definition
	for _, database := range backups.Databases.Names() {
		id := backupflow.ScheduleID(database)
		all = append(all, schedule.Definition{
			ID: id, Cron: nightly, Zone: cfg.ScheduleTimezone, WorkflowID: backupflow.ScheduledWorkflowID(database),
			Workflow: backupflow.Backup, Input: backupflow.Input{Database: database, StartedBy: "schedule " + id},
			Summary: "Nightly backup of " + database,
		})
	}
	if _, ok := smoke.Gateways.URL(discovery.Production); ok {
		id := smoketestflow.ScheduleID(discovery.Production)
		all = append(all, schedule.Definition{
			ID: id, Cron: hourly, Zone: cfg.ScheduleTimezone, WorkflowID: smoketestflow.ScheduledWorkflowID(discovery.Production),
			Workflow: smoketestflow.SmokeTest,
			Input:    smoketestflow.Input{Input: smoketestacts.Input{Environment: discovery.Production}, StartedBy: "schedule " + id},
			Summary:  "Hourly smoke test of production",
		})
	}
	if rollouts.TargetSocket != "" {
		janitor, err := janitorSchedule(rollouts, cfg.ScheduleTimezone)
		if err != nil {
			return nil, err
		}
		all = append(all, janitor)
	}
	return all, nil
}
