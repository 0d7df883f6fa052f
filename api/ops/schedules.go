package ops

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/schedule"
	"github.com/school-sms/sms/internal/temporalclient"
	"github.com/school-sms/sms/workflows/backup"
	"github.com/school-sms/sms/workflows/smoketest"
)

// Schedule says when an operation starts by itself.
type Schedule struct {
	ID       string      `json:"id" example:"backup-student_db-nightly"`
	Cron     string      `json:"cron" doc:"Minute, hour, day of month, month, day of week. Empty when it was changed in Temporal to what cron cannot say." example:"0 2 * * *"`
	Timezone string      `json:"timezone" example:"Asia/Kolkata"`
	Paused   bool        `json:"paused"`
	Note     string      `json:"note,omitempty" doc:"Who changed it last, and how."`
	Runs     int         `json:"runs" doc:"How often it has started its operation."`
	Missed   int         `json:"missed" doc:"How often it could not, and was more than 12 hours late."`
	LastRun  *time.Time  `json:"lastRun,omitempty"`
	NextRuns []time.Time `json:"nextRuns" nullable:"false" doc:"Empty while it is paused."`
}

const schedules = base + "/schedules"

// nextRuns is how many runs Temporal tells in advance.
const nextRuns = 10

func (s *Service) mountSchedules(srv *server.Server) {
	one := schedules + "/{id}"
	missing := []int{http.StatusNotFound}
	server.Register(srv, server.Operation{ID: "list-schedules", Method: http.MethodGet, Path: schedules,
		Summary: "List the schedules", Roles: readers}, s.listSchedules)
	server.Register(srv, server.Operation{ID: "get-schedule", Method: http.MethodGet, Path: one,
		Summary: "Read a schedule", Roles: readers, Errors: missing}, s.getSchedule)
	server.Register(srv, server.Operation{ID: "replace-schedule", Method: http.MethodPut, Path: one,
		Summary: "Change when a schedule runs, pause it or resume it", Roles: writers, Errors: missing}, s.putSchedule)
	server.Register(srv, server.Operation{ID: "next-runs", Method: http.MethodGet, Path: one + "/next",
		Summary: "Tell the next runs of a schedule", Roles: readers, Errors: missing}, s.nextRuns)
}

// ScheduleInput names a schedule. It is exported because huma looks into exported fields only.
type ScheduleInput struct {
	ID string `path:"id" maxLength:"100" example:"backup-student_db-nightly"`
}

type scheduleOutput struct{ Body Schedule }

type schedulesOutput struct {
	Body struct {
		Content []Schedule `json:"content" nullable:"false"`
	}
}

// ids are the schedules that the platform makes.
func (s *Service) ids() []string {
	var ids []string
	for _, database := range s.cfg.Databases.Names() {
		ids = append(ids, backup.ScheduleID(database))
	}
	for _, environment := range s.cfg.Gateways.Names() {
		ids = append(ids, smoketest.ScheduleID(environment))
	}
	slices.Sort(ids)
	return ids
}

func (s *Service) listSchedules(ctx context.Context, _ *struct{}) (*schedulesOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	out := &schedulesOutput{}
	out.Body.Content = []Schedule{}
	for _, id := range s.ids() {
		described, err := s.temporal.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
		if temporalclient.NotFound(err) {
			continue // not made by a worker yet, or removed by an operator
		}
		if err != nil {
			return nil, temporalProblem(fmt.Errorf("describe schedule %s: %w", id, err))
		}
		out.Body.Content = append(out.Body.Content, presentSchedule(id, described))
	}
	return out, nil
}

