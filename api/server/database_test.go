package server_test

import (
	"net/http"
	"testing"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/internal/identity"
)

const positionHeader = "X-SMS-Position"

func TestPositionIsDocumentedAndChecked(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{})
	var sent bool
	for _, param := range s.API.OpenAPI().Paths["/api/v1/failures/{how}"].Get.Parameters {
		sent = sent || param.Name == positionHeader && param.In == "header" && !param.Required
	}
	written := s.API.OpenAPI().Paths["/api/v1/notes"].Post.Responses
	if !sent || written["200"].Headers[positionHeader] == nil || written["422"].Headers[positionHeader] != nil {
		t.Errorf("the header is not documented: sent with reads %v, got from writes %+v", sent, written["200"].Headers)
	}
	faults := s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/failures/wrapped?loud=1", nil, positionHeader, "'; drop").
		Faults(http.StatusUnprocessableEntity, "validation-error")
	if len(faults) != 2 || faults[positionHeader] != "wrong-format" || faults["loud"] != "unknown-field" {
		t.Errorf("faults %v", faults)
	}
	s.Do(t, identity.Clerk, http.MethodGet, "/api/v1/failures/wrapped", nil, positionHeader, "6a-7b").Want(http.StatusPreconditionFailed)
}
