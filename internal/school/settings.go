// Package school is what the services know of the school's settings: which of them have a meaning, what holds where the
// school has configured nothing, and how a service follows them while it runs.
package school

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	_ "time/tzdata" // images hold no zone files

	"github.com/bojanz/currency"
)

// Keys of the settings that services act on. Each belongs to one category and has a rule: see Known.
const (
	Timezone     = "SCHOOL_TIMEZONE"
	AcademicYear = "CURRENT_ACADEMIC_YEAR"
	MinAge       = "MIN_STUDENT_AGE"
	MaxAge       = "MAX_STUDENT_AGE"
	CurrencyCode = "CURRENCY_CODE"
)

// Rule is what holds for a setting that services act on.
type Rule struct {
	Category string
	// Check returns what is wrong with a value, or "".
	Check func(value string) string
}

// Known are the settings that services act on, by key.
var Known = map[string]Rule{
	Timezone:     {"GENERAL", checkZone},
	AcademicYear: {"ACADEMIC", checkAcademicYear},
	MinAge:       {"ACADEMIC", checkAge},
	MaxAge:       {"ACADEMIC", checkAge},
	CurrencyCode: {"FINANCIAL", checkCurrency},
}

// AgeLimits bounds a student's age on the day of registration, in completed years, both ends included.
type AgeLimits struct{ Min, Max int }

// Check returns what is wrong with limits that are valid ages each, or "".
func (a AgeLimits) Check() string {
	if a.Min > a.Max {
		return fmt.Sprintf("%s would be %d, above %s, which would be %d", MinAge, a.Min, MaxAge, a.Max)
	}
	return ""
}

// DefaultAges hold where the school has set no others.
var DefaultAges = AgeLimits{Min: 3, Max: 18}

var defaultZone = func() *time.Location {
	zone, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		panic(err) // the zones are part of the program
	}
	return zone
}()

// Values are settings as they are stored, by category and key.
type Values map[string]map[string]string

// Settings is what holds for the school at one moment. It is shared: do not change it.
type Settings struct {
	Ages AgeLimits
	// Zone decides which day it is at the school.
	Zone *time.Location
	// AcademicYear is YYYY-YYYY, or empty where none is set.
	AcademicYear string
	// Currency is an ISO 4217 code.
	Currency string
	Values   Values
	// Version is that of the list of settings at configuration-service.
	Version int64
	// Confirmed is when configuration-service last said that this holds. Zero: never, these are the defaults.
	Confirmed time.Time
	// Fresh says that configuration-service answers: a change would be known.
	Fresh bool
}

// Defaults is what holds where the school has configured nothing, and where nobody can say what it has configured.
func Defaults() Settings {
	return Settings{Ages: DefaultAges, Zone: defaultZone, Currency: "INR"}
}

// From reads typed settings. One that is missing or breaks its rule has its default, as if it had been deleted; so have both age
// limits where they contradict each other.
func From(values Values) Settings {
	s := Defaults()
	s.Values = values
	take := func(key string, set func(value string)) {
		if value, ok := values[Known[key].Category][key]; ok && Known[key].Check(value) == "" {
			set(value)
		}
	}
	take(Timezone, func(value string) { s.Zone, _ = time.LoadLocation(value) })
	take(AcademicYear, func(value string) { s.AcademicYear = value })
	take(MinAge, func(value string) { s.Ages.Min, _ = strconv.Atoi(value) })
	take(MaxAge, func(value string) { s.Ages.Max, _ = strconv.Atoi(value) })
	take(CurrencyCode, func(value string) { s.Currency = value })
	if s.Ages.Check() != "" {
		s.Ages = DefaultAges
	}
	return s
}

func checkZone(value string) string {
	if _, err := time.LoadLocation(value); err != nil || value == "" || value == "Local" {
		return "must be a time zone of the IANA database, for example Asia/Kolkata"
	}
	return ""
}

var academicYear = regexp.MustCompile(`^[0-9]{4}-[0-9]{4}$`)

func checkAcademicYear(value string) string {
	if academicYear.MatchString(value) {
		from, _ := strconv.Atoi(value[:4])
		to, _ := strconv.Atoi(value[5:])
		if to == from+1 {
			return ""
		}
	}
	return "must be a year and the next one, for example 2026-2027"
}

const oldest = 100 // years

func checkAge(value string) string {
	if age, err := strconv.Atoi(value); err != nil || age < 0 || age > oldest || strconv.Itoa(age) != value {
		return fmt.Sprintf("must be a whole number of years, 0 to %d", oldest)
	}
	return ""
}

func checkCurrency(value string) string {
	if value == "" || !currency.IsValid(value) {
		return "must be the ISO 4217 code of a currency in use, for example INR"
	}
	return ""
}
