package backup

import (
	"bytes"
	"cmp"
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
)

// The ways in which a backup or restore fails for good; other errors may pass with time.
var (
	// ErrToolMissing says that PostgreSQL's client programs are not installed.
	ErrToolMissing = errors.New("pg_dump or pg_restore is missing")
	// ErrServerNewer says that the installed programs are too old for the server.
	ErrServerNewer = errors.New("the server is newer than PostgreSQL's client programs")
	// ErrServerOlder says that a server is too old: for a backup to be made, or to be restored into it.
	ErrServerOlder = errors.New("the server is too old")
	// ErrClientOlder says that a newer pg_dump made a backup than the pg_restore that is installed.
	ErrClientOlder = errors.New("the backup was made by a newer pg_dump than the pg_restore that is installed")
	// ErrDamaged says that an archive is not what its manifest says.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrRejected says that pg_restore refused an archive.
	ErrRejected = errors.New("the archive cannot be restored")
)

// Tools are PostgreSQL's client programs, and what they are used with. What is not set has the default of Config.
type Tools struct {
	// Bin is their folder, or several, separated by colons; empty: where they are usually installed.
	Bin string
	// Keys encrypt and decrypt.
	Keys KeyFiles
	// LockWait bounds a dump's wait for a table's lock.
	LockWait time.Duration
	// StallLimit ends a dump whose storage takes nothing any more.
	StallLimit time.Duration
	// Jobs is how many processes make the indexes of one restored backup at once.
	Jobs int
}

func (t Tools) lockWait() time.Duration   { return cmp.Or(t.LockWait, 60*time.Second) }
func (t Tools) stallLimit() time.Duration { return cmp.Or(t.StallLimit, 5*time.Minute) }
func (t Tools) jobs() int                 { return cmp.Or(t.Jobs, 2) }

// installed is one program of one installation.
type installed struct {
	path, version string
	major         int
}

// usually is where Debian and Ubuntu, and Red Hat, put PostgreSQL's programs.
var usually = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"}

// folders are where programs are looked for.
func (t Tools) folders() []string {
	if t.Bin != "" {
		return filepath.SplitList(t.Bin)
	}
	var all []string
	for _, pattern := range usually {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	return append(all, filepath.SplitList(os.Getenv("PATH"))...)
}

// fitting returns the program of the lowest version that is not below major: a newer pg_dump makes archives that an older
// server may not take back. Where all are below, it is the newest. It returns ErrToolMissing when there is none.
func (t Tools) fitting(ctx context.Context, program string, major int) (installed, error) {
	var best installed
	var faults []error
	for _, folder := range t.folders() {
		path := filepath.Join(folder, program)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		found, err := versionOf(ctx, path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if best.path == "" || best.major < major && found.major > best.major || found.major >= major && found.major < best.major {
			best = found
		}
	}
	if best.path == "" {
		where := "install the PostgreSQL client, or name its folder with POSTGRES_BIN"
		if t.Bin != "" {
			where = "no " + program + " in " + t.Bin + " (POSTGRES_BIN)"
		}
		return best, errors.Join(fmt.Errorf("%w: %s", ErrToolMissing, where), errors.Join(faults...))
	}
	return best, nil
}

// versionOf asks a program for its version, for example 15.18.
func versionOf(ctx context.Context, path string) (installed, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return installed{}, fmt.Errorf("%s --version: %w", path, err)
	}
	fields := strings.Fields(string(out)) // pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
	if len(fields) < 3 {
		return installed{}, fmt.Errorf("%s --version says nothing known", path)
	}
	major, err := majorOf(fields[2])
	if err != nil {
		return installed{}, fmt.Errorf("%s --version says nothing known", path)
	}
	return installed{path: path, version: fields[2], major: major}, nil
}

// majorOf reads 15 from "15.18" and 18 from "18beta1".
func majorOf(version string) (int, error) {
	digits := strings.TrimLeft(version, "0123456789")
	return strconv.Atoi(version[:len(version)-len(digits)])
}

// stopDelay is how long a killed program's pipes may stay open.
const stopDelay = 5 * time.Second

// command is a program that is killed when ctx ends or this process dies. Only what libpq reads is in its environment.
func (i installed) command(ctx context.Context, args ...string) (*exec.Cmd, *lastWords) {
	words := &lastWords{}
	cmd := exec.CommandContext(ctx, i.path, args...)
	cmd.WaitDelay = stopDelay
	cmd.Stderr = words
	options := "-c client_connection_check_interval=" + checkInterval + " -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
	cmd.Env = []string{"LC_ALL=C"}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		switch {
		case name == "PGOPTIONS":
			options = value + " " + options
		case name == "PATH" || name == "HOME" || strings.HasPrefix(name, "PG"):
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "PGOPTIONS="+options)
	return cmd, words
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
		for _, program := range []string{"pg_dump: ", "pg_dumpall: ", "pg_restore: "} {
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
