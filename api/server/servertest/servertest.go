// Package servertest calls services in tests as their callers would: with tokens, in JSON.
package servertest

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

// Service is a server that does not listen, and callers of every role.
type Service struct {
	*server.Server
	// Log is everything that the service has logged.
	Log *bytes.Buffer

	signer *identity.Signer
}

// New makes a service with a token key of its own.
func New(t testing.TB, name string, cfg server.Config) *Service {
	t.Helper()
	private, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := identity.NewVerifier(identity.Config{PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.MaxBodyBytes == 0 {
		cfg.MaxBodyBytes = 1 << 20
	}
	if cfg.BodyIdleTimeout == 0 {
		cfg.BodyIdleTimeout = 10 * time.Second
	}
	log := &bytes.Buffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	return &Service{Server: server.New(cfg, server.Info{Service: name}, verifier, logger), Log: log, signer: signer}
}

// Token speaks for a user who is named as the role.
func (s *Service) Token(t testing.TB, role identity.Role) string {
	t.Helper()
	token, err := s.signer.Sign(string(role), role, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Do calls as a role; an empty role sends no token. body is sent as it is when it is a string, else as JSON; nil sends none. headers
// are names and values by turns.
func (s *Service) Do(t testing.TB, role identity.Role, method, path string, body any, headers ...string) Answer {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	request := httptest.NewRequest(method, path, reader)
	if role != "" {
		request.Header.Set("Authorization", "Bearer "+s.Token(t, role))
	}
	if reader != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	s.Engine.ServeHTTP(recorder, request)
	if recorder.Code == http.StatusInternalServerError {
		t.Logf("%s %s: %s", method, path, s.Log)
	}
	return Answer{t: t, Status: recorder.Code, Header: recorder.Header(), Body: recorder.Body.Bytes()}
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	t testing.TB
}

// Want fails the test when the status is another.
func (a Answer) Want(status int) Answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	return a
}

// Decode reads the JSON body into v.
func (a Answer) Decode(v any) Answer {
	a.t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		a.t.Fatalf("%v: %s", err, a.Body)
	}
	return a
}

// Problem reads an error answer, checks its form, and that it is of the given name.
func (a Answer) Problem(status int, name string) server.Problem {
	a.t.Helper()
	var p server.Problem
	a.Want(status).Decode(&p)
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("content type %q of a problem", got)
	}
	if p.Type != "https://api.school.com/problems/"+name || p.Status != status || p.Title == "" || p.Instance == "" ||
		p.RequestID == "" || p.RequestID != a.Header.Get("X-Request-ID") {
		a.t.Errorf("want the problem %s: %s", name, a.Body)
	}
	return p
}

// Faults maps the fields of a problem's errors to their codes. A field named twice fails the test.
func (a Answer) Faults(status int, name string) map[string]string {
	a.t.Helper()
	faults := map[string]string{}
	for _, fault := range a.Problem(status, name).Errors {
		if _, twice := faults[fault.Field]; twice {
			a.t.Errorf("field %q is named twice: %s", fault.Field, a.Body)
		}
		faults[fault.Field] = fault.Code
		if fault.Detail == "" {
			a.t.Errorf("field %q has no detail: %s", fault.Field, a.Body)
		}
	}
	return faults
}
