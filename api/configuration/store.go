package configuration

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
)

// Author is who a write is put down to.
type Author struct{ User, RequestID string }

// Store keeps the configuration in PostgreSQL. Each write is one statement with its audit row.
type Store struct{ db *postgres.DB }

// NewStore keeps the configuration in the database.
func NewStore(db *postgres.DB) *Store { return &Store{db: db} }

const (
	settingColumns = `setting_id, category, key, value, description, updated_at, updated_by, version`
	selectSettings = `select ` + settingColumns + ` from setting order by category, key`
	selectCategory = `select ` + settingColumns + ` from setting where category = $1 order by key`
	selectSetting  = `select ` + settingColumns + ` from setting where setting_id = $1`
)

// Settings reads all settings, by category and key.
func (s *Store) Settings(ctx context.Context) ([]Setting, error) {
	return s.settings(ctx, selectSettings)
}

// InCategory reads the settings of one category, by key.
func (s *Store) InCategory(ctx context.Context, category Category) ([]Setting, error) {
	return s.settings(ctx, selectCategory, category)
}

func (s *Store) settings(ctx context.Context, sql string, args ...any) ([]Setting, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, sql, args...) // CollectRows returns the error
	settings, err := pgx.CollectRows(rows, pgx.RowToStructByName[Setting])
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return settings, nil
}

// Setting reads one setting. Errors: not-found.
func (s *Store) Setting(ctx context.Context, id int64) (Setting, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectSetting, id) // of the primary, for a write
	setting, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Setting])
	if errors.Is(err, pgx.ErrNoRows) {
		return Setting{}, server.NotFound("there is no setting with this id")
	} else if err != nil {
		return Setting{}, fmt.Errorf("read a setting: %w", err)
	}
	return setting, nil
}

const insertSetting = `
with after as (
    insert into setting (category, key, value, description, updated_by)
    values ($1, $2, $3, $4, $5)
    returning ` + settingColumns + `
), audit as (
    insert into setting_audit (subject, version, action, changed_by, request_id, after)
    select 'setting/' || setting_id, version, 'CREATED', $5, $6, to_jsonb(after) from after
)
select ` + settingColumns + ` from after`

// Create adds a setting. Errors: duplicate-setting; validation-error when the age limits would contradict each other.
func (s *Store) Create(ctx context.Context, n Setting, by Author) (Setting, error) {
	return s.write(ctx, n, func(tx pgx.Tx) (pgx.Rows, error) {
		return tx.Query(ctx, insertSetting, n.Category, n.Key, n.Value, n.Description, by.User, by.RequestID)
	})
}

const updateSetting = `
with before as (
    select ` + settingColumns + ` from setting where setting_id = $1 and version = $2
), after as (
    update setting
    set value = $3, description = $4, version = version + 1, updated_at = now(), updated_by = $5
    where setting_id = $1 and version = $2
    returning ` + settingColumns + `
), audit as (
    insert into setting_audit (subject, version, action, changed_by, request_id, before, after)
    select 'setting/' || after.setting_id, after.version, 'UPDATED', $5, $6, to_jsonb(before), to_jsonb(after)
    from after join before using (setting_id)
)
select ` + settingColumns + ` from after`

// Update writes value and description of n over version n.Version. Errors: concurrent-update; validation-error when the
// age limits would contradict each other.
func (s *Store) Update(ctx context.Context, n Setting, by Author) (Setting, error) {
	return s.write(ctx, n, func(tx pgx.Tx) (pgx.Rows, error) {
		return tx.Query(ctx, updateSetting, n.SettingID, n.Version, n.Value, n.Description, by.User, by.RequestID)
	})
}

// Writers exclude each other, readers read on: two that change one age limit each would not see each other's.
const lockSettings = `lock table setting in share row exclusive mode`

const selectAgeLimits = `
select coalesce(max(value) filter (where key = 'MIN_STUDENT_AGE'), ''), coalesce(max(value) filter (where key = 'MAX_STUDENT_AGE'), '')
from setting
where category = 'ACADEMIC' and key in ('MIN_STUDENT_AGE', 'MAX_STUDENT_AGE')`

