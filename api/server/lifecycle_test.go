package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	s := servertest.New(t, "health", server.Config{Address: "127.0.0.1:0"})
	database, registry := server.Up, server.Up
	s.Health.Require("database", func(context.Context) server.Component { return server.Component{Status: database} })
	s.Health.Advise("registry", server.CheckError(func(context.Context) error {
		if registry != server.Up {
			return errors.New("secret host")
		}
		return nil
	}))
	check := func(wantCode int, want string) {
		t.Helper()
		for _, path := range []string{"/actuator/health", "/actuator/health/readiness"} {
			var body struct {
				Status     string
				Components map[string]server.Component
			}
			answer := s.Do(t, "", http.MethodGet, path, nil).Want(wantCode).Decode(&body)
			if body.Status != want || body.Components["database"].Status != database || body.Components["registry"].Status != registry {
				t.Errorf("%s: %s, want %s", path, answer.Body, want)
			}
			if strings.Contains(string(answer.Body), "secret") {
				t.Errorf("%s says too much: %s", path, answer.Body)
			}
		}
		s.Do(t, "", http.MethodGet, "/actuator/health/liveness", nil).Want(http.StatusOK)
	}
	check(http.StatusServiceUnavailable, server.OutOfService) // not started
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(http.StatusOK, server.Up)
	registry = server.Down
	check(http.StatusOK, server.Up)
	database = server.Down
	check(http.StatusServiceUnavailable, server.Down)
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(http.StatusServiceUnavailable, server.OutOfService)
}

// A client on keep-alive connections loses no request while the server stops: each is answered, and the client moves on
// when it is told that the connection closes.
func TestStopLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{Address: "127.0.0.1:0", DrainDelay: time.Second, ShutdownTimeout: 5 * time.Second})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port := s.Addr()
	url := fmt.Sprintf("http://%s/actuator/health/liveness", net.JoinHostPort(host, fmt.Sprint(port)))
	drained := false
	s.OnDrain(func(context.Context) { drained = true })

	const clients = 8
	warm, results := make(chan struct{}, clients), make(chan error, clients)
	for range clients {
		go func() { results <- callUntilTold(url, warm) }()
	}
	for range clients {
		<-warm
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	for range clients {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if !drained {
		t.Error("OnDrain was not called")
	}
	if _, err := http.Get(url); err == nil {
		t.Error("the server still answers")
	}
}

// callUntilTold calls on one keep-alive connection until an answer says that it closes.
func callUntilTold(url string, warm chan<- struct{}) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	for n := 1; ; n++ {
		response, err := client.Post(url, "text/plain", strings.NewReader("x")) // net/http repeats no POST by itself
		if err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if n == 3 {
			warm <- struct{}{}
		}
		if response.Close {
			return nil
		}
	}
}

func TestStopCutsOffAfterTheTimeout(t *testing.T) {
	t.Parallel()
	s := servertest.New(t, "slow", server.Config{Address: "127.0.0.1:0", ShutdownTimeout: 50 * time.Millisecond})
	started, release := make(chan struct{}), make(chan struct{})
	s.Engine.GET("/slow", func(c *gin.Context) {
		close(started)
		<-release
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	host, port := s.Addr()
	go func() { _, _ = http.Get(fmt.Sprintf("http://%s:%d/slow", host, port)) }()
	<-started
	if err := s.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "50ms") {
		t.Errorf("a request that does not end: %v", err)
	}
	close(release)
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := servertest.New(t, "second", server.Config{Address: l.Addr().String()})
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "SERVER_ADDRESS") {
		t.Errorf("a taken port: %v", err)
	}
}

// A body that stops coming ends, and one that was read does not end a handler that works longer.
func TestStalledBody(t *testing.T) {
	t.Parallel()
	s := newService(t, server.Config{Address: "127.0.0.1:0", BodyIdleTimeout: 50 * time.Millisecond})
	alive := make(chan error, 1)
	s.Engine.POST("/work", func(c *gin.Context) {
		_, _ = io.Copy(io.Discard, c.Request.Body)
		timer := time.NewTimer(150 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.Request.Context().Done():
		}
		alive <- c.Request.Context().Err()
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	host, port := s.Addr()
	base := fmt.Sprintf("http://%s:%d", host, port)

	if _, err := http.Post(base+"/work", "text/plain", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-alive; err != nil {
		t.Errorf("the handler was cancelled: %v", err)
	}
	for _, test := range []struct {
		name, path, token string
		length            int64 // announced; -1 for not
		status            int
	}{
		{"unannounced", "/api/v1/notes", s.Token(t, identity.Clerk), -1, http.StatusRequestTimeout},
		{"announced", "/api/v1/notes", s.Token(t, identity.Clerk), 10, http.StatusRequestTimeout},
		{"refused before it is read", "/api/v1/notes", "", 10, http.StatusUnauthorized},
		{"of a path that there is not", "/nothing", "", 10, http.StatusNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body, stop := io.Pipe()
			defer stop.Close()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+test.path, body)
			if err != nil {
				t.Fatal(err)
			}
			request.ContentLength = test.length
			request.Header.Set("Authorization", "Bearer "+test.token)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != test.status {
				t.Errorf("a stalled body is answered %s", response.Status)
			}
		})
	}
}

// The address is known when OnServe is called, however the process is put together.
func TestOnServe(t *testing.T) {
	t.Parallel()
	s := servertest.New(t, "known", server.Config{Address: "127.0.0.1:0", AdvertisedHost: "here"})
	var host string
	var port int
	s.OnServe(func() { host, port = s.Addr() })
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil || host != "here" || port == 0 {
		t.Errorf("served at %s:%d, %v", host, port, err)
	}
}
