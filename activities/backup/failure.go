package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"go.temporal.io/sdk/temporal"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/storage"
)

// Types of errors that no retry mends.
const (
	UnknownDatabaseType = "UnknownDatabase"
	DamagedType         = "BackupDamaged"
	TamperedType        = "BackupTampered"
	RejectedType        = "BackupRejected"
	DifferentType       = "BackupDifferent"
	SetupType           = "BackupSetup"
	NoKeyType           = "BackupNoKey"
	WrongKeyType        = "BackupWrongKey"
	ServerOlderType     = "ServerOlder"
	ServerNewerType     = "ServerNewer"
	ClientOlderType     = "ClientOlder"
	DiskFullType        = "DiskFull"
	TakenType           = "NameTaken"
	NotFoundType        = "BackupNotFound"
)

// DisprovesBackup reports whether an error says that the backup itself is bad, rather than that it could not be tried.
func DisprovesBackup(err error) bool {
	application, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok {
		return false
	}
	switch application.Type() {
	case DamagedType, TamperedType, RejectedType, DifferentType:
		return true
	}
	return false
}

func unknownDatabase(database string, known []string) error {
	return final(fmt.Sprintf("database %q is not configured for backups; known are %s", database, strings.Join(known, ", ")), UnknownDatabaseType, nil)
}

func noBackup(id string, looked int) error {
	return final(fmt.Sprintf("there is no backup %q among the %d in the storage", id, looked), NotFoundType, nil)
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
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	for _, known := range finals {
		if errors.Is(err, known.err) {
			return final(err.Error(), known.kind, err)
		}
	}
	switch {
	case backup.Refused(err):
		return final(err.Error(), SetupType, err)
	case errors.Is(err, fs.ErrPermission):
		return final(err.Error()+" (the services' account must be able to reach it)", SetupType, err)
	case errors.Is(err, storage.ErrFull), errors.Is(err, syscall.ENOSPC):
		return final("disk full: "+err.Error(), DiskFullType, err)
	}
	return err
}

// finals are the errors of the engine that no retry mends, the more special ones first.
var finals = []struct {
	err  error
	kind string
}{
	{backup.ErrTampered, TamperedType}, {backup.ErrDamaged, DamagedType}, {backup.ErrRejected, RejectedType},
	{backup.ErrNoKey, NoKeyType}, {backup.ErrWrongKey, WrongKeyType},
	{backup.ErrServerOlder, ServerOlderType}, {backup.ErrServerNewer, ServerNewerType}, {backup.ErrClientOlder, ClientOlderType},
	{backup.ErrToolMissing, SetupType}, {backup.ErrRoles, SetupType}, {backup.ErrTaken, TakenType}, {backup.ErrOwnerMissing, SetupType},
	{backup.ErrNoTable, SetupType}, {backup.ErrNoSpace, DiskFullType},
	{storage.ErrDenied, SetupType}, {storage.ErrNoBucket, SetupType}, {storage.ErrUntrusted, SetupType},
}

func final(message, kind string, cause error) error {
	return temporal.NewNonRetryableApplicationError(message, kind, cause)
}
