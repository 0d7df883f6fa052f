package configuration

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

const (
	settings = "/api/v1/configurations/settings"
	profile  = "/api/v1/configurations/school-profile"
)

// service answers the HTTP operations.
type service struct {
	store *Store
	watch *watch
}

// Mount adds the operations on settings and profile to a server. Every role reads; only admins write.
func Mount(srv *server.Server, store *Store, cfg Config) {
	s := &service{store: store, watch: newWatch(cfg, store.Version)}
	srv.OnDrain(func(context.Context) { s.watch.close() })
	s.mountHistory(srv)
	writers := []identity.Role{identity.Admin}
	one := settings + "/{settingId}"
	stale := []int{http.StatusPreconditionFailed, http.StatusPreconditionRequired}
	staleOrGone := append([]int{http.StatusNotFound}, stale...)

	server.Register(srv, server.Operation{ID: "list-settings", Method: http.MethodGet, Path: settings,
		Summary: "Read all settings by category", Conditional: true}, s.list)
	server.Register(srv, server.Operation{ID: "create-setting", Method: http.MethodPost, Path: settings, Status: http.StatusCreated,
		Summary: "Add a setting", Roles: writers, Errors: []int{http.StatusConflict}}, s.create)
	server.Register(srv, server.Operation{ID: "list-settings-of-category", Method: http.MethodGet, Path: settings + "/category/{category}",
		Summary: "Read the settings of a category", Conditional: true}, s.category)
	server.Register(srv, server.Operation{ID: "get-setting", Method: http.MethodGet, Path: one,
		Summary: "Read a setting", Conditional: true, Errors: []int{http.StatusNotFound}}, s.get)
	server.Register(srv, server.Operation{ID: "replace-setting", Method: http.MethodPut, Path: one,
		Summary: "Change a setting's value and description", Roles: writers, Errors: staleOrGone, Context: s.withService}, s.replace)
	server.Register(srv, server.Operation{ID: "delete-setting", Method: http.MethodDelete, Path: one, Status: http.StatusNoContent,
		Summary: "Remove a setting: services fall back to their defaults", Roles: writers,
		Errors: append([]int{http.StatusConflict}, staleOrGone...)}, s.delete)
	server.Register(srv, server.Operation{ID: "get-school-profile", Method: http.MethodGet, Path: profile,
		Summary: "Read the school profile", Conditional: true}, s.getProfile)
	server.Register(srv, server.Operation{ID: "replace-school-profile", Method: http.MethodPut, Path: profile,
		Summary: "Replace the school profile", Roles: writers, Errors: stale}, s.replaceProfile)
}

type serviceKey struct{}

// withService gives the resolver of a change the service.
func (s *service) withService(ctx context.Context) context.Context {
	return context.WithValue(ctx, serviceKey{}, s)
}

func author(ctx context.Context) Author {
	return Author{User: identity.FromContext(ctx).User, RequestID: server.RequestID(ctx)}
}

// matchVersion asks for the version that is there.
func matchVersion(ifMatch string, current int64) error {
	version, err := server.MatchVersion(ifMatch)
	if err == nil && version != current {
		err = server.ConcurrentUpdate()
	}
	return err
}

func errorsOf(faults []server.Fault) []error {
	errs := make([]error, len(faults))
	for i, fault := range faults {
		errs[i] = fault
	}
	return errs
}

type settingOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Send it as If-Match to write over this version."`
	Body   Setting
}

func answer(s Setting) *settingOutput {
	s.UpdatedAt = s.UpdatedAt.UTC()
	return &settingOutput{Status: http.StatusOK, ETag: server.ETag(s.Version), Body: s}
}

// ListHeader is what the lists say of themselves. It is exported because huma looks into exported fields only.
type ListHeader struct {
	ETag    string `header:"ETag" doc:"The version of all settings as an entity tag."`
	Version int64  `header:"Settings-Version" doc:"The version of all settings: it changes with every write of any of them. 0: the defaults."`
}

func headerOf(l List) ListHeader { return ListHeader{server.ETag(l.Version), l.Version} }

type listInput struct {
	server.ReadInput
	WaitForVersion int64 `query:"waitForVersion" default:"-1" minimum:"-1" doc:"Answer once the version is above this one, or after about 15 seconds with the same list. Any but the present version answers at once; -1 does not wait."`
}

type listOutput struct {
	Status int
	ListHeader
	Body Grouped
}

// Grouped is all settings by category.
type Grouped struct {
	General   []Setting `json:"GENERAL" nullable:"false"`
	Academic  []Setting `json:"ACADEMIC" nullable:"false"`
	Financial []Setting `json:"FINANCIAL" nullable:"false"`
}

func (s *service) list(ctx context.Context, in *listInput) (*listOutput, error) {
	read := s.store.Settings
	if in.WaitForVersion >= 0 {
		read = s.store.CurrentSettings
	}
	list, err := read(ctx, Categories()...)
	if err == nil && list.Version == in.WaitForVersion {
		s.watch.above(ctx, in.WaitForVersion)
		list, err = read(ctx, Categories()...)
	}
	if err != nil {
		return nil, err
	}
	out := listOutput{ListHeader: headerOf(list), Body: Grouped{General: []Setting{}, Academic: []Setting{}, Financial: []Setting{}}}
	out.Status = in.Status(out.ETag)
	for _, setting := range list.Settings {
		setting.UpdatedAt = setting.UpdatedAt.UTC()
		group := map[Category]*[]Setting{General: &out.Body.General, Academic: &out.Body.Academic, Financial: &out.Body.Financial}[setting.Category]
		*group = append(*group, setting)
	}
	return &out, nil
}

