package school_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/school-sms/sms/internal/school"
)

func TestSettingsHaveTypes(t *testing.T) {
	t.Parallel()
	academic := func(keysAndValues ...string) school.Values {
		group := map[string]string{}
		for i := 0; i < len(keysAndValues); i += 2 {
			group[keysAndValues[i]] = keysAndValues[i+1]
		}
		return school.Values{"ACADEMIC": group}
	}
	for _, c := range []struct {
		name   string
		values school.Values
		want   school.AgeLimits
	}{
		{"none", nil, school.AgeLimits{Min: 3, Max: 18}},
		{"both", academic("MIN_STUDENT_AGE", "5", "MAX_STUDENT_AGE", "16"), school.AgeLimits{Min: 5, Max: 16}},
		{"one, the other by default", academic("MAX_STUDENT_AGE", "16"), school.AgeLimits{Min: 3, Max: 16}},
		{"no number", academic("MIN_STUDENT_AGE", "five", "MAX_STUDENT_AGE", "16"), school.AgeLimits{Min: 3, Max: 16}},
		{"contradicting", academic("MIN_STUDENT_AGE", "17", "MAX_STUDENT_AGE", "16"), school.AgeLimits{Min: 3, Max: 18}},
		{"in another category", school.Values{"GENERAL": {"MIN_STUDENT_AGE": "5"}}, school.AgeLimits{Min: 3, Max: 18}},
	} {
		if got := school.From(c.values).Ages; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	s := school.From(school.Values{"GENERAL": {"SCHOOL_TIMEZONE": "Europe/Berlin", "MOTTO": "x"}, "FINANCIAL": {"CURRENCY_CODE": "EUR"},
		"ACADEMIC": {"CURRENT_ACADEMIC_YEAR": "2026-2027"}})
	got := []string{s.Zone.String(), s.Currency, s.AcademicYear, s.Values["GENERAL"]["MOTTO"]}
	if diff := cmp.Diff([]string{"Europe/Berlin", "EUR", "2026-2027", "x"}, got); diff != "" {
		t.Error(diff)
	}
	if d := school.Defaults(); d.Zone.String() != "Asia/Kolkata" || d.Currency != "INR" {
		t.Errorf("defaults %+v", d)
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	if err := (school.Config{Keep: -1}).Check(); err == nil || len(err.Error()) < 100 {
		t.Errorf("%v", err)
	}
}
