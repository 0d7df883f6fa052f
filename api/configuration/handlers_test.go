package configuration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
	"github.com/school-sms/sms/internal/postgres/pgtest"
	"github.com/school-sms/sms/internal/school"
	"github.com/school-sms/sms/migrations"
)

type fixture struct {
	*servertest.Service
	pool *pgxpool.Pool
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return newFixtureWith(t, testConfig, 8)
}

// newFixtureWith has a pool of so many connections.
func newFixtureWith(t *testing.T, cfg Config, connections int32) fixture {
	t.Helper()
	database := pgtest.New(t, migrations.Configuration())
	database.MaxConns = connections
	pool, err := postgres.Open(t.Context(), database, "configuration-service-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	service := servertest.New(t, "configuration-service", server.Config{})
	Mount(service.Server, NewStore(postgres.NewDB(pool)), cfg)
	return fixture{service, pool}
}

func (f fixture) find(t *testing.T, category Category, key string) Setting {
	t.Helper()
	var found []Setting
	f.Do(t, identity.Viewer, http.MethodGet, settings+"/category/"+string(category), nil).Want(http.StatusOK).Decode(&found)
	for _, setting := range found {
		if setting.Key == key {
			return setting
		}
	}
	t.Fatalf("there is no %s in %s", key, category)
	return Setting{}
}

func path(s Setting) string { return fmt.Sprintf("%s/%d", settings, s.SettingID) }

func TestDefaultsAreThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, role := range identity.Roles() {
		var all map[Category][]Setting
		f.Do(t, role, http.MethodGet, settings, nil).Want(http.StatusOK).Decode(&all)
		got := map[string]string{}
		for category, list := range all {
			for _, s := range list {
				if s.Category != category || s.Version != 1 || s.UpdatedBy != "system" {
					t.Errorf("under %s: %+v", category, s)
				}
				got[s.Key] = s.Value
				if wrong := school.Known[s.Key].Check(s.Value); wrong != "" {
					t.Errorf("the default of %s %s", s.Key, wrong)
				}
			}
		}
		delete(got, "CURRENT_ACADEMIC_YEAR")
		want := map[string]string{"SCHOOL_TIMEZONE": "Asia/Kolkata", "MIN_STUDENT_AGE": "3", "MAX_STUDENT_AGE": "18", "CURRENCY_CODE": "INR"}
		if !maps.Equal(got, want) {
			t.Errorf("defaults %v, want %v", got, want)
		}
	}
}

func TestSettingLifecycle(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	body := map[string]string{"category": "GENERAL", "key": "LIBRARY_OPENS_AT", "value": " 08:30 "}
	var made, read, changed Setting
	answer := f.Do(t, identity.Admin, http.MethodPost, settings, body).Want(http.StatusCreated).Decode(&made)
	if made.Value != "08:30" || made.Version != 1 || made.UpdatedBy != "admin" || answer.Header.Get("ETag") != `"1"` ||
		answer.Header.Get("Location") != path(made) {
		t.Errorf("created %+v, %v", made, answer.Header)
	}
	f.Do(t, identity.Clerk, http.MethodGet, path(made), nil).Want(http.StatusOK).Decode(&read)
	if read != made {
		t.Errorf("read %+v, want %+v", read, made)
	}
	f.Do(t, identity.Admin, http.MethodPost, settings, body).Problem(http.StatusConflict, "duplicate-setting")

	f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"09:00"}`).Problem(http.StatusPreconditionRequired, "precondition-required")
	f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"09:00"}`, "If-Match", `"2"`).Problem(http.StatusPreconditionFailed, "concurrent-update")
	answer = f.Do(t, identity.Admin, http.MethodPut, path(made), `{"category":"GENERAL","key":"LIBRARY_OPENS_AT","value":"09:00","description":"of the day"}`,
		"If-Match", `"1"`).Want(http.StatusOK).Decode(&changed)
	if changed.Value != "09:00" || changed.Description != "of the day" || answer.Header.Get("ETag") != `"2"` {
		t.Errorf("changed %+v", changed)
	}
	answer = f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"09:00","description":"of the day"}`, "If-Match", `"2"`).Want(http.StatusOK)
	if answer.Header.Get("ETag") != `"2"` {
		t.Error("writing what is there makes a new version")
	}
	f.Do(t, identity.Admin, http.MethodDelete, path(made), nil).Problem(http.StatusPreconditionRequired, "precondition-required")
	f.Do(t, identity.Admin, http.MethodDelete, path(made), nil, "If-Match", `"1"`).Problem(http.StatusPreconditionFailed, "concurrent-update")
	f.Do(t, identity.Admin, http.MethodDelete, path(made), nil, "If-Match", `"2"`).Want(http.StatusNoContent)
	f.Do(t, identity.Admin, http.MethodDelete, path(made), nil, "If-Match", `"2"`).Problem(http.StatusNotFound, "not-found")
	f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"x"}`, "If-Match", `"2"`).Problem(http.StatusNotFound, "not-found")

	var audit string
	if err := f.pool.QueryRow(t.Context(), `
		select string_agg(action || ' ' || coalesce(before ->> 'value', '-') || ' ' || coalesce(after ->> 'value', '-'), ', ' order by audit_id)
		from setting_audit
		where subject = $1 and changed_by = 'admin' and request_id <> ''`, fmt.Sprintf("setting/%d", made.SettingID)).Scan(&audit); err != nil {
		t.Fatal(err)
	}
	if want := "CREATED - 08:30, UPDATED 08:30 09:00, DELETED 09:00 -"; audit != want {
		t.Errorf("audit %q, want %q", audit, want)
	}
}

