package standalone

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/postgres"
)

const (
	// tokenLifetime of the tokens that `sms up` keeps in files; they are renewed long before they end.
	tokenLifetime = 24 * time.Hour
	tokenRenewal  = time.Hour
)

// password returns the password of a database role, made once. The services may read all but those of roles that see every
// database.
func (l Layout) password(role string) (string, error) {
	path := l.passwordFile(role)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		content = []byte(rand.Text() + "\n")
		err = l.writeSecret(path, string(content))
	}
	if err != nil {
		return "", fmt.Errorf("password of role %s: %w", role, err)
	}
	if role != postgres.Superuser && role != replicaRole {
		err = l.share(path)
	}
	return strings.TrimSpace(string(content)), err
}

func (l Layout) passwordFile(role string) string { return l.secret(role + ".password") }

// signer returns the platform's token key, made once.
func (l Layout) signer() (*identity.Signer, error) {
	if _, err := os.Stat(l.signingKey()); errors.Is(err, os.ErrNotExist) {
		private, public, err := identity.NewKeyPair()
		if err != nil {
			return nil, err
		}
		// The private key comes last: where it is, the public one is too.
		if err := l.writeSecret(l.publicKey(), string(public)); err != nil {
			return nil, err
		}
		if err := l.writeSecret(l.signingKey(), string(private)); err != nil {
			return nil, err
		}
	}
	if err := l.share(l.publicKey()); err != nil {
		return nil, err
	}
	return l.Signer()
}

// makeBackupKeys makes the key pair of the backups, once. A pair of which one half is missing is left as it is: somebody keeps
// the secret key elsewhere.
func (l Layout) makeBackupKeys() (made bool, err error) {
	if !missing(l.backupKey()) || !missing(l.backupRecipients()) {
		return false, nil
	}
	identity, recipient, err := backup.NewKeyPair()
	if err != nil {
		return false, err
	}
	// The secret key comes last: where it is, the public one is too.
	if err := l.writeShared(l.backupRecipients(), recipient); err != nil {
		return false, err
	}
	return true, l.writeShared(l.backupKey(), identity)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// BackupKeys names the files with the keys of the backups: those that settings, NAME=VALUE, name, else the ones that the first
// `sms up` makes.
func (l Layout) BackupKeys(settings []string) backup.KeyFiles {
	files := backup.KeyFiles{Recipients: l.backupRecipients(), Identities: l.backupKey(), Encryption: "on"}
	for _, entry := range settings {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "BACKUP_RECIPIENTS_FILE":
			files.Recipients = value
		case "BACKUP_IDENTITIES_FILE":
			files.Identities = value
		case "BACKUP_ENCRYPTION":
			files.Encryption = value
		}
	}
	return files
}

// Signer reads the token key of a data directory that `sms up` has used.
func (l Layout) Signer() (*identity.Signer, error) {
	key, err := os.ReadFile(l.signingKey())
	if err != nil {
		return nil, fmt.Errorf("read the token signing key (made by the first `sms up`; choose the data directory with --data-dir): %w", err)
	}
	return identity.NewSigner(key)
}

// writeTokens writes fresh tokens for the administrator, for the worker's smoke tests, and for the student service, which reads
// the school's settings.
func (l Layout) writeTokens(signer *identity.Signer) error {
	for path, who := range map[string]struct {
		user string
		role identity.Role
	}{
		l.AdminToken():   {"admin", identity.Admin},
		l.workerToken():  {"ops-worker", identity.Operator},
		l.studentToken(): {"student-service", identity.Viewer},
	} {
		token, err := signer.Sign(who.user, who.role, tokenLifetime)
		if err != nil {
			return err
		}
		write := l.writeShared
		if path == l.AdminToken() {
			write = l.writeSecret
		}
		if err := write(path, token+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// renewTokens keeps the token files fresh until stop is closed.
func (l Layout) renewTokens(stop <-chan struct{}, signer *identity.Signer, failed func(error)) {
	tick := time.NewTicker(tokenRenewal)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.writeTokens(signer); err != nil {
				failed(err)
			}
		case <-stop:
			return
		}
	}
}

// writeSecret replaces a file in one step, readable by its owner only.
func (l Layout) writeSecret(path, content string) error {
	return writeOwned(path, content, os.Geteuid(), os.Getegid())
}

// writeShared is writeSecret for what the services read.
func (l Layout) writeShared(path, content string) error {
	if l.services == nil {
		return l.writeSecret(path, content)
	}
	return writeOwned(path, content, l.services.UID, l.services.GID)
}

func writeOwned(path, content string, uid, gid int) error {
	file, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	defer file.Cleanup()
	if _, err := file.WriteString(content); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	if err := file.Chown(uid, gid); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	return nil
}
