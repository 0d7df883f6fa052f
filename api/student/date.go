package student

import (
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgtype"
)

// Date is a day of the calendar, without a time and a zone.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf is the day of t in t's own zone.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// ParseDate reads YYYY-MM-DD.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("not a date of the form YYYY-MM-DD")
	}
	return DateOf(t), nil
}

func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

func (d Date) time() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// YearsBefore is the latest birthday of somebody who is at least so many years old on d.
func (d Date) YearsBefore(years int) Date {
	before := Date{d.Year - years, d.Month, d.Day}
	if DateOf(before.time()) != before { // the 29th of February, and that year has none
		before.Day = 28
	}
	return before
}

// AgeOn is the age, in completed years, on a day of somebody born on d. A birthday on the 29th of February is kept on the 1st
// of March where there is no 29th, as PostgreSQL's age() does. It is below zero for a day before the birth.
func (d Date) AgeOn(day Date) int {
	age := day.Year - d.Year
	if day.Month < d.Month || day.Month == d.Month && day.Day < d.Day {
		age--
	}
	return age
}

// MarshalText is the form that JSON uses.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form that JSON uses.
func (d *Date) UnmarshalText(text []byte) error {
	parsed, err := ParseDate(string(text))
	*d = parsed
	return err
}

// Schema is what huma asks for.
func (Date) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date", Examples: []any{"2015-06-30"}}
}

// ScanDate is what pgx asks for.
func (d *Date) ScanDate(v pgtype.Date) error {
	if !v.Valid || v.InfinityModifier != pgtype.Finite {
		return fmt.Errorf("not a day")
	}
	*d = DateOf(v.Time)
	return nil
}

// DateValue is what pgx asks for.
func (d Date) DateValue() (pgtype.Date, error) { return pgtype.Date{Time: d.time(), Valid: true}, nil }
