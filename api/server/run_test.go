package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/fx"

	"github.com/school-sms/sms/internal/identity"
)

// These tests set the environment, so they do not run in parallel.

func environment(t *testing.T) {
	t.Helper()
	_, public, err := identity.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, public, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("IDENTITY_PUBLIC_KEY_FILE", key)
	t.Setenv("SERVER_DRAIN_DELAY", "0s")
	t.Setenv("LOG_LEVEL", "error")
}

func TestRunNamesEveryFaultInOneLine(t *testing.T) {
	environment(t)
	t.Setenv("SERVER_DRAIN_DELAY", "soon")
	t.Setenv("IDENTITY_PUBLIC_KEY_FILE", "/nowhere/key.pem")
	expectLine(t, "SERVER_DRAIN_DELAY: want a time.Duration", "/nowhere/key.pem")(Module("test"), Serve)
}

func TestRunNamesTheRootCauseInOneLine(t *testing.T) {
	environment(t)
	t.Setenv("SERVER_ADDRESS", "127.0.0.1:99999")
	expectLine(t, "SERVER_ADDRESS")(Module("test"), Serve)

	t.Setenv("LOG_LEVEL", "loud")
	expectLine(t, `LOG_LEVEL: "loud"`)(Module("test"), Serve)

	t.Setenv("LOG_LEVEL", "error")
	type thing struct{}
	broken := fx.Provide(func() (thing, error) { return thing{}, errors.New("the thing is broken") })
	expectLine(t, "the thing is broken")(Module("test"), broken, fx.Invoke(func(thing) {}), Serve)
}

func expectLine(t *testing.T, parts ...string) func(...fx.Option) {
	return func(opts ...fx.Option) {
		t.Helper()
		var stderr strings.Builder
		code := run(&stderr, "test-service", opts...)
		line := stderr.String()
		if code != 1 || strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "test-service: cannot start: ") {
			t.Errorf("exit code %d, %q", code, line)
		}
		for _, part := range append(parts, "") {
			if !strings.Contains(line, part) {
				t.Errorf("%q does not name %s", line, part)
			}
		}
		for _, noise := range []string{"missing dependencies", "reflect", "goroutine", ".go:"} {
			if strings.Contains(line, noise) {
				t.Errorf("%q holds %q", line, noise)
			}
		}
	}
}

func TestRunEndsWithTheCodeOfTheShutdown(t *testing.T) {
	environment(t)
	for _, want := range []int{0, 3} {
		stopped := false
		end := fx.Invoke(func(lc fx.Lifecycle, shutdown fx.Shutdowner) {
			lc.Append(fx.Hook{
				OnStart: func(context.Context) error { return shutdown.Shutdown(fx.ExitCode(want)) },
				OnStop:  func(context.Context) error { stopped = true; return nil },
			})
		})
		var stderr strings.Builder
		if code := run(&stderr, "test-service", Module("test"), Serve, end); code != want || !stopped || stderr.Len() > 0 {
			t.Errorf("exit code %d, want %d; stopped %t; %q", code, want, stopped, stderr.String())
		}
	}
}
