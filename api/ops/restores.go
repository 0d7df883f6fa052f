package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/school-sms/sms/activities/backup"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/storage"

	engine "github.com/school-sms/sms/internal/backup"
	workflows "github.com/school-sms/sms/workflows/backup"
)

var restores = kind{kind: operation.Restore, path: base + "/restores", one: "restore", many: "restores"}

func (s *Service) mountRestores(srv *server.Server) {
	s.mountKind(srv, restores)
	server.Register(srv, server.Operation{ID: "start-restore", Method: http.MethodPost, Path: restores.path, Status: http.StatusAccepted,
		Summary: "Restore a backup into a new database, in place of the one that it is of, or one table of it", Roles: writers,
		Errors: []int{http.StatusForbidden, http.StatusNotFound, http.StatusConflict}}, s.startRestore)
}

// RestoreBody says what to restore. Exactly one of Into, InPlace and Table is given.
type RestoreBody struct {
	Backup  string `json:"backup" minLength:"1" maxLength:"64" doc:"The backup's id, or as much of its beginning as tells it from others." example:"4g8k2m0x7c"`
	Into    string `json:"into,omitempty" doc:"A new database to restore into." example:"student_db_monday"`
	InPlace bool   `json:"inPlace,omitempty" doc:"Replace the database that the backup is of. The one before is kept under another name."`
	Confirm string `json:"confirm,omitempty" doc:"With inPlace: the name of the database that is replaced, typed again." example:"student_db"`
	Table   string `json:"table,omitempty" doc:"One table, schema.name, to restore beside the one in the database that the backup is of." example:"public.student"`

	NoSafetyBackup bool   `json:"noSafetyBackup,omitempty" doc:"With inPlace: no backup of what is replaced. Refused where that can be backed up."`
	Reason         string `json:"reason,omitempty" maxLength:"500" doc:"With noSafetyBackup: why. No personal data: it stays on record."`

	From    string `json:"from,omitempty" doc:"Look for the backup in this storage, a folder of the worker's machine or an s3:// URL, instead of the platform's own. Admins only."`
	KeyFile string `json:"keyFile,omitempty" doc:"A file of the worker's machine with the age identities to read the backup with. Admins only." example:"/media/safe/backup.key"`
}

type startRestoreInput struct{ Body RestoreBody }

func (s *Service) startRestore(ctx context.Context, in *startRestoreInput) (*startedOutput, error) {
	caller := identity.FromContext(ctx)
	if (in.Body.From != "" || in.Body.KeyFile != "") && caller.Role != identity.Admin {
		return nil, server.Forbidden("only an admin may name a storage or a key file: the worker reads there")
	}
	if faults := checkRestore(in.Body); len(faults) > 0 {
		return nil, server.Invalid(faults...)
	}
	request := backup.RestoreRequest{Backup: in.Body.Backup, From: in.Body.From, KeyFile: in.Body.KeyFile, Into: in.Body.Into,
		Table: in.Body.Table, NoSafetyBackup: in.Body.NoSafetyBackup, Reason: in.Body.Reason}
	if in.Body.InPlace {
		request.InPlaceOf = in.Body.Confirm
	}
	if request.From == "" {
		if err := s.knownBackup(ctx, &request); err != nil {
			return nil, err
		}
	}
	if request.InPlaceOf != "" {
		if _, known := s.cfg.Databases.Find(request.InPlaceOf); !known {
			return nil, unknown("confirm", request.InPlaceOf, s.cfg.Databases.Names())
		}
	}
	input := workflows.RestoreInput{RestoreRequest: request, StartedBy: caller.User}
	return s.start(ctx, restoreRequest(input), restores.path)
}

func restoreRequest(in workflows.RestoreInput) request {
	return request{kind: operation.Restore, workflowID: workflows.RestoreWorkflowID(in), workflow: workflows.Restore, input: in,
		summary: "Restore of backup " + in.Backup + " into " + in.Target(), subject: in.Target(), startedBy: in.StartedBy}
}

// knownBackup completes the id of a backup on record, and refuses what is known to be in vain.
func (s *Service) knownBackup(ctx context.Context, request *backup.RestoreRequest) error {
	record, err := s.store.Get(ctx, request.Backup, operation.Backup)
	switch {
	case errors.Is(err, operation.ErrNotFound):
		return server.NotFound(fmt.Sprintf("there is no backup %q on record; where ops_db was lost, name the storage that it lies in (--from)", request.Backup))
	case errors.Is(err, operation.ErrAmbiguous):
		return server.Conflict(operation.ErrAmbiguous.Error())
	case err != nil:
		return err
	}
	var result operation.Result
	var outcome workflows.Outcome
	if json.Unmarshal(record.Result, &result) == nil && len(result.Outcome) > 0 {
		_ = json.Unmarshal(result.Outcome, &outcome) // what cannot be read names no archive
	}
	if outcome.Stored == nil {
		return server.Conflict("backup " + record.ID + " has stored nothing that could be restored")
	}
	if request.InPlaceOf != "" && request.InPlaceOf != record.Subject {
		return server.Invalid(server.Fault{Field: "confirm", Code: "mismatch",
			Detail: fmt.Sprintf("backup %s is of %s: to replace that, type its name; to restore it elsewhere, restore into a new database", record.ID, record.Subject)})
	}
	request.Backup = record.ID
	return nil
}

// tableName is a table as it is asked for.
var tableName = regexp.MustCompile(`^[^."\s]{1,63}\.[^."\s]{1,63}$`)

// checkRestore names every fault of a request.
func checkRestore(in RestoreBody) (faults []server.Fault) {
	fault := func(field, code, detail string) {
		faults = append(faults, server.Fault{Field: field, Code: code, Detail: detail})
	}
	given := 0
	for _, is := range []bool{in.Into != "", in.InPlace, in.Table != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		fault("into", "required", "say where to: exactly one of into (a new database), inPlace and table")
	}
	if in.Into != "" && !engine.DatabaseName.MatchString(in.Into) {
		fault("into", "wrong-format", "a database's name has lower-case letters, digits and _, begins with a letter, and is at most 63 long")
	}
	if in.Table != "" && !tableName.MatchString(in.Table) {
		fault("table", "wrong-format", "name the table with its schema, such as public.student")
	}
	switch {
	case in.InPlace && in.Confirm == "":
		fault("confirm", "required", "type the name of the database that is replaced")
	case in.InPlace && engine.HoldsRestores(in.Confirm):
		fault("confirm", "refused", in.Confirm+" holds this restore itself while it runs: restore it into a new database, or stop the platform and "+
			"follow docs/runbooks/restore-by-hand.md")
	case !in.InPlace && in.Confirm != "":
		fault("confirm", "superfluous", "only a restore in place is confirmed")
	}
	switch {
	case in.NoSafetyBackup && !in.InPlace:
		fault("noSafetyBackup", "superfluous", "only a restore in place makes a safety backup")
	case in.NoSafetyBackup && strings.TrimSpace(in.Reason) == "":
		fault("reason", "required", "say why there is to be no safety backup")
	}
	if in.From != "" {
		if at, err := storage.ParseLocation(in.From); err != nil {
			fault("from", "wrong-format", err.Error())
		} else if at.S3 == nil && !filepath.IsAbs(at.Folder) {
			fault("from", "wrong-format", "must be an absolute path, or an s3:// URL")
		}
	}
	if in.KeyFile != "" && !filepath.IsAbs(in.KeyFile) {
		fault("keyFile", "wrong-format", "must be an absolute path")
	}
	return faults
}
