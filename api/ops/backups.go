package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/school-sms/sms/api/server"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

var backups = kind{kind: operation.Backup, path: base + "/backups", one: "backup", many: "backups", also: []operation.Kind{operation.RestoreDrill, operation.Retention}}

func (s *Service) mountBackups(srv *server.Server) {
	s.mountKind(srv, backups)
	s.mountRecovery(srv)
	server.Register(srv, server.Operation{ID: "start-backup", Method: http.MethodPost, Path: backups.path, Status: http.StatusAccepted,
		Summary: "Back up a database, and prove the backup by a restore", Roles: writers, Errors: []int{http.StatusConflict}}, s.startBackup)
	server.Register(srv, server.Operation{ID: "verify-backup", Method: http.MethodPost, Path: backups.path + "/{id}/verify", Status: http.StatusAccepted,
		Summary: "Prove a backup again by a restore into a scratch database", Roles: writers,
		Errors: []int{http.StatusNotFound, http.StatusConflict}}, s.verifyBackup)
	server.Register(srv, server.Operation{ID: "cancel-backup", Method: http.MethodPost, Path: backups.path + "/{id}/cancel", Status: http.StatusAccepted,
		Summary: "End a backup or drill that runs; nothing of it is kept but its record", Roles: writers,
		Errors: []int{http.StatusNotFound, http.StatusConflict}},
		func(ctx context.Context, in *oneInput) (*operationOutput, error) {
			return s.cancel(ctx, in.ID, operation.Backup, operation.RestoreDrill)
		})
}

type startBackupInput struct {
	Body struct {
		Database string `json:"database" example:"student_db"`
	}
}

func (s *Service) startBackup(ctx context.Context, in *startBackupInput) (*startedOutput, error) {
	database := in.Body.Database
	if _, known := s.cfg.Databases.Find(database); !known {
		return nil, unknown("database", database, s.cfg.Databases.Names())
	}
	holder, err := s.store.Holder(ctx, database)
	if err != nil {
		return nil, err
	}
	if holder != nil {
		if err := s.refuse(ctx, *holder); err != nil {
			return nil, err
		}
	}
	user := identity.FromContext(ctx).User
	return s.start(ctx, request{
		kind: operation.Backup, workflowID: backup.WorkflowID(database, s.now()), workflow: backup.Backup,
		input: backup.Input{Database: database, StartedBy: user}, summary: "Backup of " + database, subject: database, startedBy: user,
	}, backups.path)
}

func (s *Service) verifyBackup(ctx context.Context, in *oneInput) (*startedOutput, error) {
	record, err := s.find(ctx, in.ID, operation.Backup)
	if err != nil {
		return nil, err
	}
	if !record.Ended() {
		return nil, server.Conflict("backup " + record.ID + " still runs, and will be proven as its last step")
	}
	if record.State == engine.StateDeleted {
		return nil, server.Conflict("backup " + record.ID + " is deleted: " + record.Summary)
	}
	var result operation.Result
	var outcome backup.Outcome
	if json.Unmarshal(record.Result, &result) == nil && len(result.Outcome) > 0 {
		_ = json.Unmarshal(result.Outcome, &outcome) // what cannot be read names no archive
	}
	if outcome.Stored == nil {
		return nil, server.Conflict("backup " + record.ID + " has stored nothing that could be restored")
	}
	user := identity.FromContext(ctx).User
	return s.start(ctx, request{
		kind: operation.RestoreDrill, workflowID: backup.DrillWorkflowID(record.Subject, record.ID), workflow: backup.RestoreDrill,
		input: backup.DrillInput{BackupID: record.ID, Database: record.Subject, Archive: outcome.Stored.Archive,
			SHA256: outcome.Stored.SHA256, StartedBy: user},
		summary: "Drill of backup " + record.ID + " of " + record.Subject, subject: record.Subject, startedBy: user,
	}, backups.path)
}

// unknown is the problem of a name that is not configured.
func unknown(field, name string, known []string) error {
	return server.Invalid(server.Fault{Field: field, Code: "unknown",
		Detail: fmt.Sprintf("there is no %s %q; known are %s", field, name, strings.Join(known, ", "))})
}
