// Package configuration keeps the school's settings and profile: their rules, their store and their HTTP operations.
package configuration

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

// Category groups settings.
type Category string

// The categories.
const (
	General   Category = "GENERAL"
	Academic  Category = "ACADEMIC"
	Financial Category = "FINANCIAL"
)

// Categories lists the categories.
func Categories() []Category { return []Category{General, Academic, Financial} }

// Setting is one setting of the school.
type Setting struct {
	SettingID   int64     `db:"setting_id" json:"settingId"`
	Category    Category  `db:"category" json:"category" enum:"GENERAL,ACADEMIC,FINANCIAL"`
	Key         string    `db:"key" json:"key"`
	Value       string    `db:"value" json:"value"`
	Description string    `db:"description" json:"description"`
	UpdatedAt   time.Time `db:"updated_at" json:"updatedAt"`
	UpdatedBy   string    `db:"updated_by" json:"updatedBy"`
	Version     int64     `db:"version" json:"version" doc:"Counts the writes; the ETag is made of it."`
}

// Profile says which school this is.
type Profile struct {
	SchoolName string    `db:"school_name" json:"schoolName"`
	SchoolCode string    `db:"school_code" json:"schoolCode"`
	LogoPath   string    `db:"logo_path" json:"logoPath"`
	Address    string    `db:"address" json:"address"`
	Phone      string    `db:"phone" json:"phone"`
	Email      string    `db:"email" json:"email"`
	UpdatedAt  time.Time `db:"updated_at" json:"updatedAt"`
	UpdatedBy  string    `db:"updated_by" json:"updatedBy"`
	Version    int64     `db:"version" json:"version" doc:"Counts the writes; the ETag is made of it."`
}

var settingKey = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// checkSetting trims a setting and returns every fault of it that can be seen without the other settings.
func checkSetting(s *Setting) []server.Fault {
	var c checker
	if s.Key = strings.TrimSpace(s.Key); len(s.Key) > 100 || !settingKey.MatchString(s.Key) {
		c.fault("key", "wrong-format", "must be UPPER_SNAKE_CASE of at most 100 characters")
	}
	s.Value = c.text("value", s.Value, 2000, true)
	s.Description = c.text("description", s.Description, 500, false)
	rule, known := school.Known[s.Key]
	if known && string(s.Category) != rule.Category {
		c.fault("category", "not-allowed", fmt.Sprintf("%s belongs to %s", s.Key, rule.Category))
	}
	if known && s.Value != "" {
		if wrong := rule.Check(s.Value); wrong != "" {
			c.fault("value", "wrong-format", wrong)
		}
	}
	return c.faults
}

// checkProfile trims a profile and returns every fault of it.
func checkProfile(p *Profile) []server.Fault {
	var c checker
	p.SchoolName = c.text("schoolName", p.SchoolName, 200, true)
	p.SchoolCode = c.text("schoolCode", p.SchoolCode, 50, true)
	p.LogoPath = c.text("logoPath", p.LogoPath, 500, false)
	p.Address = c.text("address", p.Address, 500, false)
	p.Phone = c.text("phone", p.Phone, 20, false)
	if p.Phone != "" && !phone.MatchString(p.Phone) {
		c.fault("phone", "wrong-format", "may hold digits, spaces, + - ( and ) only, and at least 6 digits")
	}
	p.Email = c.text("email", p.Email, 254, false)
	if p.Email != "" {
		if parsed, err := mail.ParseAddress(p.Email); err != nil || parsed.Address != p.Email {
			c.fault("email", "wrong-format", "must be an e-mail address")
		}
	}
	return c.faults
}

var phone = regexp.MustCompile(`^\+?([ ()-]*[0-9]){6,}[ ()-]*$`)

// checker collects faults.
type checker struct{ faults []server.Fault }

func (c *checker) fault(field, code, detail string) {
	c.faults = append(c.faults, server.Fault{Field: field, Code: code, Detail: detail})
}

// text is a trimmed text of at most so many characters in Unicode normal form C. Lines may break in it.
func (c *checker) text(field, value string, most int, required bool) string {
	value = strings.TrimSpace(norm.NFC.String(value))
	switch n := utf8.RuneCountInString(value); {
	case n == 0 && required:
		c.fault(field, "required", "must not be empty")
	case n > most:
		c.fault(field, "too-long", fmt.Sprintf("must have at most %d characters", most))
	case strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' }):
		c.fault(field, "wrong-format", "must not hold control characters")
	}
	return value
}
