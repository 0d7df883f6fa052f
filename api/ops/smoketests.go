package ops

import (
	"context"
	"net/http"

	smoketestacts "github.com/school-sms/sms/activities/smoketest"
	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/smoke"
	"github.com/school-sms/sms/workflows/smoketest"
)

var smokeTests = kind{kind: operation.SmokeTest, path: base + "/smoke-tests", one: "smoke-test", many: "smoke-tests"}

func (s *Service) mountSmokeTests(srv *server.Server) {
	s.mountKind(srv, smokeTests)
	server.Register(srv, server.Operation{ID: "start-smoke-test", Method: http.MethodPost, Path: smokeTests.path, Status: http.StatusAccepted,
		Summary: "Ask an environment, through its gateway, whether it works", Roles: writers, Errors: []int{http.StatusConflict}}, s.startSmokeTest)
}

type startSmokeTestInput struct {
	Body struct {
		Environment string `json:"environment,omitempty" doc:"One of the configured environments." example:"production"`
		URL         string `json:"url,omitempty" doc:"Instead of an environment: the address of a gateway. Admins only, for the test sends its token there." example:"http://127.0.0.1:8080"`
		Service     string `json:"service,omitempty" doc:"With release: the service that is to answer with it."`
		Release     string `json:"release,omitempty" doc:"The digest of a release of the service."`
	}
}

func (s *Service) startSmokeTest(ctx context.Context, in *startSmokeTestInput) (*startedOutput, error) {
	test := smoketestacts.Input{Environment: in.Body.Environment, URL: in.Body.URL, Service: in.Body.Service, Release: in.Body.Release}
	caller := identity.FromContext(ctx)
	if err := s.checkSmokeTest(test, caller); err != nil {
		return nil, err
	}
	return s.start(ctx, request{
		kind: operation.SmokeTest, workflowID: smoketest.WorkflowID(test.Target(), s.now()), workflow: smoketest.SmokeTest,
		input: smoketest.Input{Input: test, StartedBy: caller.User}, summary: "Smoke test of " + test.Target(),
		environment: test.Environment, subject: test.Target(), startedBy: caller.User,
	}, smokeTests.path)
}

func (s *Service) checkSmokeTest(in smoketestacts.Input, caller identity.Principal) error {
	if (in.Environment == "") == (in.URL == "") {
		return server.Invalid(server.Fault{Field: "environment", Code: "required", Detail: "give either an environment or a url"})
	}
	if (in.Service == "") != (in.Release == "") {
		return server.Invalid(server.Fault{Field: "release", Code: "required", Detail: "service and release go together"})
	}
	if in.Environment != "" {
		if _, known := s.cfg.Gateways.URL(in.Environment); !known {
			return unknown("environment", in.Environment, s.cfg.Gateways.Names())
		}
		return nil
	}
	if err := smoke.CheckURL(in.URL); err != nil {
		return server.Invalid(server.Fault{Field: "url", Code: "wrong-format", Detail: err.Error()})
	}
	if caller.Role != identity.Admin {
		return server.Forbidden("only an admin may name a URL: the test sends its token there")
	}
	return nil
}
