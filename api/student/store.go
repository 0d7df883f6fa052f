package student

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/postgres"
)

// Action says what a write did, in history and changes.
type Action string

// The actions.
const (
	Created       Action = "CREATED"
	Updated       Action = "UPDATED"
	StatusChanged Action = "STATUS_CHANGED"
	Deleted       Action = "DELETED"
)

// Author is who a write is put down to.
type Author struct{ User, RequestID string }

// Store keeps students in PostgreSQL. Each write is one statement, so that the audit and change rows stand or fall with it.
type Store struct {
	db      *postgres.DB
	cursors cursors
	reads   sync.Map // *pgxpool.Pool → *reads
	numbers sync.Map // series → *numbers
}

// NewStore keeps students in the database.
func NewStore(db *postgres.DB) *Store { return &Store{db: db} }

const recordColumns = `student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
	email, guardian_name, mother_name, caste, moles, aadhaar_number, status, synthetic, version,
	created_at, created_by, updated_at, updated_by`

// fields are the places of recordColumns.
func (r *Record) fields() []any {
	return []any{&r.StudentID, &r.FirstName, &r.LastName, &r.DateOfBirth, &r.Street, &r.City, &r.State, &r.PinCode, &r.Country, &r.Mobile,
		&r.Email, &r.GuardianName, &r.MotherName, &r.Caste, &r.Moles, &r.AadhaarNumber, &r.Status, &r.Synthetic, &r.Version,
		&r.CreatedAt, &r.CreatedBy, &r.UpdatedAt, &r.UpdatedBy}
}

func scanRecord(row pgx.CollectableRow) (Record, error) {
	var r Record
	err := row.Scan(r.fields()...)
	return r, err
}

const insertStudent = `
with after as (
    insert into student (student_id, first_name, last_name, date_of_birth, street, city, state, pin_code, country, mobile,
        email, guardian_name, mother_name, caste, moles, aadhaar_number, synthetic, created_by, updated_by)
    values (@student_id, @first_name, @last_name, @date_of_birth, @street, @city, @state, @pin_code, @country, @mobile,
        @email, @guardian_name, @mother_name, @caste, @moles, @aadhaar_number, @synthetic, @user, @user)
    returning ` + recordColumns + `
), audit as (
    insert into student_audit (student_id, version, action, changed_by, request_id, after)
    select student_id, version, 'CREATED', @user, @request_id, to_jsonb(after) from after
), change as (
    insert into student_change (student_id, version, action, changed_by, request_id)
    select student_id, version, 'CREATED', @user, @request_id from after where not synthetic
)
select ` + recordColumns + ` from after`

// Create adds a student under an id of NewID, on a pool or in a transaction. Errors: duplicate-mobile.
func (s *Store) Create(ctx context.Context, on postgres.Conn, id string, d Details, synthetic bool, by Author) (Record, error) {
	args := d.args()
	args["student_id"], args["synthetic"] = id, synthetic
	args["user"], args["request_id"] = by.User, by.RequestID
	return write(ctx, on, "create a student", insertStudent, args)
}

// before and after read the same snapshot: before is the version that was written over.
const updateStudent = `
with before as (
    select ` + recordColumns + ` from student where student_id = @student_id and version = @version
), after as (
    update student
    set first_name = @first_name, last_name = @last_name, date_of_birth = @date_of_birth,
        street = @street, city = @city, state = @state, pin_code = @pin_code, country = @country,
        mobile = @mobile, email = @email, guardian_name = @guardian_name, mother_name = @mother_name,
        caste = @caste, moles = @moles, aadhaar_number = @aadhaar_number, status = @status,
        version = version + 1, updated_at = now(), updated_by = @user
    where student_id = @student_id and version = @version
    returning ` + recordColumns + `
), audit as (
    insert into student_audit (student_id, version, action, changed_by, request_id, before, after)
    select after.student_id, after.version, @action, @user, @request_id, to_jsonb(before), to_jsonb(after)
    from after join before using (student_id)
), change as (
    insert into student_change (student_id, version, action, changed_by, request_id)
    select student_id, version, @action, @user, @request_id from after where not synthetic
)
select ` + recordColumns + ` from after`

