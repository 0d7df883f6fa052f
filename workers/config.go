// Package workers runs the platform's workflows and activities, and keeps their schedules.
package workers

import (
	"errors"
	"fmt"
	"time"

	"github.com/school-sms/sms/internal/schedule"
)

// Config is what a worker process needs besides what its activities do.
type Config struct {
	// ScheduleTimezone is the zone of the schedules that the worker creates, an IANA name.
	ScheduleTimezone string `env:"SCHEDULE_TIMEZONE" envDefault:"Asia/Kolkata"`
	// ScheduleBackup is when databases are backed up: five-field cron.
	ScheduleBackup string `env:"SCHEDULE_BACKUP" envDefault:"0 2 * * *"`
	// ScheduleSmoke is when production is smoke-tested: five-field cron.
	ScheduleSmoke string `env:"SCHEDULE_SMOKE" envDefault:"15 * * * *"`
	// StopTimeout is how long a stopping worker waits for activities that run; they are told to end at once.
	StopTimeout time.Duration `env:"WORKER_STOP_TIMEOUT" envDefault:"8s"`
}

// Check names every fault.
func (c Config) Check() error {
	var faults []error
	if err := schedule.CheckZone(c.ScheduleTimezone); err != nil {
		faults = append(faults, fmt.Errorf("SCHEDULE_TIMEZONE: %w", err))
	}
	if _, err := schedule.ParseCron(c.ScheduleBackup); err != nil {
		faults = append(faults, fmt.Errorf("SCHEDULE_BACKUP: %w", err))
	}
	if _, err := schedule.ParseCron(c.ScheduleSmoke); err != nil {
		faults = append(faults, fmt.Errorf("SCHEDULE_SMOKE: %w", err))
	}
	return errors.Join(faults...)
}
