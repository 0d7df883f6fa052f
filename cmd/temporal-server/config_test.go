package main

import (
	"strings"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	t.Setenv("TEMPORAL_DATABASE_URL", "postgres://temporal@127.0.0.1:15432/temporal")
	t.Setenv("TEMPORAL_UI_ADDRESS", "")
	cfg, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DatabaseURL:        "postgres://temporal@127.0.0.1:15432/temporal",
		VisibilityDatabase: "temporal_visibility",
		DatabaseCreate:     true,
		DatabaseWait:       time.Minute,
		DatabaseMaxConns:   20,
		VisibilityMaxConns: 8,
		Address:            "127.0.0.1:7233",
		UIAddress:          "", // empty means off, not the default
		HealthAddress:      "127.0.0.1:0",
		Namespace:          "sms",
		Retention:          30 * 24 * time.Hour,
		HistoryShards:      4,
		LogLevel:           "info",
		GCPercent:          50,
	}
	if cfg != want {
		t.Errorf("got %+v\nwant %+v", cfg, want)
	}
}

func TestConfigNamesAllFaultsAtOnce(t *testing.T) {
	const secret = "hunter2"
	bad := map[string]string{
		"TEMPORAL_DATABASE_URL":           "postgres://temporal:" + secret + "@127.0.0.1:port/temporal",
		"TEMPORAL_DATABASE_PASSWORD_FILE": "/does/not/exist",
		"TEMPORAL_DATABASE_CREATE":        "maybe",
		"TEMPORAL_DATABASE_WAIT":          "soon",
		"TEMPORAL_DATABASE_MAX_CONNS":     "1",
		"TEMPORAL_VISIBILITY_MAX_CONNS":   "many",
		"TEMPORAL_ADDRESS":                "localhost",
		"TEMPORAL_UI_ADDRESS":             "127.0.0.1:99999",
		"TEMPORAL_HEALTH_ADDRESS":         "nowhere:1",
		"TEMPORAL_NAMESPACE":              "no spaces please",
		"TEMPORAL_RETENTION":              "30m",
		"TEMPORAL_HISTORY_SHARDS":         "0",
		"LOG_LEVEL":                       "loud",
		"TEMPORAL_GC_PERCENT":             "-1",
	}
	for key, value := range bad {
		t.Setenv(key, value)
	}
	_, err := loadConfig()
	if err == nil {
		t.Fatal("accepted")
	}
	for key := range bad {
		if n := strings.Count(err.Error(), key+" "); n != 1 {
			t.Errorf("%s is named %d times", key, n)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Error("the error tells the password")
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestConfigRequiresDatabase(t *testing.T) {
	for _, url := range []string{"", "mysql://a@b/c", "postgres://127.0.0.1/temporal", "postgres://temporal@127.0.0.1/"} {
		t.Setenv("TEMPORAL_DATABASE_URL", url)
		if _, err := loadConfig(); err == nil || strings.Count(err.Error(), "TEMPORAL_DATABASE_URL") != 1 {
			t.Errorf("%q: got %v", url, err)
		}
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ hostPort, bind, host string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1:"},
		{"0.0.0.0:0", "0.0.0.0", "127.0.0.1:"},
		{":0", "0.0.0.0", "127.0.0.1:"},
	} {
		got, err := reserve("X", test.hostPort)
		if err != nil {
			t.Fatal(err)
		}
		if got.bind != test.bind || !strings.HasPrefix(got.dial, test.host) || got.port == 0 {
			t.Errorf("%s: got %+v", test.hostPort, got)
		}
	}
	taken, err := listen("X", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := reserve("TEMPORAL_X", taken.Addr().String()); err == nil ||
		!strings.Contains(err.Error(), "TEMPORAL_X: port ") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
