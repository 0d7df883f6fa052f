package standalone

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestServiceSettings(t *testing.T) {
	t.Parallel()
	l := Layout{Root: t.TempDir()}
	if env, err := l.serviceSettings("api-gateway"); err != nil || len(env) != 0 {
		t.Errorf("without a file: %q, %v", env, err)
	}
	path := l.settingsOf("api-gateway")
	if err := os.Mkdir(l.settings(), 0o700); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string][]string{
		"# how long\nSERVER_DRAIN_IDLE=30s\r\n\n  GATEWAY_RETRIES=1 \nA=b=c": {"SERVER_DRAIN_IDLE=30s", "GATEWAY_RETRIES=1", "A=b=c"},
		"A=b\nhunter2\n":    nil,
		"export A=hunter2":  nil,
		"A=b\n\n=hunter2\n": nil,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		env, err := l.serviceSettings("api-gateway")
		if !slices.Equal(env, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v", content, env, err)
		}
		if err != nil && (!strings.Contains(err.Error(), path+", line ") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: the error %v should name file and line, and not the line's text", content, err)
		}
	}
}