func (s *Service) getSchedule(ctx context.Context, in *ScheduleInput) (*scheduleOutput, error) {
	described, err := s.describe(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &scheduleOutput{Body: presentSchedule(in.ID, described)}, nil
}

func (s *Service) describe(ctx context.Context, id string) (*client.ScheduleDescription, error) {
	if !slices.Contains(s.ids(), id) {
		return nil, server.NotFound(fmt.Sprintf("there is no schedule %q", id))
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	described, err := s.temporal.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
	if temporalclient.NotFound(err) {
		return nil, server.NotFound(fmt.Sprintf("schedule %q has not been made by a worker yet", id))
	}
	if err != nil {
		return nil, temporalProblem(fmt.Errorf("describe schedule %s: %w", id, err))
	}
	return described, nil
}

type putScheduleInput struct {
	ScheduleInput
	Body struct {
		Cron     string `json:"cron" doc:"Five fields." example:"0 2 * * *"`
		Timezone string `json:"timezone" doc:"An IANA name." example:"Asia/Kolkata"`
		Paused   bool   `json:"paused"`
	}
}

func (s *Service) putSchedule(ctx context.Context, in *putScheduleInput) (*scheduleOutput, error) {
	cron, err := schedule.ParseCron(in.Body.Cron)
	var faults []server.Fault
	if err != nil {
		faults = append(faults, server.Fault{Field: "cron", Code: "wrong-format", Detail: err.Error()})
	}
	if err := schedule.CheckZone(in.Body.Timezone); err != nil {
		faults = append(faults, server.Fault{Field: "timezone", Code: "wrong-format", Detail: err.Error()})
	}
	if len(faults) > 0 {
		return nil, server.Invalid(faults...)
	}
	if _, err := s.describe(ctx, in.ID); err != nil {
		return nil, err
	}
	note := changeNote(in.Body.Paused, identity.FromContext(ctx).User, s.now())
	callCtx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	err = s.temporal.ScheduleClient().GetHandle(callCtx, in.ID).Update(callCtx, client.ScheduleUpdateOptions{
		DoUpdate: func(current client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			changed := current.Description.Schedule
			spec := cron.Spec(in.Body.Timezone, s.now())
			changed.Spec = &spec
			changed.State.Paused, changed.State.Note = in.Body.Paused, note
			return &client.ScheduleUpdate{Schedule: &changed}, nil
		},
	})
	if err != nil {
		return nil, temporalProblem(fmt.Errorf("change schedule %s: %w", in.ID, err))
	}
	described, err := s.describe(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &scheduleOutput{Body: presentSchedule(in.ID, described)}, nil
}

func changeNote(paused bool, user string, at time.Time) string {
	did := "set"
	if paused {
		did = "paused"
	}
	return fmt.Sprintf("%s by %s at %s", did, user, at.UTC().Format(time.RFC3339))
}

type nextRunsInput struct {
	ScheduleInput
	Count int `query:"count" minimum:"1" maximum:"10" default:"5"`
}

type nextRunsOutput struct {
	Body struct {
		NextRuns []time.Time `json:"nextRuns" nullable:"false" doc:"Empty while the schedule is paused."`
	}
}

func (s *Service) nextRuns(ctx context.Context, in *nextRunsInput) (*nextRunsOutput, error) {
	described, err := s.describe(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	out := &nextRunsOutput{}
	next := presentSchedule(in.ID, described).NextRuns
	out.Body.NextRuns = next[:min(in.Count, len(next))]
	return out, nil
}

func presentSchedule(id string, described *client.ScheduleDescription) Schedule {
	view := Schedule{ID: id, NextRuns: []time.Time{}, Runs: described.Info.NumActions, Missed: described.Info.NumActionsMissedCatchupWindow}
	if described.Schedule.Spec != nil {
		view.Cron, view.Timezone = schedule.Read(described.Schedule.Spec)
	}
	if state := described.Schedule.State; state != nil {
		view.Paused, view.Note = state.Paused, state.Note
	}
	if recent := described.Info.RecentActions; len(recent) > 0 {
		last := recent[len(recent)-1].ActualTime.UTC()
		view.LastRun = &last
	}
	if !view.Paused {
		next := described.Info.NextActionTimes
		for _, at := range next[:min(nextRuns, len(next))] {
			view.NextRuns = append(view.NextRuns, at.UTC())
		}
	}
	return view
}