type categoryInput struct {
	server.ReadInput
	Category Category `path:"category" enum:"GENERAL,ACADEMIC,FINANCIAL"`
}

type categoryOutput struct {
	Status int
	ListHeader
	Body []Setting `nullable:"false"`
}

func (s *service) category(ctx context.Context, in *categoryInput) (*categoryOutput, error) {
	list, err := s.store.Settings(ctx, in.Category)
	if err != nil {
		return nil, err
	}
	out := categoryOutput{ListHeader: headerOf(list), Body: make([]Setting, len(list.Settings))}
	out.Status = in.Status(out.ETag)
	for i, setting := range list.Settings {
		setting.UpdatedAt = setting.UpdatedAt.UTC()
		out.Body[i] = setting
	}
	return &out, nil
}

// SettingInput names a setting. It is exported because huma looks into exported fields only.
type SettingInput struct {
	SettingID int64 `path:"settingId" minimum:"1"`
}

// ChangeInput names the version that the caller has seen.
type ChangeInput struct {
	IfMatch string `header:"If-Match" doc:"The ETag that you last read." example:"\"1\""`
}

type getInput struct {
	SettingInput
	server.ReadInput
}

func (s *service) get(ctx context.Context, in *getInput) (*settingOutput, error) {
	setting, err := s.store.Setting(ctx, in.SettingID)
	if err != nil {
		return nil, err
	}
	out := answer(setting)
	out.Status = in.Status(out.ETag)
	return out, nil
}

type createInput struct {
	server.Repeatable
	Body struct {
		Category    Category `json:"category" enum:"GENERAL,ACADEMIC,FINANCIAL"`
		Key         string   `json:"key" doc:"UPPER_SNAKE_CASE, at most 100 characters, unique in its category." example:"LIBRARY_OPENS_AT"`
		Value       string   `json:"value" doc:"1 to 2000 characters. Keys that services act on have rules of their own." example:"08:30"`
		Description string   `json:"description,omitempty" doc:"At most 500 characters."`
	}

	setting Setting
}

// Resolve applies the rules.
func (in *createInput) Resolve(huma.Context) []error {
	in.setting = Setting{Category: in.Body.Category, Key: in.Body.Key, Value: in.Body.Value, Description: in.Body.Description}
	return errorsOf(checkSetting(&in.setting))
}

type createdOutput struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Setting
}

func (s *service) create(ctx context.Context, in *createInput) (*createdOutput, error) {
	setting, err := server.Once(ctx, s.store.db, in.Repeatable, "create-setting", func(on postgres.Conn) (Setting, error) {
		return s.store.Create(ctx, on, in.setting, author(ctx))
	})
	if err != nil {
		return nil, err
	}
	out := answer(setting)
	return &createdOutput{ETag: out.ETag, Location: fmt.Sprintf("%s/%d", settings, setting.SettingID), Body: out.Body}, nil
}

type replaceInput struct {
	SettingInput
	ChangeInput
	Body struct {
		Category    *Category `json:"category,omitempty" enum:"GENERAL,ACADEMIC,FINANCIAL" doc:"May be sent, but not changed."`
		Key         *string   `json:"key,omitempty" doc:"May be sent, but not changed."`
		Value       string    `json:"value" doc:"1 to 2000 characters. Keys that services act on have rules of their own."`
		Description string    `json:"description,omitempty" doc:"At most 500 characters."`
	}

	current, setting Setting
}

// Resolve reads what is stored, which says which rules hold, and applies them.
func (in *replaceInput) Resolve(ctx huma.Context) []error {
	s, _ := ctx.Context().Value(serviceKey{}).(*service)
	current, err := s.store.Setting(ctx.Context(), in.SettingID)
	if err != nil {
		return []error{server.AsProblem(err)}
	}
	in.current, in.setting = current, current
	in.setting.Value, in.setting.Description = in.Body.Value, in.Body.Description
	faults := checkSetting(&in.setting)
	if in.Body.Category != nil && *in.Body.Category != current.Category {
		faults = append(faults, server.Fault{Field: "category", Code: "read-only", Detail: "cannot be changed: make another setting"})
	}
	if in.Body.Key != nil && *in.Body.Key != current.Key {
		faults = append(faults, server.Fault{Field: "key", Code: "read-only", Detail: "cannot be changed: make another setting"})
	}
	return errorsOf(faults)
}

func (s *service) replace(ctx context.Context, in *replaceInput) (*settingOutput, error) {
	if err := matchVersion(in.IfMatch, in.current.Version); err != nil {
		return nil, err
	}
	if in.setting == in.current {
		return answer(in.current), nil
	}
	setting, err := s.store.Update(ctx, in.setting, author(ctx))
	if err != nil {
		return nil, err
	}
	return answer(setting), nil
}

type deleteInput struct {
	SettingInput
	ChangeInput
}

func (s *service) delete(ctx context.Context, in *deleteInput) (*struct{}, error) {
	current, err := s.store.Setting(ctx, in.SettingID)
	if err != nil {
		return nil, err
	}
	if err := matchVersion(in.IfMatch, current.Version); err != nil {
		return nil, err
	}
	return nil, s.store.Delete(ctx, current.SettingID, current.Version, author(ctx))
}
