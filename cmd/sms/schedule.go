package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/api/ops"
)

const schedulesPath = "/api/v1/ops/schedules"

func newScheduleCommand(g *globals) *cobra.Command {
	group := newGroup("schedule", "See and change when operations start by themselves")
	group.AddCommand(newScheduleList(g), newScheduleSet(g), newScheduleNext(g),
		newScheduleRead(g),
		newSchedulePause(g, "pause", "Let a schedule rest until it is resumed", true),
		newSchedulePause(g, "resume", "Let a paused schedule run again", false))
	return group
}

func newScheduleList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the schedules with their next runs", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found struct {
				Content []ops.Schedule `json:"content"`
			}
			if err := g.call(cmd.Context(), http.MethodGet, schedulesPath, nil, &found); err != nil {
				return err
			}
			return g.print(cmd, found, func(t *table) {
				t.row("ID", "CRON", "ZONE", "STATE", "RUNS", "NEXT RUN")
				for _, s := range found.Content {
					t.row(s.ID, s.Cron, s.Timezone, scheduleState(s), fmt.Sprint(s.Runs), nextRun(s))
				}
			})
		},
	}
}

func newScheduleRead(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a schedule", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.schedule(cmd, args[0])
			if err != nil {
				return err
			}
			return g.print(cmd, s, func(t *table) { showSchedule(t, s) })
		},
	}
}

func newScheduleSet(g *globals) *cobra.Command {
	set := &cobra.Command{Use: "set ID", Short: "Change when a schedule runs",
		Example: `  sms schedule set backup-student_db-nightly --cron "30 1 * * *" --timezone Asia/Kolkata`, Args: usageArgs(cobra.ExactArgs(1))}
	cron := set.Flags().String("cron", "", "minute hour day month weekday")
	zone := set.Flags().String("timezone", "", "an IANA time zone, such as Asia/Kolkata")
	set.RunE = func(cmd *cobra.Command, args []string) error {
		if *cron == "" && *zone == "" {
			return usageError{errors.New("give --cron, --timezone or both")}
		}
		return g.changeSchedule(cmd, args[0], func(s *ops.Schedule) {
			s.Cron, s.Timezone = orDefault(*cron, s.Cron), orDefault(*zone, s.Timezone)
		})
	}
	return set
}

func newSchedulePause(g *globals, use, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " ID", Short: short, Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.changeSchedule(cmd, args[0], func(s *ops.Schedule) { s.Paused = paused })
		},
	}
}

func newScheduleNext(g *globals) *cobra.Command {
	next := &cobra.Command{Use: "next ID", Short: "Tell the next runs of a schedule", Args: usageArgs(cobra.ExactArgs(1))}
	count := next.Flags().Int("count", 5, "how many, up to 10")
	next.RunE = func(cmd *cobra.Command, args []string) error {
		var found struct {
			NextRuns []time.Time `json:"nextRuns"`
		}
		path := fmt.Sprintf("%s/%s/next?count=%d", schedulesPath, url.PathEscape(args[0]), *count)
		if err := g.call(cmd.Context(), http.MethodGet, path, nil, &found); err != nil {
			return err
		}
		s, err := g.schedule(cmd, args[0])
		if err != nil {
			return err
		}
		return g.print(cmd, found, func(t *table) {
			if len(found.NextRuns) == 0 {
				t.row("none: the schedule is paused")
			}
			for _, at := range found.NextRuns {
				t.row(whenAt(at, s.Timezone))
			}
		})
	}
	return next
}

func (g *globals) schedule(cmd *cobra.Command, id string) (ops.Schedule, error) {
	var s ops.Schedule
	err := g.call(cmd.Context(), http.MethodGet, schedulesPath+"/"+url.PathEscape(id), nil, &s)
	return s, err
}

// changeSchedule reads a schedule, changes it, and writes it.
func (g *globals) changeSchedule(cmd *cobra.Command, id string, change func(*ops.Schedule)) error {
	s, err := g.schedule(cmd, id)
	if err != nil {
		return err
	}
	change(&s)
	body := map[string]any{"cron": s.Cron, "timezone": s.Timezone, "paused": s.Paused}
	if err := g.call(cmd.Context(), http.MethodPut, schedulesPath+"/"+url.PathEscape(id), body, &s); err != nil {
		return err
	}
	return g.print(cmd, s, func(t *table) { showSchedule(t, s) })
}

func showSchedule(t *table, s ops.Schedule) {
	t.row("schedule", s.ID)
	t.row("cron", s.Cron)
	t.row("zone", s.Timezone)
	t.row("state", scheduleState(s))
	t.row("runs", fmt.Sprintf("%d, %d missed", s.Runs, s.Missed))
	if s.LastRun != nil {
		t.row("last run", whenAt(*s.LastRun, s.Timezone))
	}
	for i, at := range s.NextRuns[:min(5, len(s.NextRuns))] {
		t.row(map[bool]string{true: "next runs", false: ""}[i == 0], whenAt(at, s.Timezone))
	}
	if s.Note != "" {
		t.row("note", s.Note)
	}
}

func scheduleState(s ops.Schedule) string {
	if s.Paused {
		return "paused"
	}
	return "active"
}

func nextRun(s ops.Schedule) string {
	if len(s.NextRuns) == 0 {
		return "-"
	}
	return whenAt(s.NextRuns[0], s.Timezone)
}
