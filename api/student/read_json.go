package student

import (
	"strconv"
	"time"

	"github.com/school-sms/sms/internal/jsonappend"
)

// appendStudent appends what encoding/json, without its escapes for HTML, makes of a student. It costs a tenth.
func appendStudent(b []byte, s Student) []byte {
	b = appendField(b, `{"studentId":`, s.StudentID)
	b = appendField(b, `,"firstName":`, s.FirstName)
	b = appendField(b, `,"lastName":`, s.LastName)
	b = appendDate(append(b, `,"dateOfBirth":"`...), s.DateOfBirth)
	b = strconv.AppendInt(append(b, `","age":`...), int64(s.Age), 10)
	b = appendField(b, `,"address":{"street":`, s.Address.Street)
	b = appendField(b, `,"city":`, s.Address.City)
	b = appendField(b, `,"state":`, s.Address.State)
	b = appendField(b, `,"pinCode":`, s.Address.PinCode)
	b = appendField(b, `,"country":`, s.Address.Country)
	b = appendField(b, `},"mobile":`, s.Mobile)
	b = appendOptional(b, `,"email":`, s.Email)
	b = appendField(b, `,"fatherNameOrGuardian":`, s.FatherNameOrGuardian)
	b = appendField(b, `,"motherName":`, s.MotherName)
	b = appendField(b, `,"caste":`, s.Caste)
	b = appendOptional(b, `,"moles":`, s.Moles)
	b = appendOptional(b, `,"aadhaarNumber":`, s.AadhaarNumber)
	b = appendField(b, `,"status":`, string(s.Status))
	b = s.CreatedAt.AppendFormat(append(b, `,"createdAt":"`...), time.RFC3339Nano)
	b = appendField(b, `","createdBy":`, s.CreatedBy)
	b = s.UpdatedAt.AppendFormat(append(b, `,"updatedAt":"`...), time.RFC3339Nano)
	b = appendField(b, `","updatedBy":`, s.UpdatedBy)
	b = strconv.AppendInt(append(b, `,"version":`...), s.Version, 10)
	return append(b, '}')
}

func appendOptional(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendField(b, name, s)
}

func appendField(b []byte, name, s string) []byte { return jsonappend.String(append(b, name...), s) }

// appendDate appends what Date.String gives.
func appendDate(b []byte, d Date) []byte {
	if d.Year < 0 || d.Year > 9999 {
		return append(b, d.String()...)
	}
	digits := [...]byte{'0' + byte(d.Year/1000), '0' + byte(d.Year/100%10), '0' + byte(d.Year/10%10), '0' + byte(d.Year%10), '-',
		'0' + byte(d.Month/10), '0' + byte(d.Month%10), '-', '0' + byte(d.Day/10), '0' + byte(d.Day%10)}
	return append(b, digits[:]...)
}