// write runs a statement that answers the setting that it wrote, unless the age limits would contradict each other.
func (s *Store) write(ctx context.Context, n Setting, statement func(pgx.Tx) (pgx.Rows, error)) (Setting, error) {
	var written Setting
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockSettings); err != nil {
			return err
		}
		var least, most string
		switch (name{n.Category, n.Key}) {
		case minAge, maxAge:
			if err := tx.QueryRow(ctx, selectAgeLimits).Scan(&least, &most); err != nil {
				return err
			}
			if n.Key == minAge.key {
				least = n.Value
			} else {
				most = n.Value
			}
			if wrong := checkAgeLimits(least, most); wrong != "" {
				return server.Invalid(server.Fault{Field: "value", Code: "out-of-range", Detail: wrong})
			}
		}
		rows, _ := statement(tx)
		var err error
		written, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Setting])
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Setting{}, server.ConcurrentUpdate()
	case postgres.ViolatedConstraint(err) == "setting_category_key":
		return Setting{}, server.NewProblem(http.StatusConflict, "duplicate-setting", "the category has this key already",
			server.Fault{Field: "key", Code: "duplicate", Detail: "the category has this key already"})
	case err != nil:
		return Setting{}, fmt.Errorf("write a setting: %w", err)
	}
	return written, nil
}

const deleteSetting = `
with before as (
    delete from setting where setting_id = $1 and version = $2 returning ` + settingColumns + `
), audit as (
    insert into setting_audit (subject, version, action, changed_by, request_id, before)
    select 'setting/' || setting_id, version + 1, 'DELETED', $3, $4, to_jsonb(before) from before
)
select count(*) from before`

// Delete removes a version of a setting. Errors: concurrent-update.
func (s *Store) Delete(ctx context.Context, id, version int64, by Author) error {
	var deleted int
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockSettings); err != nil {
			return err
		}
		return tx.QueryRow(ctx, deleteSetting, id, version, by.User, by.RequestID).Scan(&deleted)
	})
	if err != nil {
		return fmt.Errorf("delete a setting: %w", err)
	}
	if deleted == 0 {
		return server.ConcurrentUpdate()
	}
	return nil
}

const (
	profileColumns = `school_name, school_code, logo_path, address, phone, email, updated_at, updated_by, version`
	selectProfile  = `select ` + profileColumns + ` from school_profile`
)

const updateProfile = `
with before as (
    select ` + profileColumns + ` from school_profile where version = $1
), after as (
    update school_profile
    set school_name = $2, school_code = $3, logo_path = $4, address = $5, phone = $6, email = $7,
        version = version + 1, updated_at = now(), updated_by = $8
    where version = $1
    returning ` + profileColumns + `
), audit as (
    insert into setting_audit (subject, version, action, changed_by, request_id, before, after)
    select 'school-profile', after.version, 'UPDATED', $8, $9, to_jsonb(before), to_jsonb(after) from after, before
)
select ` + profileColumns + ` from after`

// Profile reads the school's profile.
func (s *Store) Profile(ctx context.Context) (Profile, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectProfile) // of the primary, for a write
	profile, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Profile])
	if err != nil {
		return Profile{}, fmt.Errorf("read the school profile: %w", err)
	}
	return profile, nil
}

// UpdateProfile writes p over version p.Version of the profile. Errors: concurrent-update.
func (s *Store) UpdateProfile(ctx context.Context, p Profile, by Author) (Profile, error) {
	rows, _ := s.db.Query(ctx, updateProfile, p.Version, p.SchoolName, p.SchoolCode, p.LogoPath, p.Address, p.Phone, p.Email,
		by.User, by.RequestID)
	profile, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Profile])
	if errors.Is(err, pgx.ErrNoRows) {
		return Profile{}, server.ConcurrentUpdate()
	} else if err != nil {
		return Profile{}, fmt.Errorf("write the school profile: %w", err)
	}
	return profile, nil
}
