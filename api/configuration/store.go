package configuration

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/school"
)

// Author is who a write is put down to.
type Author struct{ User, RequestID string }

// Store keeps the configuration in PostgreSQL. Each write is one statement with its audit row.
type Store struct{ db *postgres.DB }

// NewStore keeps the configuration in the database.
func NewStore(db *postgres.DB) *Store { return &Store{db: db} }

const (
	settingColumns = `setting_id, category, key, value, description, updated_at, updated_by, version`
	selectSettings = `select ` + settingColumns + ` from setting where category = any($1) order by category, key`
	selectSetting  = `select ` + settingColumns + ` from setting where setting_id = $1`
)

// The defaults that came with the database are version 0. Writers of settings exclude each other, so that who sees a version sees
// all before it.
const selectVersion = `select coalesce(max(audit_id), 0) from setting_audit where subject <> 'school-profile'`

// List is settings by category and key, and the version of all settings: that of the last write of any of them.
type List struct {
	Settings []Setting
	Version  int64
}

// Settings reads the settings of some categories.
func (s *Store) Settings(ctx context.Context, categories ...Category) (List, error) {
	return listSettings(ctx, s.db.Reader(ctx), categories)
}

// CurrentSettings is Settings where nothing that is written already may be missing.
func (s *Store) CurrentSettings(ctx context.Context, categories ...Category) (List, error) {
	return listSettings(ctx, s.db.Pool, categories)
}

func listSettings(ctx context.Context, from *pgxpool.Pool, categories []Category) (List, error) {
	var list List
	oneSnapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, from, oneSnapshot, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, selectVersion).Scan(&list.Version); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, selectSettings, categories) // CollectRows returns the error
		var err error
		list.Settings, err = pgx.CollectRows(rows, pgx.RowToStructByName[Setting])
		return err
	})
	if err != nil {
		return List{}, fmt.Errorf("read settings: %w", err)
	}
	return list, nil
}

// Version reads the version of all settings.
func (s *Store) Version(ctx context.Context) (version int64, err error) {
	if err = s.db.QueryRow(ctx, selectVersion).Scan(&version); err != nil {
		err = fmt.Errorf("read the version of the settings: %w", err)
	}
	return version, err
}

// Setting reads one setting, for a write over it. Errors: not-found.
func (s *Store) Setting(ctx context.Context, id int64) (Setting, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectSetting, id) // of the primary, for a write
	setting, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Setting])
	if errors.Is(err, pgx.ErrNoRows) {
		return Setting{}, noSetting()
	} else if err != nil {
		return Setting{}, fmt.Errorf("read a setting: %w", err)
	}
	return setting, nil
}

func noSetting() error { return server.NotFound("there is no setting with this id") }

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

// Create adds a setting, on a pool or in a transaction. Errors: duplicate-setting; validation-error when the age limits would contradict each other.
func (s *Store) Create(ctx context.Context, on postgres.Conn, n Setting, by Author) (Setting, error) {
	return write(ctx, on, ageFault, insertSetting, n.Category, n.Key, n.Value, n.Description, by.User, by.RequestID)
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
	return write(ctx, s.db, ageFault, updateSetting, n.SettingID, n.Version, n.Value, n.Description, by.User, by.RequestID)
}

const deleteSetting = `
with before as (
    delete from setting where setting_id = $1 and version = $2 returning ` + settingColumns + `
), audit as (
    insert into setting_audit (subject, version, action, changed_by, request_id, before)
    select 'setting/' || setting_id, version + 1, 'DELETED', $3, $4, to_jsonb(before) from before
)
select ` + settingColumns + ` from before`

// Delete removes a version of a setting. Errors: concurrent-update; conflict when the default that then holds would contradict
// the other age limit.
func (s *Store) Delete(ctx context.Context, id, version int64, by Author) error {
	_, err := write(ctx, s.db, ageConflict, deleteSetting, id, version, by.User, by.RequestID)
	return err
}

// Writers exclude each other, readers read on: two that change one age limit each would not see each other's.
const lockSettings = `lock table setting in share row exclusive mode`

const selectAgeLimit = `select coalesce((select value::int from setting where category = 'ACADEMIC' and key = $1), $2)`

// write runs a statement that answers the setting that it wrote or removed, unless the age limits would contradict each other
// afterwards: then nothing is written, and the error is what refuse makes of the reason.
func write(ctx context.Context, on postgres.Conn, refuse func(reason string) error, sql string, args ...any) (Setting, error) {
	var written Setting
	err := pgx.BeginFunc(ctx, on, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockSettings); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, sql, args...)
		var err error
		written, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Setting])
		if err != nil || written.Key != school.MinAge && written.Key != school.MaxAge {
			return err
		}
		ages := school.DefaultAges
		if err := tx.QueryRow(ctx, selectAgeLimit, school.MinAge, ages.Min).Scan(&ages.Min); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, selectAgeLimit, school.MaxAge, ages.Max).Scan(&ages.Max); err != nil {
			return err
		}
		if wrong := ages.Check(); wrong != "" {
			return refuse(wrong)
		}
		return nil
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

func ageFault(reason string) error {
	return server.Invalid(server.Fault{Field: "value", Code: "out-of-range", Detail: reason})
}

func ageConflict(reason string) error {
	return server.Conflict("its default would hold instead: " + reason)
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
