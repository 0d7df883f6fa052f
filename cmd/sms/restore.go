package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

const restoresPath = "/api/v1/ops/restores"

func newRestoreCommand(g *globals) *cobra.Command {
	group := newGroup("restore", "Bring backups back")
	start := &cobra.Command{
		Use: "start BACKUP", Short: "Restore a backup into a new database, in place, or one table of it",
		Long: "Restore a backup into a new database (--into), in place of the database that it is of (--in-place), or one table of it beside the\n" +
			"one that serves (--table). What comes back is compared with what was backed up before anybody can use it.\n\n" +
			"In place, the database is backed up first and then replaced by a rename; the one before is kept, and you are told how to drop it.\n" +
			"Where ops_db was lost, name the storage (--from) and, on another machine, the key (--key): paths of the worker's machine.",
		Example: "  sms restore start 4g8k2m0x7c --into student_db_monday --wait\n" +
			"  sms restore start 4g8k2m0x7c --in-place --wait\n" +
			"  sms restore start 4g8k2m0x7c --table public.student --wait\n" +
			"  sms restore start 4g8k2m0x7c --from /media/backups --key /media/safe/backup.key --in-place --confirm student_db",
		Args: usageArgs(cobra.ExactArgs(1)),
	}
	var body ops.RestoreBody
	flags := start.Flags()
	flags.StringVar(&body.Into, "into", "", "a new database to restore into")
	flags.BoolVar(&body.InPlace, "in-place", false, "replace the database that the backup is of")
	flags.StringVar(&body.Confirm, "confirm", "", "with --in-place: the database's name again, for scripts; without it you are asked to type it")
	flags.StringVar(&body.Table, "table", "", "one table, schema.name, to restore beside the one that serves")
	flags.BoolVar(&body.NoSafetyBackup, "no-safety-backup", false, "with --in-place: where the database cannot be backed up any more; needs --reason")
	flags.StringVar(&body.Reason, "reason", "", "why there is no safety backup, without anybody's personal data: it stays on record")
	flags.StringVar(&body.From, "from", "", "look for the backup in this folder or s3:// URL, not in the platform's own storage")
	flags.StringVar(&body.KeyFile, "key", "", "file with the age identities to read the backup with, instead of the platform's own")
	wait := waitFlag(start)
	start.RunE = func(cmd *cobra.Command, args []string) error {
		body.Backup = args[0]
		if err := completeRestore(cmd, &body); err != nil {
			return err
		}
		var started ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, restoresPath, body, &started); err != nil {
			return err
		}
		return g.begun(cmd, restoresPath, started, *wait, operation.Succeeded)
	}
	group.AddCommand(start,
		newListCommand(g, restoresPath, "List restores, newest first", []string{"ID", "INTO", "STATE", "ROWS", "STARTED", "TOOK", ""}, restoreRow),
		newShowCommand(g, restoresPath, "Show a restore, and what it left to do"))
	return group
}

// completeRestore asks for the confirmation that is missing, and makes paths absolute: the worker has another folder.
func completeRestore(cmd *cobra.Command, body *ops.RestoreBody) (err error) {
	if body.InPlace && !cmd.Flags().Changed("confirm") {
		body.Confirm, err = ask(cmd, "A database will be replaced by what the backup holds. Type the database's name: ")
		if err != nil {
			return err
		}
		if body.Confirm == "" {
			return usageError{errors.New("the database's name was not confirmed; nothing was changed")}
		}
	}
	for _, path := range []*string{&body.From, &body.KeyFile} {
		if *path == "" || strings.Contains(*path, "://") {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

func restoreRow(o ops.Operation) []string {
	rows := "-"
	var out backup.RestoreOutcome
	if json.Unmarshal(o.Outcome, &out) == nil && out.Put != nil {
		rows = fmt.Sprint(out.Rows)
	}
	return []string{o.ID, o.Subject, o.State, rows, when(o.StartedAt), took(o.StartedAt, o.EndedAt), o.Summary}
}

// restoreToDo is what a restore has left to the operator.
func restoreToDo(o ops.Operation) []string {
	var out backup.RestoreOutcome
	if o.Kind != string(operation.Restore) || json.Unmarshal(o.Outcome, &out) != nil {
		return nil
	}
	return out.ToDo
}
