package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLinesAreThoseOfTheGeneralHandler(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(
		rapid.Map(rapid.String(), slog.StringValue),
		rapid.Map(rapid.Int64(), slog.Int64Value),
		rapid.Map(rapid.Float64(), slog.Float64Value),
		rapid.Map(rapid.Bool(), slog.BoolValue),
		rapid.Map(rapid.String(), func(s string) slog.Value { return slog.AnyValue(errors.New(s)) }),
		rapid.Map(rapid.Int64(), func(n int64) slog.Value { return slog.DurationValue(time.Duration(n)) }),
		rapid.Map(rapid.String(), func(s string) slog.Value { return slog.GroupValue(slog.String("in", s)) }),
		rapid.Just(slog.AnyValue(nil)),
	)
	name := rapid.OneOf(rapid.SampledFrom([]string{"error", "url.path", "msg", ""}), rapid.StringMatching("[a-z]x.*"))
	attrs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) slog.Attr { return slog.Attr{Key: name.Draw(t, "name"), Value: value.Draw(t, "value")} }), 0, 8)
	rapid.Check(t, func(t *rapid.T) {
		var got, want bytes.Buffer
		logger, err := NewLogger(&got, "test", LogConfig{Level: "info"})
		if err != nil {
			t.Fatal(err)
		}
		ours := logger.Handler()
		var general slog.Handler = slog.NewJSONHandler(&want, &slog.HandlerOptions{ReplaceAttr: ecsName})
		general = general.WithAttrs([]slog.Attr{slog.String("service.name", "test")})
		for range rapid.IntRange(0, 3).Draw(t, "with") {
			if rapid.Bool().Draw(t, "group") {
				ours, general = ours.WithGroup("g"), general.WithGroup("g")
			} else {
				with := attrs.Draw(t, "with")
				ours, general = ours.WithAttrs(with), general.WithAttrs(with)
			}
		}
		at := time.Unix(rapid.Int64Range(0, 1<<34).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		for range 2 {
			record := slog.NewRecord(at, rapid.SampledFrom([]slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelError + 1}).Draw(t, "level"),
				rapid.String().Draw(t, "message"), 0)
			record.AddAttrs(attrs.Draw(t, "attrs")...)
			if err := errors.Join(ours.Handle(context.Background(), record), general.Handle(context.Background(), record)); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(tokens(t, got.Bytes()), tokens(t, want.Bytes())) || bytes.Count(got.Bytes(), []byte("\n")) != 2 {
			t.Fatalf("got\n%s, want\n%s", got.String(), want.String())
		}
	})
}

// tokens are the parts of JSON, whatever way characters are escaped in.
func tokens(t *rapid.T, text []byte) (all []json.Token) {
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, token)
	}
}

type writes struct {
	mu    sync.Mutex
	lines []string
}

func (w *writes) Write(line []byte) (int, error) {
	if !w.mu.TryLock() {
		return 0, errors.New("two lines at a time")
	}
	defer w.mu.Unlock()
	w.lines = append(w.lines, string(line))
	return len(line), nil
}

func TestOneWriteForEachLine(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 50
	var w writes
	logger, err := NewLogger(&w, "test", LogConfig{Level: "info"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range each {
				logger.Info("simple", "n", i)
				logger.Info("general", "n", time.Duration(i))
				logger.Debug("not written")
			}
		})
	}
	wg.Wait()
	for _, line := range w.lines {
		if line[0] != '{' || line[len(line)-2:] != "}\n" || bytes.Count([]byte(line), []byte("\n")) != 1 {
			t.Errorf("not one line: %q", line)
		}
	}
	if len(w.lines) != 2*writers*each {
		t.Errorf("%d lines, want %d", len(w.lines), 2*writers*each)
	}
}
