package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/school-sms/sms/internal/child"
	"github.com/school-sms/sms/internal/postgres"
)

// The ways in which a backup or restore fails for good; other errors may pass with time.
var (
	// ErrToolMissing says that PostgreSQL's client programs are not installed.
	ErrToolMissing = errors.New("pg_dump or pg_restore is missing")
	// ErrServerNewer says that the installed pg_dump is too old for the server.
	ErrServerNewer = errors.New("the server is newer than pg_dump")
	// ErrDamaged says that an archive is not what its manifest says.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrRejected says that pg_restore refused an archive.
	ErrRejected = errors.New("the archive cannot be restored")
)

// Tools are PostgreSQL's client programs.
type Tools struct {
	// Bin is their folder; empty: the newest installation, else the PATH.
	Bin string
}

// find returns the path of a program.
func (t Tools) find(program string) (string, error) {
	if t.Bin != "" {
		path := filepath.Join(t.Bin, program)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: no %s in %s (POSTGRES_BIN)", ErrToolMissing, program, t.Bin)
		}
		return path, nil
	}
	if install, err := postgres.FindInstallation(""); err == nil {
		return filepath.Join(install.Bin, program), nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: install the PostgreSQL client, or name its folder with POSTGRES_BIN", ErrToolMissing)
	}
	return path, nil
}

// version returns what `program --version` says, for example 15.18, and its major part.
func (t Tools) version(ctx context.Context, program string) (version string, major int, err error) {
	path, err := t.find(program)
	if err != nil {
		return "", 0, err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", 0, fmt.Errorf("%s --version: %w", program, err)
	}
	fields := strings.Fields(string(out)) // pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	if len(fields) < 3 {
		return "", 0, fmt.Errorf("%s --version says nothing known", program)
	}
	major, err = strconv.Atoi(strings.SplitN(fields[2], ".", 2)[0])
	if err != nil {
		return "", 0, fmt.Errorf("%s --version says nothing known", program)
	}
	return fields[2], major, nil
}

// stopDelay is how long a killed program's pipes may stay open.
const stopDelay = 5 * time.Second

// command is a program that is killed when ctx ends or this process dies. Only what libpq reads is in its environment.
func (t Tools) command(ctx context.Context, program string, args ...string) (*exec.Cmd, *lastWords, error) {
	path, err := t.find(program)
	if err != nil {
		return nil, nil, err
	}
	words := &lastWords{}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = stopDelay
	cmd.Stderr = words
	cmd.Env = []string{"LC_ALL=C"}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if name == "PATH" || name == "HOME" || strings.HasPrefix(name, "PG") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	return cmd, words, nil
}

func start(cmd *exec.Cmd) error {
	if err := child.Start(cmd, syscall.SIGKILL); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// lastWords keeps the end of what a program writes to its standard error.
type lastWords struct{ text []byte }

func (l *lastWords) Write(p []byte) (int, error) {
	const most = 16 << 10
	l.text = append(l.text, p...)
	if len(l.text) > most {
		l.text = slices.Clone(l.text[len(l.text)-most:])
	}
	return len(p), nil
}

// lines are what was said. Statements and details, which may hold rows, are left out.
func (l *lastWords) lines() []string {
	var lines []string
	for line := range bytes.Lines(l.text) {
		text := strings.TrimSpace(string(line))
		for _, program := range []string{"pg_dump: ", "pg_restore: "} {
			if said, ok := strings.CutPrefix(text, program); ok && !strings.HasPrefix(said, "detail:") && !strings.HasPrefix(said, "hint:") {
				lines = append(lines, said)
			}
		}
	}
	return lines
}

// errors are the lines that name an error.
func (l *lastWords) errors() []string {
	return slices.DeleteFunc(l.lines(), func(line string) bool { return !strings.HasPrefix(line, "error:") })
}

// failure is why a program failed: its first error, else how it ended.
func (l *lastWords) failure(program string, err error) error {
	if said := l.errors(); len(said) > 0 {
		return fmt.Errorf("%s: %s", program, strings.TrimPrefix(said[0], "error: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}
