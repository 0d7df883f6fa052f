package ops

import (
	"context"
	"net/http"
	"slices"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

func (s *Service) mountRetention(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "prune-backups", Method: http.MethodPost, Path: backups.path + "/prune", Status: http.StatusAccepted,
		Summary: "Delete the backups that retention does not keep, or only say which", Roles: writers, Errors: []int{http.StatusConflict}}, s.prune)
	server.Register(srv, server.Operation{ID: "rebuild-backups", Method: http.MethodPost, Path: backups.path + "/rebuild", Status: http.StatusAccepted,
		Summary: "Make the records of backups say what the storage says", Roles: writers, Errors: []int{http.StatusConflict}}, s.rebuild)
}

// RetentionBody says whose backups.
type RetentionBody struct {
	Database string `json:"database,omitempty" doc:"Whose backups; of every database if it is left out." example:"student_db"`
}

type pruneInput struct {
	DryRun bool `query:"dryRun" doc:"Only say what would be kept and deleted, and why."`
	Body   RetentionBody
}

type rebuildInput struct{ Body RetentionBody }

// Started are operations that were started together.
type Started struct {
	Content []Operation `json:"content" nullable:"false"`
}

type startedAllOutput struct{ Body Started }

// Kept is whether a backup is kept, and by which rule.
type Kept struct {
	Keep   bool   `json:"keep"`
	Reason string `json:"reason"`
}

// addKept says of backups what the newest retention of their database has decided about them in the first storage.
func (s *Service) addKept(ctx context.Context, all []Operation) error {
	var databases []string
	for _, o := range all {
		if !slices.Contains(databases, o.Subject) {
			databases = append(databases, o.Subject)
		}
	}
	plans, err := s.store.Plans(ctx, databases)
	if err != nil {
		return err
	}
	kept := map[string]*Kept{}
	for _, plan := range plans {
		var out backup.RetentionOutcome
		if !outcomeOf(&plan, &out) || len(out.Storages) == 0 {
			continue
		}
		for _, v := range out.Storages[0].Verdicts {
			kept[v.BackupID] = &Kept{Keep: v.Keep, Reason: v.Reason}
		}
	}
	for i := range all {
		all[i].Kept = kept[all[i].ID]
	}
	return nil
}

func (s *Service) prune(ctx context.Context, in *pruneInput) (*startedAllOutput, error) {
	if in.DryRun {
		return s.startRetentions(ctx, in.Body.Database, backup.DryRun)
	}
	return s.startRetentions(ctx, in.Body.Database, backup.Prune)
}

func (s *Service) rebuild(ctx context.Context, in *rebuildInput) (*startedAllOutput, error) {
	return s.startRetentions(ctx, in.Body.Database, backup.Rebuild)
}

// startRetentions starts one for each database. A conflict names the first whose backups are looked after already; what
// was started before it goes on.
func (s *Service) startRetentions(ctx context.Context, database, do string) (*startedAllOutput, error) {
	databases := s.cfg.Databases.Names()
	if database != "" {
		if _, known := s.cfg.Databases.Find(database); !known {
			return nil, unknown("database", database, databases)
		}
		databases = []string{database}
	}
	user := identity.FromContext(ctx).User
	out := &startedAllOutput{Body: Started{Content: []Operation{}}}
	for _, name := range databases {
		id := backup.RetentionWorkflowID(name)
		if do == backup.DryRun {
			id = backup.DryRunWorkflowID(name, s.now())
		}
		started, err := s.start(ctx, request{
			kind: operation.Retention, workflowID: id, workflow: backup.Retention,
			input: backup.RetentionInput{Database: name, Do: do, StartedBy: user}, summary: "Retention of " + name + ": " + do,
			subject: name, startedBy: user,
		}, backups.path)
		if err != nil {
			return nil, err
		}
		out.Body.Content = append(out.Body.Content, started.Body)
	}
	return out, nil
}
