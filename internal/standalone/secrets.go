package standalone

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/school-sms/sms/internal/identity"
)

const (
	// tokenLifetime of the tokens that `sms up` keeps in files; they are renewed long before they end.
	tokenLifetime = 24 * time.Hour
	tokenRenewal  = time.Hour
)

// password returns the password of a database role, made once.
func (l Layout) password(role string) (string, error) {
	path := l.passwordFile(role)
	content, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read a password: %w", err)
	}
	made := rand.Text()
	return made, l.writeSecret(path, made+"\n")
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
	return l.Signer()
}

// Signer reads the token key of a data directory that `sms up` has used.
func (l Layout) Signer() (*identity.Signer, error) {
	key, err := os.ReadFile(l.signingKey())
	if err != nil {
		return nil, fmt.Errorf("read the token signing key (made by the first `sms up`; choose the data directory with --data-dir): %w", err)
	}
	return identity.NewSigner(key)
}

// writeTokens writes fresh tokens for the administrator and for the worker's smoke tests.
func (l Layout) writeTokens(signer *identity.Signer) error {
	for path, who := range map[string]struct {
		user string
		role identity.Role
	}{
		l.AdminToken():  {"admin", identity.Admin},
		l.workerToken(): {"ops-worker", identity.Admin},
	} {
		token, err := signer.Sign(who.user, who.role, tokenLifetime)
		if err != nil {
			return err
		}
		if err := l.writeSecret(path, token+"\n"); err != nil {
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
	if err := renameio.WriteFile(path, []byte(content), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("write a secret: %w", err)
	}
	return nil
}
