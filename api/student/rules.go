package student

import (
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/school"
)

// AgeLimits bounds a student's age on the day of registration, in completed years, both ends included.
type AgeLimits = school.AgeLimits

// School is what the rules need to know of the school.
type School struct {
	Ages AgeLimits
	// Zone decides which day it is.
	Zone *time.Location
}

// DefaultSchool is what holds where a school has configured nothing else.
func DefaultSchool() School { return schoolOf(school.Defaults()) }

func schoolOf(s school.Settings) School { return School{Ages: s.Ages, Zone: s.Zone} }

// Input is a student as callers write one. The rules, not the schema, bound the lengths: they count after trimming.
type Input struct {
	FirstName            string  `json:"firstName" doc:"2 to 50 characters: letters of any script, marks, spaces, ' - ." example:"Asha"`
	LastName             string  `json:"lastName" doc:"As firstName." example:"Patil"`
	DateOfBirth          string  `json:"dateOfBirth" format:"date" doc:"The age on the day of registration must be within the school's limits." example:"2016-06-30"`
	Address              Address `json:"address"`
	Mobile               string  `json:"mobile" doc:"10 digits; no other student may have the same." example:"9876543210"`
	Email                *string `json:"email,omitempty" example:"asha@example.com"`
	FatherNameOrGuardian string  `json:"fatherNameOrGuardian" doc:"2 to 100 characters, as firstName." example:"Ravi Patil"`
	MotherName           string  `json:"motherName" doc:"2 to 100 characters, as firstName." example:"Meera Patil"`
	Caste                string  `json:"caste" doc:"1 to 50 characters." example:"General"`
	Moles                *string `json:"moles,omitempty" doc:"Marks to recognise the student by; at most 200 characters."`
	AadhaarNumber        *string `json:"aadhaarNumber,omitempty" doc:"12 digits. The masked form, as read, leaves the number as it is." example:"123412341234"`
}

// Rules checks input for one school on one day.
type Rules struct {
	Ages AgeLimits
	// Registered is the day on which the student was registered, or is being registered.
	Registered Date
	// Current is what is stored, nil for a new student.
	Current *Details
}

// Check returns the details that the input means, and every fault of it. The details are usable when there is no fault.
func (r Rules) Check(in Input) (Details, []server.Fault) {
	var c checker
	d := Details{
		FirstName:    c.name("firstName", in.FirstName, 50),
		LastName:     c.name("lastName", in.LastName, 50),
		DateOfBirth:  r.dateOfBirth(&c, in.DateOfBirth),
		Street:       c.text("address.street", in.Address.Street, 200),
		City:         c.text("address.city", in.Address.City, 100),
		State:        c.text("address.state", in.Address.State, 100),
		PinCode:      c.digits("address.pinCode", in.Address.PinCode, 6),
		Country:      c.text("address.country", in.Address.Country, 100),
		Mobile:       c.digits("mobile", in.Mobile, 10),
		Email:        c.email("email", in.Email),
		GuardianName: c.name("fatherNameOrGuardian", in.FatherNameOrGuardian, 100),
		MotherName:   c.name("motherName", in.MotherName, 100),
		Caste:        c.text("caste", in.Caste, 50),
	}
	if in.Moles != nil && strings.TrimSpace(*in.Moles) != "" {
		d.Moles = c.text("moles", *in.Moles, 200)
	}
	if in.AadhaarNumber != nil && *in.AadhaarNumber != "" {
		if r.Current != nil && *in.AadhaarNumber == mask(r.Current.AadhaarNumber) {
			d.AadhaarNumber = r.Current.AadhaarNumber
		} else {
			d.AadhaarNumber = c.digits("aadhaarNumber", *in.AadhaarNumber, 12)
		}
	}
	return d, c.faults
}

// dateOfBirth checks the age on the day of registration. A stored date stays good when the school changes its limits.
func (r Rules) dateOfBirth(c *checker, value string) Date {
	born, err := ParseDate(value)
	if err != nil {
		c.fault("dateOfBirth", "not-a-date", "must be a date, YYYY-MM-DD")
		return born
	}
	if r.Current != nil && born == r.Current.DateOfBirth {
		return born
	}
	if age := born.AgeOn(r.Registered); age < r.Ages.Min || age > r.Ages.Max {
		c.faults = append(c.faults, server.Fault{Field: "dateOfBirth", Code: "out-of-range", Alone: "invalid-age",
			Detail: fmt.Sprintf("the age on the day of registration must be %d to %d years", r.Ages.Min, r.Ages.Max)})
	}
	return born
}

// checker collects faults. Its details never repeat a value: they may end in a log.
type checker struct{ faults []server.Fault }

func (c *checker) fault(field, code, detail string) {
	c.faults = append(c.faults, server.Fault{Field: field, Code: code, Detail: detail})
}

// text is a trimmed line of 1 to most characters in normal form C.
func (c *checker) text(field, value string, most int) string {
	value = strings.TrimSpace(norm.NFC.String(value))
	switch n := utf8.RuneCountInString(value); {
	case n == 0:
		c.fault(field, "required", "must not be empty")
	case n > most:
		c.fault(field, "too-long", fmt.Sprintf("must have at most %d characters", most))
	case strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }):
		c.fault(field, "wrong-format", "must not hold control characters")
	}
	return value
}

// name is a text of at least two characters that people's names are written with.
func (c *checker) name(field, value string, most int) string {
	before := len(c.faults)
	value = c.text(field, value, most)
	if len(c.faults) > before {
		return value
	}
	switch {
	case utf8.RuneCountInString(value) < 2:
		c.fault(field, "too-short", "must have at least 2 characters")
	case strings.ContainsFunc(value, func(r rune) bool { return !inName(r) }):
		c.fault(field, "wrong-format", "may hold letters, marks, spaces, ' - and . only")
	case !strings.ContainsFunc(value, unicode.IsLetter):
		c.fault(field, "wrong-format", "must hold a letter")
	}
	return value
}

func inName(r rune) bool {
	switch r {
	case ' ', '\'', '-', '.':
		return true
	case '\u200c', '\u200d': // joiners, which Indic and Persian spelling needs
		return true
	}
	return unicode.IsLetter(r) || unicode.IsMark(r)
}

// onlyDigits allows ASCII digits only.
var onlyDigits = regexp.MustCompile(`^[0-9]+$`)

func (c *checker) digits(field, value string, n int) string {
	value = strings.TrimSpace(value)
	switch {
	case value == "":
		c.fault(field, "required", "must not be empty")
	case len(value) != n || !onlyDigits.MatchString(value):
		c.fault(field, "wrong-format", fmt.Sprintf("must be %d digits", n))
	}
	return value
}

func (c *checker) email(field string, value *string) string {
	const longest = 254 // RFC 5321, section 4.5.3.1.3, without the angle brackets
	if value == nil || strings.TrimSpace(*value) == "" {
		return ""
	}
	before := len(c.faults)
	address := c.text(field, *value, longest)
	if len(c.faults) > before {
		return address
	}
	if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
		c.fault(field, "wrong-format", "must be an e-mail address")
	}
	return address
}
