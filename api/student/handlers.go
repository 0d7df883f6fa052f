package student

import (
	"context"
	"net/http"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

const collection = "/api/v1/students"

// service answers the HTTP operations.
type service struct {
	store  *Store
	school func() School
	now    func() time.Time
}

func (s *service) today() Date { return DateOf(s.now().In(s.school().Zone)) }

// Mount adds the operations on students to a server. school says what holds now, and now what time it is.
func Mount(srv *server.Server, store *Store, school func() School, now func() time.Time) {
	s := &service{store: store, school: school, now: now}
	readers := []identity.Role{identity.Clerk, identity.Viewer}
	one := collection + "/{studentId}"
	stale := []int{http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed, http.StatusPreconditionRequired}
	staleOrTaken := append([]int{http.StatusConflict}, stale...)

	server.Register(srv, server.Operation{ID: "create-student", Method: http.MethodPost, Path: collection, Status: http.StatusCreated,
		Summary: "Register a student", Roles: []identity.Role{identity.Clerk, identity.Operator},
		Errors: []int{http.StatusConflict}, Context: s.withService}, s.create)
	s.mountSearch(srv)
	server.Register(srv, server.Operation{ID: "student-statistics", Method: http.MethodGet, Path: collection + "/statistics",
		Summary: "Count students", Roles: append(readers, identity.Operator)}, s.statistics)
	server.Register(srv, server.Operation{ID: "get-student", Method: http.MethodGet, Path: one,
		Summary: "Read a student", Roles: append(readers, identity.Operator), Errors: []int{http.StatusForbidden, http.StatusNotFound, http.StatusGone},
		Fast: s.getFast}, s.get)
	server.Register(srv, server.Operation{ID: "replace-student", Method: http.MethodPut, Path: one,
		Summary: "Replace a student's details", Roles: []identity.Role{identity.Clerk}, Errors: staleOrTaken,
		Context: s.withService}, s.replace)
	server.Register(srv, server.Operation{ID: "patch-student", Method: http.MethodPatch, Path: one,
		Summary: "Change some of a student's details (JSON merge patch, RFC 7396)", Roles: []identity.Role{identity.Clerk},
		Errors: staleOrTaken, Context: s.withService}, s.patch)
	server.Register(srv, server.Operation{ID: "set-student-status", Method: http.MethodPatch, Path: one + "/status",
		Summary: "Activate or deactivate a student", Roles: []identity.Role{identity.Clerk, identity.Operator}, Errors: stale}, s.setStatus)
	server.Register(srv, server.Operation{ID: "delete-student", Method: http.MethodDelete, Path: one,
		Summary: "Deactivate a student; a synthetic one is removed for good", Roles: []identity.Role{identity.Clerk, identity.Operator},
		Errors: stale}, s.delete)
	server.Register(srv, server.Operation{ID: "student-history", Method: http.MethodGet, Path: one + "/history",
		Summary: "Read every write of a student, the newest first", Roles: readers, Errors: []int{http.StatusNotFound}}, s.history)
	s.mountChanges(srv)
	s.mountErasure(srv)
}

func author(ctx context.Context) Author {
	return Author{User: identity.FromContext(ctx).User, RequestID: server.RequestID(ctx)}
}

func (s *service) answer(r Record) *studentOutput {
	return &studentOutput{ETag: server.ETag(r.Version), Body: present(r, s.today())}
}

func (s *service) create(ctx context.Context, in *createInput) (*createdOutput, error) {
	if err := mayWrite(ctx, in.Synthetic); err != nil {
		return nil, err
	}
	id, err := s.store.NewID(ctx, in.registered.Year, in.Synthetic)
	if err != nil {
		return nil, err
	}
	var record Record
	id, err = server.Once(ctx, s.store.db, in.Repeatable, "create-student", func(on postgres.Conn) (string, error) {
		var err error
		record, err = s.store.Create(ctx, on, id, in.details, in.Synthetic, author(ctx))
		return record.StudentID, err
	})
	if err == nil && record.StudentID == "" { // answered before
		record, err = s.store.AsCreated(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	out := s.answer(record)
	return &createdOutput{ETag: out.ETag, Location: collection + "/" + record.StudentID, Body: out.Body}, nil
}

func (s *service) get(ctx context.Context, in *getInput) (*studentOutput, error) {
	if in.Reveal != "" {
		return s.reveal(ctx, in)
	}
	record, err := s.readBy(ctx, in.StudentID, s.store.Read)
	if err != nil {
		return nil, err
	}
	return s.answer(record), nil
}

func (s *service) replace(ctx context.Context, in *replaceInput) (*studentOutput, error) {
	return s.update(ctx, in.IfMatch, in.current, in.details, in.current.Status, Updated)
}

func (s *service) patch(ctx context.Context, in *patchInput) (*studentOutput, error) {
	return s.update(ctx, in.IfMatch, in.current, in.details, in.current.Status, Updated)
}

func (s *service) setStatus(ctx context.Context, in *statusInput) (*studentOutput, error) {
	current, err := s.read(ctx, in.StudentID)
	if err != nil {
		return nil, err
	}
	return s.update(ctx, in.IfMatch, current, current.Details, in.Body.Status, StatusChanged)
}

func (s *service) delete(ctx context.Context, in *ChangeInput) (*deletedOutput, error) {
	current, err := s.read(ctx, in.StudentID)
	if err != nil {
		return nil, err
	}
	if !current.Synthetic {
		out, err := s.update(ctx, in.IfMatch, current, current.Details, Inactive, Deleted)
		if err != nil {
			return nil, err
		}
		return &deletedOutput{ETag: out.ETag}, nil
	}
	if err := mayChange(ctx, current, in.IfMatch); err != nil {
		return nil, err
	}
	return &deletedOutput{}, s.store.Remove(ctx, current)
}

// update writes over the version that the caller has seen, and no other.
func (s *service) update(ctx context.Context, ifMatch string, current Record, d Details, status Status, action Action) (*studentOutput, error) {
	if err := mayChange(ctx, current, ifMatch); err != nil {
		return nil, err
	}
	record, err := s.store.Update(ctx, current, d, status, action, author(ctx))
	if err != nil {
		return nil, err
	}
	return s.answer(record), nil
}

// read gets a record that the caller may see, for a write.
func (s *service) read(ctx context.Context, id string) (Record, error) {
	return s.readBy(ctx, id, s.store.Get)
}

// readBy gets a record that the caller may see in one of the store's ways.
func (s *service) readBy(ctx context.Context, id string, get func(context.Context, string) (Record, error)) (Record, error) {
	if !validID.MatchString(id) {
		return Record{}, notFound()
	}
	record, err := get(ctx, id)
	if err != nil {
		return Record{}, s.store.orErased(ctx, id, err)
	}
	if identity.FromContext(ctx).Role == identity.Operator && !record.Synthetic {
		return Record{}, server.Forbidden("operators see synthetic students only")
	}
	return record, nil
}

// mayWrite lets clerks write real students only, and operators synthetic ones only.
func mayWrite(ctx context.Context, synthetic bool) error {
	switch role := identity.FromContext(ctx).Role; {
	case role == identity.Operator && !synthetic:
		return server.Forbidden("operators write synthetic students only")
	case role == identity.Clerk && synthetic:
		return server.Forbidden("clerks write no synthetic students")
	}
	return nil
}

// mayChange asks for the right role and for the version that the caller has seen.
func mayChange(ctx context.Context, current Record, ifMatch string) error {
	if err := mayWrite(ctx, current.Synthetic); err != nil {
		return err
	}
	version, err := server.MatchVersion(ifMatch)
	if err == nil && version != current.Version {
		err = server.ConcurrentUpdate()
	}
	return err
}