func TestKnownSettingsAreTyped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, test := range []struct {
		category  Category
		key       string
		good, bad []string
	}{
		{General, "SCHOOL_TIMEZONE", []string{"Europe/Berlin", "UTC"}, []string{"Mars/Base", "Local", "+05:30", "../../etc/passwd"}},
		{Academic, "CURRENT_ACADEMIC_YEAR", []string{"2027-2028"}, []string{"2027", "2027-2029", "27-28", "2027/2028"}},
		{Academic, "MIN_STUDENT_AGE", []string{"4", "18", "0"}, []string{"19", "-1", "4.5", "four", "04", "1000"}},
		{Academic, "MAX_STUDENT_AGE", []string{"20", "3"}, []string{"2x", "101"}},
		{Financial, "CURRENCY_CODE", []string{"EUR", "SLE"}, []string{"Rupee", "inr", "€", "ABC", "DEM", "XXX"}},
	} {
		setting := f.find(t, test.category, test.key)
		put := func(value string) servertest.Answer {
			return f.Do(t, identity.Admin, http.MethodPut, path(setting), map[string]string{"value": value}, "If-Match", server.ETag(setting.Version))
		}
		for _, value := range test.bad {
			if faults := put(value).Faults(http.StatusUnprocessableEntity, "validation-error"); faults["value"] == "" || len(faults) != 1 {
				t.Errorf("%s %q: %v", test.key, value, faults)
			}
		}
		for _, value := range test.good {
			put(value).Want(http.StatusOK).Decode(&setting)
		}
	}
	faults := f.Do(t, identity.Admin, http.MethodPost, settings, `{"category":"SECRET","key":"lower case","value":"","colour":"red"}`).
		Faults(http.StatusUnprocessableEntity, "validation-error")
	want := map[string]string{"category": "not-allowed", "key": "wrong-format", "value": "required", "colour": "unknown-field"}
	if !maps.Equal(faults, want) {
		t.Errorf("faults %v, want %v", faults, want)
	}
	faults = f.Do(t, identity.Admin, http.MethodPut, path(f.find(t, Financial, "CURRENCY_CODE")), `{"category":"GENERAL","key":"OTHER","value":"x"}`).
		Faults(http.StatusUnprocessableEntity, "validation-error")
	want = map[string]string{"category": "read-only", "key": "read-only", "value": "wrong-format"}
	if !maps.Equal(faults, want) {
		t.Errorf("faults %v, want %v", faults, want)
	}
}

func TestKnownSettingsHaveTheirCategory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for key, rule := range school.Known {
		for _, category := range Categories() {
			want := map[string]string{"category": "not-allowed", "value": "wrong-format"}
			if string(category) == rule.Category {
				delete(want, "category")
			}
			faults := f.Do(t, identity.Admin, http.MethodPost, settings, map[string]string{"category": string(category), "key": key, "value": "?"}).
				Faults(http.StatusUnprocessableEntity, "validation-error")
			if !maps.Equal(faults, want) {
				t.Errorf("%s in %s: %v, want %v", key, category, faults, want)
			}
		}
	}
}