// Update writes details and status over the current record, and nothing when they are what is there. Errors:
// concurrent-update when the record has another version by now, duplicate-mobile.
func (s *Store) Update(ctx context.Context, current Record, d Details, status Status, action Action, by Author) (Record, error) {
	if d == current.Details && status == current.Status {
		return current, nil
	}
	args := d.args()
	args["student_id"], args["version"], args["status"], args["action"] = current.StudentID, current.Version, status, action
	args["user"], args["request_id"] = by.User, by.RequestID
	return write(ctx, s.db, "update a student", updateStudent, args)
}

// write runs a statement that answers the one record that it wrote. That there is none means that the version was another.
func write(ctx context.Context, on postgres.Conn, what, sql string, args pgx.NamedArgs) (Record, error) {
	rows, _ := on.Query(ctx, sql, namedArgs(args)) // CollectExactlyOneRow returns the error
	record, err := pgx.CollectExactlyOneRow(rows, scanRecord)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Record{}, server.ConcurrentUpdate()
	case postgres.ViolatedConstraint(err) == "student_mobile_key":
		return Record{}, server.NewProblem(http.StatusConflict, "duplicate-mobile", "another student has this mobile number",
			server.Fault{Field: "mobile", Code: "duplicate", Detail: "another student has this mobile number"})
	case err != nil:
		return Record{}, fmt.Errorf("%s: %w", what, err)
	}
	return record, nil
}

const deleteSynthetic = `
with gone as (
    delete from student where student_id = $1 and version = $2 and synthetic returning student_id
), audit as (
    delete from student_audit where student_id in (select student_id from gone)
)
select count(*) from gone`

// Remove takes a synthetic student out for good, with its history. Errors: concurrent-update.
func (s *Store) Remove(ctx context.Context, current Record) error {
	var removed int
	if err := s.db.QueryRow(ctx, deleteSynthetic, current.StudentID, current.Version).Scan(&removed); err != nil {
		return fmt.Errorf("remove a synthetic student: %w", err)
	}
	if removed == 0 {
		return server.ConcurrentUpdate()
	}
	return nil
}

const selectStudent = `select ` + recordColumns + ` from student where student_id = $1`

// Get reads one student for a write that depends on it, synthetic ones too. Errors: not-found.
func (s *Store) Get(ctx context.Context, id string) (Record, error) {
	rows, _ := s.db.Reader(ctx).Query(ctx, selectStudent, id) // of the primary, for a write
	record, err := pgx.CollectExactlyOneRow(rows, scanRecord)
	if errors.Is(err, pgx.ErrNoRows) {
		return Record{}, notFound()
	} else if err != nil {
		return Record{}, fmt.Errorf("read a student: %w", err)
	}
	return record, nil
}

func notFound() error { return server.NotFound("there is no student with this id") }

const selectCreated = `select after from student_audit where student_id = $1 and version = 1`

// AsCreated reads a student as its first write left it. Errors: not-found.
func (s *Store) AsCreated(ctx context.Context, id string) (Record, error) {
	var first *Record
	err := s.db.QueryRow(ctx, selectCreated, id).Scan(&first)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && first == nil {
		return Record{}, s.orErased(ctx, id, notFound())
	} else if err != nil {
		return Record{}, fmt.Errorf("read a student as created: %w", err)
	}
	return *first, nil
}

func (d Details) args() pgx.NamedArgs {
	return pgx.NamedArgs{
		"first_name": d.FirstName, "last_name": d.LastName, "date_of_birth": d.DateOfBirth,
		"street": d.Street, "city": d.City, "state": d.State, "pin_code": d.PinCode, "country": d.Country,
		"mobile": d.Mobile, "email": d.Email, "guardian_name": d.GuardianName, "mother_name": d.MotherName,
		"caste": d.Caste, "moles": d.Moles, "aadhaar_number": d.AadhaarNumber,
	}
}
