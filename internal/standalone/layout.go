// Package standalone is `sms up`: it runs the whole platform on one machine as child processes, and is the `process`
// target that rollouts act on.
package standalone

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/school-sms/sms/internal/postgres"
)

// Layout names the places of a data directory.
type Layout struct {
	Root string
	// services is the account that the services run under when `sms up` runs as root; nil otherwise.
	services *postgres.Account
}

// DefaultDataDir is /var/lib/sms for root, else $XDG_DATA_HOME/sms or ~/.local/share/sms. SMS_DATA_DIR overrides it.
func DefaultDataDir() string {
	if dir := os.Getenv("SMS_DATA_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/sms"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "sms")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".local", "share", "sms")
}

func (l Layout) postgres() string       { return filepath.Join(l.Root, "postgres") }
func (l Layout) replica() string        { return filepath.Join(l.Root, "postgres-replica") }
func (l Layout) secrets() string        { return filepath.Join(l.Root, "secrets") }
func (l Layout) secret(n string) string { return filepath.Join(l.secrets(), n) }
func (l Layout) releases() string       { return filepath.Join(l.Root, "releases") }
func (l Layout) logs() string           { return filepath.Join(l.Root, "logs") }
func (l Layout) log(name string) string {
	return filepath.Join(l.logs(), filepath.FromSlash(name)+".log")
}
func (l Layout) settings() string         { return filepath.Join(l.Root, "settings") }
func (l Layout) run() string              { return filepath.Join(l.Root, "run") }
func (l Layout) lock() string             { return filepath.Join(l.run(), "sms.lock") }
func (l Layout) desired() string          { return filepath.Join(l.Root, "desired.json") }
func (l Layout) backups() string          { return filepath.Join(l.Root, "backups") }
func (l Layout) publicKey() string        { return l.secret("token-public.pem") }
func (l Layout) signingKey() string       { return l.secret("token-signing.pem") }
func (l Layout) backupPasswords() string  { return l.secret("backup.pgpass") }
func (l Layout) backupKey() string        { return l.secret("backup.key") }
func (l Layout) backupRecipients() string { return l.secret("backup.recipients") }
func (l Layout) replicaPasswords() string { return l.secret("replica.pgpass") }
func (l Layout) workerToken() string      { return l.secret("ops-worker.token") }
func (l Layout) studentToken() string     { return l.secret("student-service.token") }

// Socket is the Unix socket on which a running `sms up` is asked and told things.
func (l Layout) Socket() string { return filepath.Join(l.run(), "sms.sock") }

// settingsOf is the file with an operator's settings of a service.
func (l Layout) settingsOf(service string) string { return filepath.Join(l.settings(), service+".env") }

// notices is the Unix socket on which the children say how they stand.
func (l Layout) notices() string { return filepath.Join(l.run(), "say.sock") }

// AdminToken is the file with the administrator's token.
func (l Layout) AdminToken() string { return l.secret("admin.token") }

// maxSocketPath is what sockaddr_un holds (unix(7)).
const maxSocketPath = 107

// make creates the folders. Only the owner looks into them. Some can be passed through, because PostgreSQL and the
// services run under accounts of their own when `sms up` runs as root.
func (l Layout) make() error {
	if n := len(l.Socket()); n > maxSocketPath {
		return fmt.Errorf("the data directory's path is too long: its socket %s has %d characters, the most is %d; choose a shorter --data-dir",
			l.Socket(), n, maxSocketPath)
	}
	if err := os.MkdirAll(l.Root, 0o711); err != nil {
		return fmt.Errorf("the data directory cannot be used: %w; choose another with --data-dir, or change its owner", err)
	}
	const passThrough = 0o711
	for dir, mode := range map[string]os.FileMode{l.secrets(): passThrough, l.releases(): passThrough, l.run(): passThrough,
		l.logs(): 0o700, l.backups(): 0o700, l.settings(): 0o700} {
		err := os.MkdirAll(dir, mode)
		if err == nil {
			err = os.Chmod(dir, mode)
		}
		if err != nil {
			return fmt.Errorf("the data directory cannot be used: %w; choose another with --data-dir, or change its owner", err)
		}
	}
	return l.share(l.backups())
}

// share gives a file or folder to the account of the services.
func (l Layout) share(path string) error {
	if l.services == nil {
		return nil
	}
	if err := os.Chown(path, l.services.UID, l.services.GID); err != nil {
		return fmt.Errorf("give %s to account %s: %w", path, l.services.Name, err)
	}
	return nil
}
