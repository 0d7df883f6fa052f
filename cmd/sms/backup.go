package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/workflows/backup"
)

const backupsPath = "/api/v1/ops/backups"

func newBackupCommand(g *globals) *cobra.Command {
	group := newGroup("backup", "Back databases up, each backup proven by a restore")
	run := &cobra.Command{
		Use: "run DATABASE", Short: "Back up a database", Example: "  sms backup run student_db --wait", Args: usageArgs(cobra.ExactArgs(1)),
	}
	wait := waitFlag(run)
	run.RunE = func(cmd *cobra.Command, args []string) error {
		return g.begin(cmd, backupsPath, map[string]string{"database": args[0]}, *wait, backup.StateVerified)
	}
	verify := &cobra.Command{Use: "verify ID", Short: "Prove a backup again by a restore into a scratch database", Args: usageArgs(cobra.ExactArgs(1))}
	waitVerify := waitFlag(verify)
	verify.RunE = func(cmd *cobra.Command, args []string) error {
		var started ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, backupsPath+"/"+url.PathEscape(args[0])+"/verify", nil, &started); err != nil {
			return err
		}
		return g.begun(cmd, backupsPath, started, *waitVerify, operation.Succeeded)
	}
	group.AddCommand(run, verify, newPruneCommand(g), newRebuildCommand(g),
		newListCommand(g, backupsPath, "List backups, newest first", []string{"ID", "DATABASE", "STATE", "SIZE", "ROWS", "STARTED", "TOOK", ""}, backupRow),
		newShowCommand(g, backupsPath, "Show a backup or a drill"))
	return group
}

func backupRow(o ops.Operation) []string {
	size, rows := "-", "-"
	var out backup.Outcome
	if json.Unmarshal(o.Outcome, &out) == nil && out.Stored != nil {
		size, rows = engine.Size(out.Stored.Bytes), fmt.Sprint(out.Stored.Rows)
	}
	return []string{o.ID, o.Subject, o.State, size, rows, when(o.StartedAt), took(o.StartedAt, o.EndedAt), o.Summary}
}
