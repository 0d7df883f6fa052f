// Package telemetry gives every process the same logs: JSON lines with the field names of the Elastic Common Schema.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// LogConfig says what a process logs.
type LogConfig struct {
	// Level is the least severe level that is written: debug, info, warn or error.
	Level string `env:"LOG_LEVEL" envDefault:"info"`
}

// NewLogger writes ECS JSON lines for the named service.
func NewLogger(w io.Writer, service string, cfg LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, fmt.Errorf("LOG_LEVEL: %q is none of debug, info, warn, error", cfg.Level)
	}
	handler := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: ecsName})
	return slog.New(handler).With("service.name", service), nil
}

// ecsName renames slog's own keys to those of the Elastic Common Schema 8.
func ecsName(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", a.Value.Time().UTC().Format(time.RFC3339Nano))
	case slog.LevelKey:
		return slog.String("log.level", a.Value.String())
	case slog.MessageKey:
		a.Key = "message"
	case "error":
		a.Key = "error.message"
	}
	return a
}
