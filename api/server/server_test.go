package server_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/golang-jwt/jwt/v5"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

type noteInput struct {
	Count int `query:"count" minimum:"1"`
	Body  struct {
		Title string `json:"title"`
		Inner struct {
			Colour string `json:"colour" enum:"red,blue"`
		} `json:"inner"`
	}
}

// Resolve has rules that the schema does not know.
func (in *noteInput) Resolve(huma.Context) []error {
	var errs []error
	if in.Body.Title != "good" {
		errs = append(errs, server.Fault{Field: "title", Code: "not-good", Detail: "must be good", Alone: "invalid-age"})
	}
	if in.Body.Inner.Colour != "red" {
		errs = append(errs, server.Fault{Field: "inner.colour", Code: "not-red", Detail: "must be red"})
	}
	return errs
}

type noteOutput struct {
	Body struct {
		RequestID string `json:"requestId"`
		User      string `json:"user"`
	}
}

// newService has one operation that fails as its query says, and one that panics.
func newService(t *testing.T, cfg server.Config) *servertest.Service {
	t.Helper()
	s := servertest.New(t, "note-service", cfg)
	server.Register(s.Server, server.Operation{ID: "write-note", Method: http.MethodPost, Path: "/api/v1/notes", Summary: "Write",
		Roles: []identity.Role{identity.Clerk}}, func(ctx context.Context, in *noteInput) (*noteOutput, error) {
		out := &noteOutput{}
		out.Body.RequestID, out.Body.User = server.RequestID(ctx), identity.FromContext(ctx).User
		return out, nil
	})
	server.Register(s.Server, server.Operation{ID: "fail", Method: http.MethodGet, Path: "/api/v1/failures/{how}", Summary: "Fail"},
		func(_ context.Context, in *struct {
			How string `path:"how"`
		}) (*struct{}, error) {
			switch in.How {
			case "panic":
				panic("secret 1")
			case "unavailable":
				return nil, server.Unavailable("come back", errors.New("secret 2"))
			case "wrapped":
				return nil, fmt.Errorf("write: %w", server.ConcurrentUpdate())
			case "cancelled":
				return nil, fmt.Errorf("secret 3: %w", context.DeadlineExceeded)
			}
			return nil, errors.New("secret 4")
		})
	return s
}

func TestEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	for _, test := range []struct {
		name, query, body string
		status            int
		problem           string
		want              map[string]string
	}{
		{"schema, rules and parameters", "?count=0&x=1", `{"title":"bad","inner":{"colour":"green"},"more":1}`, 422, "validation-error",
			map[string]string{"count": "too-small", "x": "unknown-field", "title": "not-good", "inner.colour": "not-allowed", "more": "unknown-field"}},
		{"a rule below a field that is missing says nothing", "", `{"title":"good"}`, 422, "validation-error", map[string]string{"inner": "required"}},
		{"the case of a field counts", "", `{"Title":"good","title":"good","inner":{"colour":"red"}}`, 422, "validation-error", map[string]string{"Title": "unknown-field"}},
		{"an unknown parameter alone", "?x=1", `{"title":"good","inner":{"colour":"red"}}`, 422, "validation-error", map[string]string{"x": "unknown-field"}},
		{"a parameter twice", "?count=1&count=2", `{"title":"good","inner":{"colour":"red"}}`, 422, "validation-error", map[string]string{"count": "duplicate"}},
		{"a query that cannot be read", "?count=1;2", `{"title":"good","inner":{"colour":"red"}}`, 422, "validation-error", map[string]string{"": "wrong-format"}},
		{"a rule alone names the problem", "", `{"title":"bad","inner":{"colour":"red"}}`, 422, "invalid-age", map[string]string{"title": "not-good"}},
		{"two faults do not", "", `{"title":"bad","inner":{"colour":"blue"}}`, 422, "validation-error", map[string]string{"title": "not-good", "inner.colour": "not-red"}},
		{"no JSON", "", `{"title":"secret`, 400, "validation-error", map[string]string{"": "not-json"}},
		{"no object", "", `[]`, 422, "validation-error", map[string]string{"": "wrong-type"}},
		{"no body", "", ``, 400, "validation-error", map[string]string{"": "required"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			answer := s.Do(t, identity.Clerk, http.MethodPost, "/api/v1/notes"+test.query, test.body)
			if got := answer.Faults(test.status, test.problem); !maps.Equal(got, test.want) {
				t.Errorf("faults %v, want %v", got, test.want)
			}
			if strings.Contains(string(answer.Body), "secret") {
				t.Errorf("the input comes back: %s", answer.Body)
			}
		})
	}
	answer := s.Do(t, identity.Clerk, http.MethodPost, "/api/v1/notes", `title=good`, "Content-Type", "application/x-www-form-urlencoded")
	answer.Problem(http.StatusUnsupportedMediaType, "validation-error")
}

