package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/backup"
)

// Types of errors that no retry mends.
const (
	UnknownDatabaseType = "UnknownDatabase"
	DamagedType         = "BackupDamaged"
	RejectedType        = "BackupRejected"
	DifferentType       = "BackupDifferent"
	SetupType           = "BackupSetup"
	DiskFullType        = "DiskFull"
)

// DisprovesBackup reports whether an error says that the backup itself is bad, rather than that it could not be tried.
func DisprovesBackup(err error) bool {
	application, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok {
		return false
	}
	switch application.Type() {
	case DamagedType, RejectedType, DifferentType:
		return true
	}
	return false
}

func unknownDatabase(database string, known []string) error {
	return final(fmt.Sprintf("database %q is not configured for backups; known are %s", database, strings.Join(known, ", ")), UnknownDatabaseType, nil)
}

func manifestChanged() error {
	return final("the backup is damaged: its manifest was changed after it was stored", DamagedType, nil)
}

func different(differences []string) error {
	const most = 5
	shown := strings.Join(differences[:min(most, len(differences))], "; ")
	if more := len(differences) - most; more > 0 {
		shown += fmt.Sprintf("; and %d more", more)
	}
	return final("the restored database differs: "+shown, DifferentType, nil)
}

// failed decides whether an error of the engine may be retried.
func failed(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, backup.ErrDamaged):
		return final(err.Error(), DamagedType, err)
	case errors.Is(err, backup.ErrRejected):
		return final(err.Error(), RejectedType, err)
	case errors.Is(err, backup.ErrToolMissing), errors.Is(err, backup.ErrServerNewer), backup.Refused(err):
		return final(err.Error(), SetupType, err)
	case errors.Is(err, syscall.ENOSPC):
		return final("the disk for backups is full: "+err.Error(), DiskFullType, err)
	}
	return err
}

func final(message, kind string, cause error) error {
	return temporal.NewNonRetryableApplicationError(message, kind, cause)
}
