package server_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/discovery"
)

// TestRegisterAndLeaveBeforeDraining wants a stopping service out of the registry while it still answers.
func TestRegisterAndLeaveBeforeDraining(t *testing.T) {
	t.Parallel()
	s := servertest.New(t, "student-service", server.Config{Address: "127.0.0.1:0", AdvertisedHost: "127.0.0.1",
		ShutdownTimeout: 10 * time.Second})
	var address string
	calls := make(chan string, 100)
	answered := make(chan int, 1)
	eureka := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- r.Method + " " + r.URL.Path + " " + string(body)
		if r.Method == http.MethodDelete {
			res, err := http.Get("http://" + address + "/actuator/health/readiness")
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
			answered <- res.StatusCode
		}
	}))
	defer eureka.Close()

	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port := s.Addr()
	address = discovery.Instance{Host: host, Port: port}.Address()
	registrar := s.Server.Register(discovery.Config{URL: eureka.URL + "/eureka", Environment: "staging", RenewInterval: time.Hour,
		LeaseDuration: time.Hour, Timeout: 10 * time.Second}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	<-registrar.Registered()
	id := "127.0.0.1:student-service-staging:" + address[strings.LastIndexByte(address, ':')+1:]
	got := <-calls
	if !strings.HasPrefix(got, "POST /eureka/apps/STUDENT-SERVICE-STAGING {") || !strings.Contains(got, `"instanceId":"`+id+`"`) ||
		!strings.Contains(got, `"environment":"staging"`) {
		t.Errorf("registered by %s", got)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-calls; got != "DELETE /eureka/apps/STUDENT-SERVICE-STAGING/"+id+" " {
		t.Errorf("left by %s", got)
	}
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("readiness %d while leaving, want 503", status)
	}
}
