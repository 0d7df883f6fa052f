// Package telemetry gives every process the same logs: JSON lines with the field names of the Elastic Common Schema.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/school-sms/sms/internal/jsonappend"
)

// LogConfig says what a process logs.
type LogConfig struct {
	// Level is the least severe level that is written: debug, info, warn or error.
	Level string `env:"LOG_LEVEL" envDefault:"info"`
}

// NewLogger writes ECS JSON lines for the named service, each with one call of w's Write before the logging call returns, so
// that none is lost with the process.
func NewLogger(w io.Writer, service string, cfg LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, fmt.Errorf("LOG_LEVEL: %q is none of debug, info, warn, error", cfg.Level)
	}
	w = &serialWriter{w: w}
	general := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: ecsName})
	return slog.New(&handler{Handler: general, w: w}).With("service.name", service), nil
}

// ecsName renames slog's own keys to those of the Elastic Common Schema 8.
func ecsName(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", ecsTime(a.Value.Time()))
	case slog.LevelKey:
		return slog.String("log.level", a.Value.String())
	case slog.MessageKey:
		a.Key = "message"
	case "error":
		a.Key = "error.message"
	}
	return a
}

func ecsTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// serialWriter writes one line at a time.
type serialWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *serialWriter) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(line)
}

// handler writes what the general handler does, but appends the lines that are only of texts and whole numbers itself, at a
// third of the cost: there is one for every request.
type handler struct {
	slog.Handler // general
	w            io.Writer
	attrs        []byte // of WithAttrs, each with a comma before it
	generalOnly  bool
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if h.generalOnly || r.Time.IsZero() {
		return h.Handler.Handle(ctx, r)
	}
	buffer := lines.Get().(*[]byte)
	defer lines.Put(buffer)
	b := append((*buffer)[:0], `{"@timestamp":"`...)
	b = r.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","log.level":"`...), r.Level.String()...)
	b = jsonappend.String(append(b, `","message":`...), r.Message)
	b = append(b, h.attrs...)
	simple := true
	r.Attrs(func(a slog.Attr) bool {
		b, simple = appendAttr(b, a)
		return simple
	})
	*buffer = b
	if !simple {
		return h.Handler.Handle(ctx, r)
	}
	*buffer = append(b, "}\n"...)
	_, err := h.w.Write(*buffer)
	return err
}

var lines = sync.Pool{New: func() any { return new([]byte) }}

// appendAttr reports whether the attribute is simple enough to be appended here.
func appendAttr(b []byte, a slog.Attr) ([]byte, bool) {
	switch a.Key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, "error": // which ecsName replaces
		return b, false
	}
	b = append(jsonappend.String(append(b, ','), a.Key), ':')
	switch a.Value.Kind() {
	case slog.KindString:
		return jsonappend.String(b, a.Value.String()), true
	case slog.KindInt64:
		return strconv.AppendInt(b, a.Value.Int64(), 10), true
	}
	return b, false
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := &handler{Handler: h.Handler.WithAttrs(attrs), w: h.w, attrs: h.attrs[:len(h.attrs):len(h.attrs)], generalOnly: h.generalOnly}
	for _, a := range attrs {
		simple := false
		with.attrs, simple = appendAttr(with.attrs, a)
		with.generalOnly = with.generalOnly || !simple
	}
	return with
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), w: h.w, generalOnly: true}
}
