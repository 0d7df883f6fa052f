// Package student keeps the records of students: their rules, their store and their HTTP operations.
package student

import (
	"time"
)

// Status says whether a student is at the school now.
type Status string

// The statuses. A deleted student is INACTIVE: only an erasure removes anything.
const (
	Active   Status = "ACTIVE"
	Inactive Status = "INACTIVE"
)

// Details is what is known of a student, as the rules have let it pass: trimmed and in Unicode normal form C. Optional fields
// are empty when there is nothing.
type Details struct {
	FirstName     string `db:"first_name" json:"first_name"`
	LastName      string `db:"last_name" json:"last_name"`
	DateOfBirth   Date   `db:"date_of_birth" json:"date_of_birth"`
	Street        string `db:"street" json:"street"`
	City          string `db:"city" json:"city"`
	State         string `db:"state" json:"state"`
	PinCode       string `db:"pin_code" json:"pin_code"`
	Country       string `db:"country" json:"country"`
	Mobile        string `db:"mobile" json:"mobile"`
	Email         string `db:"email" json:"email"`
	GuardianName  string `db:"guardian_name" json:"guardian_name"`
	MotherName    string `db:"mother_name" json:"mother_name"`
	Caste         string `db:"caste" json:"caste"`
	Moles         string `db:"moles" json:"moles"`
	AadhaarNumber string `db:"aadhaar_number" json:"aadhaar_number"`
}

// Record is a row of the table student. Its JSON form is that of the images in student_audit.
type Record struct {
	StudentID string `db:"student_id" json:"student_id"`
	Details
	Status Status `db:"status" json:"status"`
	// Synthetic marks a student of a smoke test.
	Synthetic bool      `db:"synthetic" json:"synthetic"`
	Version   int64     `db:"version" json:"version"`
	CreatedAt time.Time `db:"created_at" json:"created_at"`
	CreatedBy string    `db:"created_by" json:"created_by"`
	UpdatedAt time.Time `db:"updated_at" json:"updated_at"`
	UpdatedBy string    `db:"updated_by" json:"updated_by"`
}

// Address is where a student lives.
type Address struct {
	Street  string `json:"street" doc:"1 to 200 characters." example:"12 Lake Road"`
	City    string `json:"city" doc:"1 to 100 characters." example:"Pune"`
	State   string `json:"state" doc:"1 to 100 characters." example:"Maharashtra"`
	PinCode string `json:"pinCode" doc:"6 digits." example:"411001"`
	Country string `json:"country" doc:"1 to 100 characters." example:"India"`
}

// Student is a student as callers see one.
type Student struct {
	StudentID            string    `json:"studentId" pattern:"^STU-[0-9]{4}-[0-9]{5,}$" example:"STU-2026-00001"`
	FirstName            string    `json:"firstName" minLength:"2" maxLength:"50"`
	LastName             string    `json:"lastName" minLength:"2" maxLength:"50"`
	DateOfBirth          Date      `json:"dateOfBirth"`
	Age                  int       `json:"age" doc:"In completed years, today at the school."`
	Address              Address   `json:"address"`
	Mobile               string    `json:"mobile" pattern:"^[0-9]{10}$"`
	Email                string    `json:"email,omitempty"`
	FatherNameOrGuardian string    `json:"fatherNameOrGuardian"`
	MotherName           string    `json:"motherName"`
	Caste                string    `json:"caste"`
	Moles                string    `json:"moles,omitempty"`
	AadhaarNumber        string    `json:"aadhaarNumber,omitempty" pattern:"^(XXXX-XXXX-[0-9]{4}|[0-9]{12})$" doc:"All but the last four digits are hidden, unless an admin has asked for them."`
	Status               Status    `json:"status" enum:"ACTIVE,INACTIVE"`
	CreatedAt            time.Time `json:"createdAt"`
	CreatedBy            string    `json:"createdBy"`
	UpdatedAt            time.Time `json:"updatedAt"`
	UpdatedBy            string    `json:"updatedBy"`
	Version              int64     `json:"version" doc:"Counts the writes; the ETag is made of it."`
}

// present shows a record to a caller on a day.
func present(r Record, today Date) Student {
	return Student{
		StudentID: r.StudentID, FirstName: r.FirstName, LastName: r.LastName,
		DateOfBirth: r.DateOfBirth, Age: r.DateOfBirth.AgeOn(today),
		Address: Address{Street: r.Street, City: r.City, State: r.State, PinCode: r.PinCode, Country: r.Country},
		Mobile:  r.Mobile, Email: r.Email, FatherNameOrGuardian: r.GuardianName, MotherName: r.MotherName,
		Caste: r.Caste, Moles: r.Moles, AadhaarNumber: mask(r.AadhaarNumber), Status: r.Status,
		CreatedAt: r.CreatedAt.UTC(), CreatedBy: r.CreatedBy, UpdatedAt: r.UpdatedAt.UTC(), UpdatedBy: r.UpdatedBy,
		Version: r.Version,
	}
}

// mask hides all but the last four digits of an Aadhaar number.
func mask(aadhaar string) string {
	if len(aadhaar) < 4 {
		return ""
	}
	return "XXXX-XXXX-" + aadhaar[len(aadhaar)-4:]
}