func TestProblems(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{MaxBodyBytes: 100})
	s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/nothing", nil).Problem(http.StatusNotFound, "not-found")
	s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/notes/", nil).Problem(http.StatusNotFound, "not-found")
	if problem := s.Do(t, identity.Clerk, http.MethodGet, "/api/%20/%ff", nil).Problem(http.StatusNotFound, "not-found"); problem.Instance != "/api/%20/%ff" {
		t.Errorf("instance %q is no URI reference", problem.Instance)
	}
	answer := s.Do(t, identity.Clerk, http.MethodDelete, "/api/v1/notes", nil)
	answer.Problem(http.StatusMethodNotAllowed, "not-found")
	if got := answer.Header.Get("Allow"); got != http.MethodPost {
		t.Errorf("Allow %q", got)
	}
	s.Do(t, identity.Viewer, http.MethodPost, "/api/v1/notes", `{}`).Problem(http.StatusForbidden, "forbidden")

	for how, want := range map[string]struct {
		status int
		name   string
	}{"panic": {500, "internal-error"}, "unknown": {500, "internal-error"}, "unavailable": {503, "unavailable"},
		"cancelled": {503, "unavailable"}, "wrapped": {412, "concurrent-update"}} {
		answer := s.Do(t, identity.Viewer, http.MethodGet, "/api/v1/failures/"+how, nil)
		problem := answer.Problem(want.status, want.name)
		if strings.Contains(string(answer.Body), "secret") || strings.Contains(string(answer.Body), "goroutine") {
			t.Errorf("%s says too much: %s", how, answer.Body)
		}
		if want.status == 500 && problem.Detail != "internal error" {
			t.Errorf("%s: detail %q", how, problem.Detail)
		}
		if (answer.Header.Get("Retry-After") != "") != (want.status == 503) {
			t.Errorf("%s: Retry-After %q", how, answer.Header.Get("Retry-After"))
		}
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	const limit = 100
	s := newService(t, server.Config{MaxBodyBytes: limit})
	body := func(n int) string {
		const rest = `{"title":"good","inner":{"colour":"red"}}`
		return rest + strings.Repeat(" ", n-len(rest))
	}
	s.Do(t, identity.Clerk, http.MethodPost, "/api/v1/notes", body(limit)).Want(http.StatusOK)
	s.Do(t, identity.Clerk, http.MethodPost, "/api/v1/notes", body(limit+1)).Problem(http.StatusRequestEntityTooLarge, "payload-too-large")

	// what takes no body does not mind one
	s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/failures/wrapped", body(limit+1)).Problem(http.StatusPreconditionFailed, "concurrent-update")

	request := httptest.NewRequest(http.MethodPost, "/api/v1/notes", io.MultiReader(strings.NewReader(body(limit+1)))) // of unknown length
	request.Header.Set("Authorization", "Bearer "+s.Token(t, identity.Clerk))
	recorder := httptest.NewRecorder()
	s.Engine.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusRequestEntityTooLarge || !strings.Contains(recorder.Body.String(), "payload-too-large") {
		t.Errorf("a body of unknown length: %d %s", recorder.Code, recorder.Body)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	for sent, kept := range map[string]bool{"req-1.A:b_c": true, "": false, "a b": false, strings.Repeat("x", 129): false, "é": false, "a\"b": false} {
		var body struct{ RequestID, User string }
		answer := s.Do(t, identity.Clerk, http.MethodPost, "/api/v1/notes", `{"title":"good","inner":{"colour":"red"}}`, "X-Request-ID", sent).
			Want(http.StatusOK).Decode(&body)
		got := answer.Header.Get("X-Request-ID")
		if (got == sent) != kept || got == "" || body.RequestID != got || body.User != "clerk" {
			t.Errorf("sent %q: answered %q, the handler saw %+v", sent, got, body)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	_ = private
	claims := jwt.MapClaims{"iss": "sms", "aud": "sms", "sub": "eve", "role": "admin", "exp": time.Now().Add(time.Hour).Unix()}
	make := func(method jwt.SigningMethod, key any) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := s.Token(t, identity.Clerk)
	parts := strings.Split(good, ".")
	for name, authorization := range map[string]string{
		"none":                "",
		"another scheme":      "Basic " + good,
		"empty":               "Bearer ",
		"garbage":             "Bearer x.y.z",
		"alg none":            "Bearer " + make(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"alg HS256":           "Bearer " + make(jwt.SigningMethodHS256, public),
		"another key":         "Bearer " + make(jwt.SigningMethodEdDSA, otherKey),
		"without a signature": "Bearer " + parts[0] + "." + parts[1] + ".",
		"two tokens":          "Bearer " + good + " " + good,
	} {
		answer := s.Do(t, "", http.MethodGet, "/api/v1/failures/x", nil, "Authorization", authorization)
		answer.Problem(http.StatusUnauthorized, "unauthorized")
		if answer.Header.Get("WWW-Authenticate") == "" || answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", name, answer.Header)
		}
	}
	if answer := s.Do(t, "", http.MethodGet, "/api/v1/failures/x", nil, "Authorization", "bearer "+good); answer.Status == http.StatusUnauthorized {
		t.Error("the scheme's case must not matter")
	}
	for _, open := range []string{"/actuator/health/liveness", "/actuator/info", "/actuator/prometheus", "/openapi.json", "/openapi.yaml", "/docs"} {
		s.Do(t, "", http.MethodGet, open, nil).Want(http.StatusOK)
	}
}

func TestMatchVersion(t *testing.T) {
	t.Parallel()
	if version, err := server.MatchVersion(server.ETag(42)); err != nil || version != 42 {
		t.Errorf("%d, %v", version, err)
	}
	for _, wrong := range []string{"", "*", "42", `W/"42"`, `"x"`, `""`, `"`, `'4'`, `"1", "2"`} {
		if _, err := server.MatchVersion(wrong); err == nil {
			t.Errorf("%q passes", wrong)
		}
	}
}

func TestMetricsKnowRoutesOnly(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/failures/one?name=Asha", nil)
	s.Do(t, identity.Clerk, "BREW", "/api/v1/coffee", nil)
	metrics := string(s.Do(t, "", http.MethodGet, "/actuator/prometheus", nil).Body)
	for _, want := range []string{`route="/api/v1/failures/:how"`, `route="unmatched"`, `method="other"`, `sms_build_info`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(metrics, "Asha") || strings.Contains(metrics, "BREW") || strings.Contains(s.Log.String(), "Asha") {
		t.Error("what callers send must not be a label, and queries must not be logged")
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]json.RawMessage
		}
	}
	s.Do(t, "", http.MethodGet, "/openapi.json", nil).Want(http.StatusOK).Decode(&document)
	post := document.Paths["/api/v1/notes"]["post"]
	got := slices.Sorted(maps.Keys(post.Responses))
	if want := []string{"200", "400", "401", "403", "408", "413", "415", "422", "500", "503"}; !strings.HasPrefix(document.OpenAPI, "3.1") ||
		post.OperationID != "write-note" || !slices.Equal(got, want) {
		t.Errorf("OpenAPI %s, %s answers %v, want %v", document.OpenAPI, post.OperationID, got, want)
	}
	get := document.Paths["/api/v1/failures/{how}"]["get"]
	if got, want := slices.Sorted(maps.Keys(get.Responses)), []string{"204", "401", "422", "500", "503"}; !slices.Equal(got, want) {
		t.Errorf("what takes no body and refuses nobody answers %v, want %v", got, want)
	}
	if unavailable := string(get.Responses["503"]); !strings.Contains(unavailable, "Retry-After") || !strings.Contains(unavailable, "X-Request-Id") {
		t.Errorf("the headers of 503 are not documented: %s", unavailable)
	}
	page := s.Do(t, "", http.MethodGet, "/docs", nil).Want(http.StatusOK)
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("Content-Security-Policy %q", csp)
	}
	for _, foreign := range []string{"src=\"", "@import", "url("} {
		if strings.Contains(string(page.Body), foreign) {
			t.Errorf("the page may load something: %s", foreign)
		}
	}
}
