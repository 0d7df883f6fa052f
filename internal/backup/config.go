package backup

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/storage"
)

// Config is what backups need. Passwords are in the file that the variable PGPASSFILE names (PostgreSQL manual, section
// 34.16), which pgx, pg_dump and pg_restore read by themselves.
type Config struct {
	// Databases to back up: name=URL, comma-separated, without passwords, for example
	// student_db=postgres://sms_backup@127.0.0.1:15432/student_db. A comma within a URL is written %2C.
	Databases Sources `env:"BACKUP_DATABASES"`
	// Storage is where backups are kept, and copied to.
	Storage storage.Config
	// Retention says what is kept, and when it is proven again.
	Retention Policy
	// PostgresBin is the folder of pg_dump and pg_restore, or several, separated by colons; empty: where Debian, Ubuntu and
	// Red Hat put them, else the PATH. Of several versions the one that fits the server is taken.
	PostgresBin string `env:"POSTGRES_BIN"`
	// Parallel is how many dumps and restores run at once.
	Parallel int `env:"BACKUP_PARALLEL" envDefault:"2"`
	// RestoreJobs is how many processes make the indexes of one restored backup at once.
	RestoreJobs int `env:"BACKUP_RESTORE_JOBS" envDefault:"2"`
	// LockWait bounds a dump's wait for a table that somebody alters: a waiting dump holds up everybody behind it.
	LockWait time.Duration `env:"BACKUP_LOCK_WAIT" envDefault:"60s"`
	// StallLimit ends a dump whose storage has taken nothing for this long, so that the dump's locks are freed.
	StallLimit time.Duration `env:"BACKUP_STALL_LIMIT" envDefault:"5m"`
	// Keys encrypt backups, and decrypt them for drills and restores.
	Keys KeyFiles
}

// Check names every fault.
func (c Config) Check() error {
	faults := []error{c.Storage.Check(), c.Retention.Check(), c.Keys.Check()}
	for name, wrong := range map[string]bool{"BACKUP_PARALLEL must be at least 1": c.Parallel < 1,
		"BACKUP_RESTORE_JOBS must be at least 1": c.RestoreJobs < 1,
		"BACKUP_LOCK_WAIT must be at least 1ms":  c.LockWait < time.Millisecond,
		"BACKUP_STALL_LIMIT must be at least 1s": c.StallLimit < time.Second} {
		if wrong {
			faults = append(faults, errors.New(name))
		}
	}
	return errors.Join(faults...)
}

// Tools are the programs as configured.
func (c Config) Tools() Tools {
	return Tools{Bin: c.PostgresBin, Keys: c.Keys, LockWait: c.LockWait, StallLimit: c.StallLimit, Jobs: c.RestoreJobs}
}

// Source is a database that can be backed up.
type Source struct {
	Database string
	// URL has no password.
	URL string
}

// Sources are the databases of the configuration.
type Sources []Source

// RestoreRole is the role that restores: the drills' scratch databases, and what operators ask for. It may create
// databases, and is a member of every role that owns one, so that it can give what it restores to its owner, rename and
// drop it, and end the owner's sessions. The role of a source's URL only reads.
const RestoreRole = "sms_restore"

// restoring is the address of a database of the source's server for the role that restores.
func (s Source) restoring(database string) (string, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "", errors.New("not a PostgreSQL URL")
	}
	u.User, u.Path = url.User(RestoreRole), "/"+database
	return u.String(), nil
}

// sourceName is what a database may be called here: the name is part of file names and of scratch databases.
var sourceName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// UnmarshalText reads BACKUP_DATABASES. Errors never repeat a URL.
func (s *Sources) UnmarshalText(text []byte) error {
	var faults []error
	for item := range strings.SplitSeq(string(text), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, address, ok := strings.Cut(item, "=")
		if !ok || !sourceName.MatchString(name) {
			faults = append(faults, errors.New("an entry is not name=URL with a name of lower-case letters, digits and _"))
			continue
		}
		if fault := checkURL(address); fault != "" {
			faults = append(faults, fmt.Errorf("%s: %s", name, fault))
			continue
		}
		if _, known := s.Find(name); known {
			faults = append(faults, fmt.Errorf("%s: named twice", name))
		}
		*s = append(*s, Source{Database: name, URL: address})
	}
	return errors.Join(faults...)
}

// checkURL returns what is wrong with the address of a database.
func checkURL(address string) string {
	const wrong = "not a PostgreSQL URL (postgres://user@host:port/database)"
	parsed, err := url.Parse(address)
	if err != nil || parsed.Scheme != "postgres" && parsed.Scheme != "postgresql" {
		return wrong
	}
	if _, has := parsed.User.Password(); has || parsed.Query().Has("password") {
		return "the URL holds a password: put it into the file that PGPASSFILE names"
	}
	if parsed.User.Username() == "" || strings.Trim(parsed.Path, "/") == "" {
		return "the URL names no user or no database"
	}
	if _, err := pgx.ParseConfig(address); err != nil {
		return wrong
	}
	return ""
}

// Find returns the source of a database.
func (s Sources) Find(database string) (Source, bool) {
	i := slices.IndexFunc(s, func(source Source) bool { return source.Database == database })
	if i < 0 {
		return Source{}, false
	}
	return s[i], true
}

// Names lists the databases.
func (s Sources) Names() []string {
	names := make([]string, len(s))
	for i, source := range s {
		names[i] = source.Database
	}
	return names
}
