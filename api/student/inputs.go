package student

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"

	"github.com/danielgtaylor/huma/v2"

	"github.com/school-sms/sms/api/server"
)

var validID = regexp.MustCompile(`^STU-[0-9]{4}-[0-9]{5,18}$`)

type serviceKey struct{}

// withService gives the resolvers below the service, so that the faults of the rules are named together with those of the
// schema.
func (s *service) withService(ctx context.Context) context.Context {
	return context.WithValue(ctx, serviceKey{}, s)
}

func serviceFrom(ctx context.Context) *service {
	s, _ := ctx.Value(serviceKey{}).(*service)
	return s
}

// OneInput names a student. It is exported because huma looks into exported fields only.
type OneInput struct {
	StudentID string `path:"studentId" example:"STU-2026-00001"`
}

// ChangeInput names a student and the version that the caller has seen.
type ChangeInput struct {
	OneInput
	IfMatch string `header:"If-Match" doc:"The ETag that you last read." example:"\"1\""`
}

type createInput struct {
	server.Repeatable
	Synthetic bool `header:"X-SMS-Synthetic" doc:"Operators and admins: a student of a smoke test, in no search, statistic or change, removed for good by DELETE."`
	Body      Input

	details    Details
	registered Date
}

// Resolve applies the rules.
func (in *createInput) Resolve(ctx huma.Context) []error {
	s := serviceFrom(ctx.Context())
	in.registered = s.today()
	details, faults := Rules{Ages: s.school().Ages, Registered: in.registered}.Check(in.Body)
	in.details = details
	return errorsOf(faults)
}

type replaceInput struct {
	ChangeInput
	Body Input

	current Record
	details Details
}

// Resolve reads what is stored, which the rules need, and applies them.
func (in *replaceInput) Resolve(ctx huma.Context) []error {
	s := serviceFrom(ctx.Context())
	current, err := s.read(ctx.Context(), in.StudentID)
	if err != nil {
		return []error{server.AsProblem(err)}
	}
	in.current = current
	details, faults := s.rulesFor(&in.current).Check(in.Body)
	in.details = details
	return errorsOf(faults)
}

type patchInput struct {
	ChangeInput
	Body patch `contentType:"application/merge-patch+json"`

	current Record
	details Details
}

// patch is Input with every field optional: null takes an optional field away. The fields are there for the schema; what is
// absent and what is null only the document tells, so that is what is kept.
type patch struct {
	document []byte

	FirstName            *string       `json:"firstName,omitempty"`
	LastName             *string       `json:"lastName,omitempty"`
	DateOfBirth          *string       `json:"dateOfBirth,omitempty" format:"date"`
	Address              *addressPatch `json:"address,omitempty"`
	Mobile               *string       `json:"mobile,omitempty"`
	Email                *string       `json:"email,omitempty" nullable:"true"`
	FatherNameOrGuardian *string       `json:"fatherNameOrGuardian,omitempty"`
	MotherName           *string       `json:"motherName,omitempty"`
	Caste                *string       `json:"caste,omitempty"`
	Moles                *string       `json:"moles,omitempty" nullable:"true"`
	AadhaarNumber        *string       `json:"aadhaarNumber,omitempty" nullable:"true"`
}

// UnmarshalJSON keeps the document.
func (p *patch) UnmarshalJSON(document []byte) error {
	p.document = bytes.Clone(document)
	return nil
}

type addressPatch struct {
	Street  *string `json:"street,omitempty"`
	City    *string `json:"city,omitempty"`
	State   *string `json:"state,omitempty"`
	PinCode *string `json:"pinCode,omitempty"`
	Country *string `json:"country,omitempty"`
}

// Resolve reads what is stored, merges the patch into it, and applies the rules.
func (in *patchInput) Resolve(ctx huma.Context) []error {
	s := serviceFrom(ctx.Context())
	current, err := s.read(ctx.Context(), in.StudentID)
	if err != nil {
		return []error{server.AsProblem(err)}
	}
	in.current = current
	merged, ok := applyPatch(inputOf(current.Details), in.Body.document)
	if !ok {
		return nil // the schema has refused it
	}
	details, faults := s.rulesFor(&in.current).Check(merged)
	in.details = details
	return errorsOf(faults)
}

// applyPatch merges a patch into an input (RFC 7396, section 2). What is of another type than the input's field is left
// empty there.
func applyPatch(in Input, patch []byte) (Input, bool) {
	var change any
	if json.Unmarshal(patch, &change) != nil {
		return Input{}, false
	}
	document, err := json.Marshal(in)
	if err != nil {
		return Input{}, false
	}
	var target any
	if err := json.Unmarshal(document, &target); err != nil {
		return Input{}, false
	}
	if document, err = json.Marshal(mergePatch(target, change)); err != nil {
		return Input{}, false
	}
	var merged Input
	_ = json.Unmarshal(document, &merged)
	return merged, true
}

func mergePatch(target, change any) any {
	fields, ok := change.(map[string]any)
	if !ok {
		return change
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	for name, value := range fields {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// inputOf is the input that would make the details.
func inputOf(d Details) Input {
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return Input{
		FirstName: d.FirstName, LastName: d.LastName, DateOfBirth: d.DateOfBirth.String(),
		Address: Address{Street: d.Street, City: d.City, State: d.State, PinCode: d.PinCode, Country: d.Country},
		Mobile:  d.Mobile, Email: optional(d.Email), FatherNameOrGuardian: d.GuardianName, MotherName: d.MotherName,
		Caste: d.Caste, Moles: optional(d.Moles), AadhaarNumber: optional(d.AadhaarNumber),
	}
}

// rulesFor are the rules for a student who is registered.
func (s *service) rulesFor(current *Record) Rules {
	school := s.school()
	return Rules{Ages: school.Ages, Registered: DateOf(current.CreatedAt.In(school.Zone)), Current: &current.Details}
}

func errorsOf(faults []server.Fault) []error {
	errs := make([]error, len(faults))
	for i, fault := range faults {
		errs[i] = fault
	}
	return errs
}

type statusInput struct {
	ChangeInput
	Body struct {
		Status Status `json:"status" enum:"ACTIVE,INACTIVE"`
	}
}
