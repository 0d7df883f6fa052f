package standalone

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxLogBytes is the size past which a log is set aside; one older file is kept.
	maxLogBytes = 20 << 20
	rotateEvery = time.Minute
)

// openLog opens a log for appending. Children write to it directly, so that their last words are there even when
// `sms up` is not.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// keepLogsSmall rotates the logs from time to time until stop is closed.
func (l Layout) keepLogsSmall(stop <-chan struct{}, failed func(error)) {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	for {
		if err := l.rotateLogs(maxLogBytes); err != nil {
			failed(err)
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// rotateLogs copies every log above most bytes aside and empties it. A line that is written between the two is lost: the
// writers hold the file open for appending, so it cannot be exchanged under them.
func (l Layout) rotateLogs(most int64) error {
	var failures []error
	err := filepath.WalkDir(l.logs(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".log" {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Size() <= most {
			return err
		}
		if err := setAside(path); err != nil {
			failures = append(failures, fmt.Errorf("rotate %s: %w", path, err))
		}
		return nil
	})
	return errors.Join(append(failures, err)...)
}

func setAside(path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

// lastWords is the last line that a process wrote to its log after offset: the message, where the line is JSON. Where a former life
// writes there too, what it says of its daily work is left out.
func lastWords(path string, offset int64, shared bool) string {
	const most = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	cut := false // the first line is only the end of one
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		if offset > size {
			offset = 0 // it was rotated meanwhile
		}
		cut = size-most > offset
		offset = max(offset, size-most)
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, offset, most))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(tail), []byte("\n"))
	if cut && len(lines) > 1 {
		lines = lines[1:]
	}
	for _, line := range slices.Backward(lines) {
		var entry struct {
			Level   string `json:"log.level"`
			Message string `json:"message"`
			Error   string `json:"error.message"`
		}
		if json.Unmarshal(line, &entry) != nil {
			return string(line)
		}
		if !shared || entry.Level != "INFO" && entry.Level != "DEBUG" {
			return strings.TrimSuffix(strings.Join([]string{entry.Message, entry.Error}, ": "), ": ")
		}
	}
	return ""
}