// Where one age limit is not set, its default holds, and may not contradict the other.
func TestAgeLimitsWithDefaults(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	write := func(s Setting, value string) servertest.Answer {
		return f.Do(t, identity.Admin, http.MethodPut, path(s), map[string]string{"value": value}, "If-Match", server.ETag(s.Version))
	}
	remove := func(s Setting) servertest.Answer {
		return f.Do(t, identity.Admin, http.MethodDelete, path(s), nil, "If-Match", server.ETag(s.Version))
	}
	create := func(key, value string) servertest.Answer {
		return f.Do(t, identity.Admin, http.MethodPost, settings, map[string]string{"category": "ACADEMIC", "key": key, "value": value})
	}
	least, most := f.find(t, Academic, "MIN_STUDENT_AGE"), f.find(t, Academic, "MAX_STUDENT_AGE")
	write(most, "25").Want(http.StatusOK).Decode(&most)
	write(least, "20").Want(http.StatusOK).Decode(&least)
	remove(most).Problem(http.StatusConflict, "conflict") // 20 to 18
	write(least, "1").Want(http.StatusOK).Decode(&least)
	write(most, "2").Want(http.StatusOK).Decode(&most)
	remove(least).Problem(http.StatusConflict, "conflict") // 3 to 2
	write(most, "10").Want(http.StatusOK).Decode(&most)
	remove(least).Want(http.StatusNoContent)
	create("MIN_STUDENT_AGE", "11").Faults(http.StatusUnprocessableEntity, "validation-error")
	write(most, "2").Faults(http.StatusUnprocessableEntity, "validation-error") // 3 to 2
	remove(most).Want(http.StatusNoContent)
	create("MIN_STUDENT_AGE", "19").Faults(http.StatusUnprocessableEntity, "validation-error") // 19 to 18
	create("MAX_STUDENT_AGE", "2").Faults(http.StatusUnprocessableEntity, "validation-error")  // 3 to 2
	create("MAX_STUDENT_AGE", "30").Want(http.StatusCreated)
	create("MIN_STUDENT_AGE", "19").Want(http.StatusCreated)
}

// What was removed does not come back with the next start, which migrates again.
func TestDefaultsAreSeededOnce(t *testing.T) {
	t.Parallel()
	database := pgtest.New(t, migrations.Configuration())
	pool, err := postgres.Open(t.Context(), database, "configuration-service-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), `delete from setting where key <> 'MIN_STUDENT_AGE'; update setting set value = '5'`); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), database, migrations.Configuration()); err != nil {
		t.Fatal(err)
	}
	list, err := NewStore(postgres.NewDB(pool)).Settings(t.Context(), Categories()...)
	if err != nil || len(list.Settings) != 1 || list.Settings[0].Value != "5" {
		t.Errorf("%+v, %v", list, err)
	}
}

// Two writers that each change one limit cannot together leave limits that contradict each other.
func TestAgeLimitsOfTwoWriters(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	least, most := f.find(t, Academic, "MIN_STUDENT_AGE"), f.find(t, Academic, "MAX_STUDENT_AGE")
	var statuses [2]int
	var wg sync.WaitGroup
	for i, change := range []struct {
		setting Setting
		value   string
	}{{least, "12"}, {most, "9"}} {
		wg.Go(func() {
			statuses[i] = f.Do(t, identity.Admin, http.MethodPut, path(change.setting), map[string]string{"value": change.value}, "If-Match", `"1"`).Status
		})
	}
	wg.Wait()
	if statuses != [2]int{http.StatusOK, http.StatusUnprocessableEntity} && statuses != [2]int{http.StatusUnprocessableEntity, http.StatusOK} {
		t.Errorf("statuses %v: just one may pass", statuses)
	}
}

func TestSettingIsCreatedOnceAKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	body := `{"category":"GENERAL","key":"LIBRARY_OPENS_AT","value":"08:30"}`
	post := func(body string) servertest.Answer {
		return f.Do(t, identity.Admin, http.MethodPost, settings, body, "Idempotency-Key", "k")
	}
	first := post(body).Want(http.StatusCreated)
	if again := post(body).Want(http.StatusCreated); string(again.Body) != string(first.Body) || again.Header.Get("ETag") != first.Header.Get("ETag") {
		t.Errorf("answered %s, first %s", again.Body, first.Body)
	}
	post(strings.Replace(body, "08", "09", 1)).Problem(http.StatusUnprocessableEntity, "validation-error")
}

func TestProfile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var first, second Profile
	answer := f.Do(t, identity.Viewer, http.MethodGet, profile, nil).Want(http.StatusOK).Decode(&first)
	body := map[string]string{"schoolName": " Lake View School ", "schoolCode": "LVS-01", "phone": "+91 20 1234 5678", "email": "office@example.com"}
	f.Do(t, identity.Admin, http.MethodPut, profile, body).Problem(http.StatusPreconditionRequired, "precondition-required")
	f.Do(t, identity.Admin, http.MethodPut, profile, body, "If-Match", `"9"`).Problem(http.StatusPreconditionFailed, "concurrent-update")
	answer = f.Do(t, identity.Admin, http.MethodPut, profile, body, "If-Match", answer.Header.Get("ETag")).Want(http.StatusOK).Decode(&second)
	if second.SchoolName != "Lake View School" || second.Version != 2 || second.UpdatedBy != "admin" || answer.Header.Get("ETag") != `"2"` {
		t.Errorf("changed %+v", second)
	}
	if again := f.Do(t, identity.Admin, http.MethodPut, profile, body, "If-Match", `"2"`).Want(http.StatusOK); again.Header.Get("ETag") != `"2"` {
		t.Error("writing what is there makes a new version")
	}
	faults := f.Do(t, identity.Admin, http.MethodPut, profile, `{"schoolName":"","phone":"call me","email":"nobody","motto":"x"}`, "If-Match", `"2"`).
		Faults(http.StatusUnprocessableEntity, "validation-error")
	want := map[string]string{"schoolName": "required", "schoolCode": "required", "phone": "wrong-format", "email": "wrong-format", "motto": "unknown-field"}
	if !maps.Equal(faults, want) {
		t.Errorf("faults %v, want %v", faults, want)
	}
	var audits int
	if err := f.pool.QueryRow(t.Context(), `select count(*) from setting_audit where subject = 'school-profile'`).Scan(&audits); err != nil || audits != 1 {
		t.Errorf("%d audit rows, %v, want 1", audits, err)
	}
}

func TestOnlyAdminsWrite(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	setting := f.find(t, General, "SCHOOL_TIMEZONE")
	for _, role := range []identity.Role{identity.Clerk, identity.Operator, identity.Viewer} {
		f.Do(t, role, http.MethodPost, settings, `{"category":"GENERAL","key":"A","value":"b"}`).Problem(http.StatusForbidden, "forbidden")
		f.Do(t, role, http.MethodPut, path(setting), `{"value":"UTC"}`, "If-Match", `"1"`).Problem(http.StatusForbidden, "forbidden")
		f.Do(t, role, http.MethodDelete, path(setting), nil, "If-Match", `"1"`).Problem(http.StatusForbidden, "forbidden")
		f.Do(t, role, http.MethodPut, profile, `{}`, "If-Match", `"1"`).Problem(http.StatusForbidden, "forbidden")
	}
	f.Do(t, "", http.MethodGet, settings, nil).Problem(http.StatusUnauthorized, "unauthorized")
}

func TestManyCreatorsOfOneSetting(t *testing.T) {
	t.Parallel()
	const creators = 20
	f := newFixture(t)
	var wg sync.WaitGroup
	statuses := make([]int, creators)
	for i := range creators {
		wg.Go(func() {
			body, _ := json.Marshal(map[string]string{"category": "GENERAL", "key": "MOTTO", "value": fmt.Sprint(i)})
			statuses[i] = f.Do(t, identity.Admin, http.MethodPost, settings, string(body)).Status
		})
	}
	wg.Wait()
	got := map[int]int{}
	for _, status := range statuses {
		got[status]++
	}
	if want := map[int]int{http.StatusCreated: 1, http.StatusConflict: creators - 1}; !maps.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
}
