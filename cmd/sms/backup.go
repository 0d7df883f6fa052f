package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

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
	cancel := &cobra.Command{Use: "cancel ID", Short: "End a backup or drill that runs; nothing of it is kept but its record", Args: usageArgs(cobra.ExactArgs(1))}
	waitCancel := waitFlag(cancel)
	cancel.RunE = func(cmd *cobra.Command, args []string) error {
		var asked ops.Operation
		if err := g.call(cmd.Context(), http.MethodPost, backupsPath+"/"+url.PathEscape(args[0])+"/cancel", nil, &asked); err != nil {
			return err
		}
		if *waitCancel {
			return g.wait(cmd, backupsPath+"/"+asked.ID, operation.Cancelled)
		}
		return g.print(cmd, asked, func(t *table) {
			t.row(fmt.Sprintf("%s %s of %s is asked to end", asked.Kind, asked.ID, asked.Subject))
		})
	}
	group.AddCommand(run, verify, cancel, newKeyCommand(), newBackupStatusCommand(g), newPruneCommand(g), newRebuildCommand(g),
		newListCommand(g, backupsPath, "List backups, newest first", backupHead, backupRow),
		newShowCommand(g, backupsPath, "Show a backup or a drill"))
	return group
}

var backupHead = []string{"ID", "DATABASE", "AGE", "STATE", "SIZE", "RATIO", "KEY", "WHY"}

// backupRow says why a backup is kept or will be deleted, or, of one that is not verified, how it ended.
func backupRow(o ops.Operation) []string {
	size, ratio, key := "-", "-", "-"
	var out backup.Outcome
	if json.Unmarshal(o.Outcome, &out) == nil && out.Stored != nil {
		size, key = engine.Size(out.Stored.Bytes), keyOf(out.Stored.Recipients)
		if out.Stored.Bytes > 0 {
			ratio = fmt.Sprintf("%.1f", float64(out.Stored.DumpBytes)/float64(out.Stored.Bytes))
		}
	}
	why := o.Summary
	if o.Kept != nil && (o.State == backup.StateVerified || o.State == backup.StateStored) {
		why = o.Kept.Reason
		if !o.Kept.Keep {
			why = "goes: " + why
		}
	}
	return []string{o.ID, o.Subject, ops.Age(time.Since(o.StartedAt)), o.State, size, ratio, key, why}
}

// keyOf is enough of the first key's fingerprint to know it by, and how many further keys there are.
func keyOf(recipients []string) string {
	const enough = 8
	switch len(recipients) {
	case 0:
		return "none"
	case 1:
		return recipients[0][:min(enough, len(recipients[0]))]
	}
	return fmt.Sprintf("%s +%d", keyOf(recipients[:1]), len(recipients)-1)
}

// newBackupStatusCommand tells what could be had back.
func newBackupStatusCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how old the newest verified backup of each database is, and how long it takes to get it back",
		Long: "Shows of each database the recovery point (the age of the newest verified backup) and the recovery time (measured by the last drill). " +
			"Exits 1 when one is older than promised (BACKUP_PROMISE).",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found struct {
				Content []ops.Recovery `json:"content"`
			}
			if err := g.call(cmd.Context(), http.MethodGet, backupsPath+"/recovery", nil, &found); err != nil {
				return err
			}
			if err := g.print(cmd, found, func(t *table) { drawRecoveries(t, found.Content) }); err != nil {
				return err
			}
			var overdue []string
			for _, r := range found.Content {
				if r.State == ops.Overdue {
					overdue = append(overdue, r.Database+": "+r.Summary)
				}
			}
			if len(overdue) > 0 {
				return errors.New("overdue: " + strings.Join(overdue, "\n  "))
			}
			return nil
		},
	}
}

func drawRecoveries(t *table, all []ops.Recovery) {
	rows := [][]string{{"DATABASE", "STATE", "RECOVERY POINT", "RECOVERY TIME", "SIZE", "BACKUP", "LAST RUN"}}
	for _, r := range all {
		point, size, id, recovery, last := "none", "-", "-", "-", "never"
		if p := r.Point; p != nil {
			point, size, id = ops.Age(seconds(p.AgeSeconds))+" ago", engine.Size(p.Bytes), p.BackupID
		}
		if r.Time != nil {
			recovery = seconds(r.Time.Seconds).Round(100 * time.Millisecond).String()
		}
		if r.LastRun != nil {
			last = ops.Age(time.Since(r.LastRun.StartedAt)) + " ago: " + r.LastRun.State
		}
		rows = append(rows, []string{r.Database, r.State, point, recovery, size, id, last})
	}
	t.fitted(rows)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
