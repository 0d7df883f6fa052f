package configuration

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/school-sms/sms/api/server"
)

type profileOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Body   Profile
}

func answerProfile(p Profile) *profileOutput {
	p.UpdatedAt = p.UpdatedAt.UTC()
	return &profileOutput{Status: http.StatusOK, ETag: server.ETag(p.Version), Body: p}
}

func (s *service) getProfile(ctx context.Context, in *server.ReadInput) (*profileOutput, error) {
	p, err := s.store.Profile(ctx)
	if err != nil {
		return nil, err
	}
	out := answerProfile(p)
	out.Status = in.Status(out.ETag)
	return out, nil
}

type profileInput struct {
	ChangeInput
	Body struct {
		SchoolName string `json:"schoolName" doc:"1 to 200 characters." example:"Lake View School"`
		SchoolCode string `json:"schoolCode" doc:"1 to 50 characters." example:"LVS-01"`
		LogoPath   string `json:"logoPath,omitempty" doc:"At most 500 characters."`
		Address    string `json:"address,omitempty" doc:"At most 500 characters."`
		Phone      string `json:"phone,omitempty" doc:"Digits, spaces, + - ( and ); at most 20 characters."`
		Email      string `json:"email,omitempty"`
	}

	profile Profile
}

// Resolve applies the rules.
func (in *profileInput) Resolve(huma.Context) []error {
	b := in.Body
	in.profile = Profile{SchoolName: b.SchoolName, SchoolCode: b.SchoolCode, LogoPath: b.LogoPath, Address: b.Address,
		Phone: b.Phone, Email: b.Email}
	return errorsOf(checkProfile(&in.profile))
}

func (s *service) replaceProfile(ctx context.Context, in *profileInput) (*profileOutput, error) {
	current, err := s.store.Profile(ctx)
	if err != nil {
		return nil, err
	}
	if err := matchVersion(in.IfMatch, current.Version); err != nil {
		return nil, err
	}
	next := in.profile
	next.UpdatedAt, next.UpdatedBy, next.Version = current.UpdatedAt, current.UpdatedBy, current.Version
	if next == current {
		return answerProfile(current), nil
	}
	p, err := s.store.UpdateProfile(ctx, next, author(ctx))
	if err != nil {
		return nil, err
	}
	return answerProfile(p), nil
}
