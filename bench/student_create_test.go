package bench

import (
	"bytes"
	"net/http"
	"testing"
)

// insertStudent is what the service does for one student. pgbench's own counters stand for the service's numbers, which no
// student is left without.
const insertStudent = `\set n :n + 1
\set number 100000000 * :run + 1000000 * :client_id + :n
with after as (
    insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
        email, guardian_name, mother_name, caste, moles, aadhaar_number, synthetic, created_by, updated_by)
    values ('STU-2027-' || :number, 'Asha', 'Patil', '2016-06-30', '12 Lake Road', 'Pune', 'Maharashtra', '411001', 'India',
        (1000000000::bigint + :number)::text, 'asha@example.com', 'Ravi Patil', 'Meera Patil', 'General', '', '123412341234', false, 'bench', 'bench')
    returning *
), audit as (
    insert into student_audit (student_id, version, action, changed_by, request_id, after)
    select student_id, version, 'CREATED', 'bench', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', to_jsonb(after) from after
), change as (
    insert into student_change (student_id, version, action, changed_by, request_id)
    select student_id, version, 'CREATED', 'bench', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' from after
)
select * from after;
`

// insertStudentInSteps does the same as a program does that sends one statement after the other.
const insertStudentInSteps = `\set n :n + 1
\set number 100000000 * :run + 1000000 * :client_id + :n
begin;
insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
    email, guardian_name, mother_name, caste, moles, aadhaar_number, synthetic, created_by, updated_by)
values ('STU-2028-' || :number, 'Asha', 'Patil', '2016-06-30', '12 Lake Road', 'Pune', 'Maharashtra', '411001', 'India',
    (2000000000::bigint + :number)::text, 'asha@example.com', 'Ravi Patil', 'Meera Patil', 'General', '', '123412341234', false, 'bench', 'bench');
insert into student_audit (student_id, version, action, changed_by, request_id, after)
select student_id, version, 'CREATED', 'bench', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', to_jsonb(student) from student where student_id = 'STU-2028-' || :number;
insert into student_change (student_id, version, action, changed_by, request_id)
values ('STU-2028-' || :number, 1, 'CREATED', 'bench', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ');
end;
`

const newStudent = `{"firstName":"Asha","lastName":"Patil","dateOfBirth":"2016-06-30","address":{"street":"12 Lake Road","city":"Pune","state":"Maharashtra",` +
	`"pinCode":"411001","country":"India"},"mobile":"7000000000","email":"asha@example.com","fatherNameOrGuardian":"Ravi Patil",` +
	`"motherName":"Meera Patil","caste":"General","aadhaarNumber":"123412341234"}`

// BenchmarkStudentCreate measures POST of students at 16 connections against pgbench writing the same rows in one transaction:
// in one statement, as the service does, and in three.
func BenchmarkStudentCreate(b *testing.B) {
	const connections = 16
	s := startStudentService(b)
	mobile, run := 7_000_000_000, 0
	ours := func() float64 { return s.create(b, connections, &mobile).perSecond }
	theirs := func(script string) func() float64 {
		return func() float64 {
			run++
			return pgbench{database: s.database, bin: s.Bin, script: script, clients: connections, threads: 1, duration: short(),
				variables: map[string]int{"n": 0, "run": run}}.run(b).perSecond
		}
	}
	for b.Loop() {
		against(b, "POST-16", "/s", ours, measure{"pgbench-one-statement", theirs(insertStudent)},
			measure{"pgbench-three-statements", theirs(insertStudentInSteps)})
	}
}

func (s *studentService) create(b *testing.B, connections int, mobile *int) load {
	b.Helper()
	text := request(http.MethodPost, "/api/v1/students", s.token, newStudent)
	at := bytes.Index(text, []byte("7000000000"))
	digits := text[at : at+10]
	got, err := generator{address: s.address, connections: connections, duration: short(), status: http.StatusCreated,
		next: func() ([]byte, []byte) {
			putNumber(digits, *mobile)
			*mobile++
			return text, digits
		}}.run()
	check(b, err)
	return got
}
