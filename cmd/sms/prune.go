package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

func newPruneCommand(g *globals) *cobra.Command {
	prune := &cobra.Command{
		Use: "prune [DATABASE]", Short: "Delete the backups that retention does not keep, or say with --dry-run which and why",
		Long: "Deletes the backups, of one database or of all, that retention does not keep, and proves an old one again. " +
			"This happens by itself after every backup. --dry-run deletes nothing, and shows every backup with the reason why it is kept or not.",
		Example: "  sms backup prune --dry-run\n  sms backup prune student_db --wait", Args: usageArgs(cobra.MaximumNArgs(1)),
	}
	dry := prune.Flags().Bool("dry-run", false, "only show what would be kept and deleted, and why")
	wait := waitFlag(prune)
	prune.RunE = func(cmd *cobra.Command, args []string) error {
		path := backupsPath + "/prune"
		if *dry {
			path += "?dryRun=true"
		}
		return g.retention(cmd, path, args, *wait || *dry)
	}
	return prune
}

func newRebuildCommand(g *globals) *cobra.Command {
	rebuild := &cobra.Command{
		Use: "rebuild [DATABASE]", Short: "Make the list of backups say what the storage holds, after ops_db was lost", Args: usageArgs(cobra.MaximumNArgs(1)),
	}
	wait := waitFlag(rebuild)
	rebuild.RunE = func(cmd *cobra.Command, args []string) error {
		return g.retention(cmd, backupsPath+"/rebuild", args, *wait)
	}
	return rebuild
}

// retention starts retentions and, with wait, shows what they decided and did. It fails if one of them does.
func (g *globals) retention(cmd *cobra.Command, path string, args []string, wait bool) error {
	var body ops.RetentionBody
	if len(args) > 0 {
		body.Database = args[0]
	}
	var started ops.Started
	if err := g.call(cmd.Context(), http.MethodPost, path, body, &started); err != nil {
		return err
	}
	var faults []error
	if wait {
		for i, o := range started.Content {
			w := &watcher{globals: g, out: cmd.ErrOrStderr()}
			ended, err := w.follow(cmd.Context(), backupsPath+"/"+o.ID)
			if err != nil {
				return err
			}
			started.Content[i] = ended
			faults = append(faults, outcome(ended, operation.Succeeded))
		}
	}
	err := g.print(cmd, started, func(t *table) {
		if !wait {
			for _, o := range started.Content {
				t.row(fmt.Sprintf("%s %s of %s is started", o.Kind, o.ID, o.Subject))
			}
			return
		}
		drawRetentions(t, started.Content)
	})
	return errors.Join(append(faults, err)...)
}

func drawRetentions(t *table, all []ops.Operation) {
	head := false
	for _, o := range all {
		var out backup.RetentionOutcome
		if len(o.Outcome) > 0 && json.Unmarshal(o.Outcome, &out) != nil {
			continue
		}
		for _, s := range out.Storages {
			for _, v := range s.Verdicts {
				if !head {
					t.row("DATABASE", "STORAGE", "BACKUP", "STARTED", "STATE", "SIZE", "", "WHY")
					head = true
				}
				t.row(v.Database, s.Storage, v.BackupID, v.StartedAt.UTC().Format(time.RFC3339), v.State, engine.Size(v.Bytes), fate(out, s.Storage, v), v.Reason)
			}
		}
	}
	for _, o := range all {
		t.row(o.Subject + ": " + o.State + ". " + o.Summary)
	}
}

// fate is what has become of a backup, or would.
func fate(out backup.RetentionOutcome, storage string, v engine.Verdict) string {
	if v.Keep {
		return "keep"
	}
	for _, d := range out.Deletions {
		if d.Storage == storage && d.Base == v.Base && d.Why == "" {
			return "deleted"
		}
		if d.Storage == storage && d.Base == v.Base {
			return "left"
		}
	}
	return "delete"
}
