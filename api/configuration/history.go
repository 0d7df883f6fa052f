package configuration

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
)

// mountHistory adds the reading of past writes.
func (s *service) mountHistory(srv *server.Server) {
	server.Register(srv, server.Operation{ID: "setting-history", Method: http.MethodGet, Path: settings + "/{settingId}/history",
		Summary: "Read the writes of a setting, the newest first; of a removed one too", Errors: []int{http.StatusNotFound}}, s.settingHistory)
	server.Register(srv, server.Operation{ID: "school-profile-history", Method: http.MethodGet, Path: profile + "/history",
		Summary: "Read the writes of the school profile, the newest first"}, s.profileHistory)
}

// History is a part of the writes of one thing, the newest first. The defaults, which came with the database, are no write.
type History[T any] struct {
	Content []Write[T] `json:"content" nullable:"false"`
}

// Write is one write.
type Write[T any] struct {
	Version   int64     `json:"version" doc:"The version that the write made."`
	Action    string    `json:"action" enum:"CREATED,UPDATED,DELETED"`
	ChangedAt time.Time `json:"changedAt"`
	ChangedBy string    `json:"changedBy"`
	RequestID string    `json:"requestId"`
	Before    *T        `json:"before,omitempty" doc:"Absent for the first write."`
	After     *T        `json:"after,omitempty" doc:"Absent for a removal."`
}

// HistoryInput bounds what is read. It is exported because huma looks into exported fields only.
type HistoryInput struct {
	BeforeVersion int64 `query:"beforeVersion" minimum:"0" doc:"Only the writes before this version; 0: all."`
	Size          int   `query:"size" default:"20" minimum:"1" maximum:"100" doc:"The most writes to answer with."`
}

type historyOutput[T any] struct {
	Link string `header:"Link" doc:"The next, older writes, where there are any (RFC 8288, rel=\"next\")."`
	Body History[T]
}

// answerHistory shows entries, of which one more than asked for was read when there are more.
func answerHistory[Image, T any](path string, in HistoryInput, entries []entry[Image], show func(Image) T) *historyOutput[T] {
	out := &historyOutput[T]{Body: History[T]{Content: []Write[T]{}}}
	for i, e := range entries {
		if i == in.Size {
			next := url.Values{"beforeVersion": {strconv.FormatInt(entries[i-1].Version, 10)}, "size": {strconv.Itoa(in.Size)}}
			out.Link = fmt.Sprintf(`<%s?%s>; rel="next"`, path, next.Encode())
			break
		}
		write := Write[T]{Version: e.Version, Action: e.Action, ChangedAt: e.ChangedAt.UTC(), ChangedBy: e.ChangedBy, RequestID: e.RequestID}
		if e.Before != nil {
			before := show(*e.Before)
			write.Before = &before
		}
		if e.After != nil {
			after := show(*e.After)
			write.After = &after
		}
		out.Body.Content = append(out.Body.Content, write)
	}
	return out
}

type settingHistoryInput struct {
	SettingInput
	HistoryInput
}

func (s *service) settingHistory(ctx context.Context, in *settingHistoryInput) (*historyOutput[Setting], error) {
	subject := fmt.Sprintf("setting/%d", in.SettingID)
	entries, err := readHistory[settingImage](ctx, s.store, subject, in.HistoryInput)
	if err == nil && len(entries) == 0 {
		err = s.store.known(ctx, in.SettingID, subject)
	}
	if err != nil {
		return nil, err
	}
	return answerHistory(fmt.Sprintf("%s/%d/history", settings, in.SettingID), in.HistoryInput, entries, settingImage.setting), nil
}

func (s *service) profileHistory(ctx context.Context, in *HistoryInput) (*historyOutput[Profile], error) {
	entries, err := readHistory[profileImage](ctx, s.store, "school-profile", *in)
	if err != nil {
		return nil, err
	}
	return answerHistory(profile+"/history", *in, entries, profileImage.profile), nil
}

// entry is a row of setting_audit with images of the thing that was written.
type entry[Image any] struct {
	Version   int64     `db:"version"`
	Action    string    `db:"action"`
	ChangedAt time.Time `db:"changed_at"`
	ChangedBy string    `db:"changed_by"`
	RequestID string    `db:"request_id"`
	Before    *Image    `db:"before"`
	After     *Image    `db:"after"`
}

const selectHistory = `
select version, action, changed_at, changed_by, request_id, before, after
from setting_audit
where subject = $1 and ($2::bigint = 0 or version < $2::bigint)
order by audit_id desc
limit $3`

// readHistory reads the writes of a subject, the newest first, and one more than asked for when there are more.
func readHistory[Image any](ctx context.Context, s *Store, subject string, in HistoryInput) ([]entry[Image], error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectHistory, subject, in.BeforeVersion, in.Size+1)
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByName[entry[Image]])
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", subject, err)
	}
	return entries, nil
}

const selectKnown = `
select exists (select from setting where setting_id = $1) or exists (select from setting_audit where subject = $2)`

// known tells a setting without such writes from one that there never was. Errors: not-found.
func (s *Store) known(ctx context.Context, id int64, subject string) error {
	var known bool
	if err := s.db.Reader(ctx).QueryRow(ctx, selectKnown, id, subject).Scan(&known); err != nil {
		return fmt.Errorf("look for a setting: %w", err)
	}
	if !known {
		return noSetting()
	}
	return nil
}

// settingImage is a Setting as the audit holds it: a row in the words of the database.
type settingImage struct {
	SettingID   int64     `json:"setting_id"`
	Category    Category  `json:"category"`
	Key         string    `json:"key"`
	Value       string    `json:"value"`
	Description string    `json:"description"`
	UpdatedAt   time.Time `json:"updated_at"`
	UpdatedBy   string    `json:"updated_by"`
	Version     int64     `json:"version"`
}

func (i settingImage) setting() Setting {
	i.UpdatedAt = i.UpdatedAt.UTC()
	return Setting(i)
}

// profileImage is a Profile as the audit holds it.
type profileImage struct {
	SchoolName string    `json:"school_name"`
	SchoolCode string    `json:"school_code"`
	LogoPath   string    `json:"logo_path"`
	Address    string    `json:"address"`
	Phone      string    `json:"phone"`
	Email      string    `json:"email"`
	UpdatedAt  time.Time `json:"updated_at"`
	UpdatedBy  string    `json:"updated_by"`
	Version    int64     `json:"version"`
}

func (i profileImage) profile() Profile {
	i.UpdatedAt = i.UpdatedAt.UTC()
	return Profile(i)
}
