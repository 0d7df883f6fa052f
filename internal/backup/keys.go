package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
)

// The ways in which keys are at fault. None is mended by a retry.
var (
	// ErrNoKey says that a key is needed, and none is configured or readable.
	ErrNoKey = errors.New("no key")
	// ErrWrongKey says that a backup was encrypted for other keys than those that are there.
	ErrWrongKey = errors.New("wrong key")
	// ErrTampered says that a backup was changed after it was encrypted, or is cut off. It is also ErrDamaged.
	ErrTampered = fmt.Errorf("%w: it is not what was encrypted", ErrDamaged)
)

// What a manifest says about encryption.
const (
	Encrypted   = "age" // age-encryption.org/v1
	Unencrypted = "none"
)

// KeyFiles name the files with age keys, and are read anew for each backup and restore.
type KeyFiles struct {
	// Recipients is a file of public keys, one a line: every backup can be read with the secret key of any of them.
	Recipients string `env:"BACKUP_RECIPIENTS_FILE"`
	// Identities is a file of secret keys, one a line, that drills and restores read backups with.
	Identities string `env:"BACKUP_IDENTITIES_FILE"`
	// Encryption is "on" or, for backups that anybody can read who reaches them, "off".
	Encryption string `env:"BACKUP_ENCRYPTION" envDefault:"on"`
}

// On reports whether backups are encrypted: always, unless that was switched off explicitly.
func (f KeyFiles) On() bool { return f.Encryption != "off" }

// Check names every fault of the settings, not of the files.
func (f KeyFiles) Check() error {
	if f.Encryption != "on" && f.Encryption != "off" && f.Encryption != "" {
		return fmt.Errorf("BACKUP_ENCRYPTION is on or off, not %q", f.Encryption)
	}
	return nil
}

// Keys encrypt backups and decrypt them.
type Keys struct {
	on         bool
	recipients []age.Recipient
	identities []age.Identity
	sealedFor  []string // fingerprints of the recipients
	opens      []string // fingerprints of what the identities open
}

// Read reads the files. Files that are not named are left out; what then lacks a key says so (ErrNoKey).
func (f KeyFiles) Read() (Keys, error) {
	k := Keys{on: f.On()}
	if f.Recipients != "" {
		err := readKeys(f.Recipients, "recipients", func(r io.Reader) (err error) {
			k.recipients, err = age.ParseRecipients(r)
			return err
		})
		if err != nil {
			return Keys{}, err
		}
	}
	if f.Identities != "" {
		err := readKeys(f.Identities, "identities", func(r io.Reader) (err error) {
			k.identities, err = age.ParseIdentities(r)
			return err
		})
		if err != nil {
			return Keys{}, err
		}
	}
	for _, r := range k.recipients {
		k.sealedFor = append(k.sealedFor, fingerprint(r))
	}
	for _, i := range k.identities {
		switch identity := i.(type) {
		case *age.X25519Identity:
			k.opens = append(k.opens, fingerprint(identity.Recipient()))
		case *age.HybridIdentity:
			k.opens = append(k.opens, fingerprint(identity.Recipient()))
		}
	}
	return k, nil
}

// readKeys parses a file of keys. Its errors show no key: the parser's words may hold the line that it did not understand.
func readKeys(path, what string, parse func(io.Reader) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w: the file of %s cannot be read: %w", ErrNoKey, what, err)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return fmt.Errorf("%w: the file of %s, %s, is empty", ErrNoKey, what, path)
	}
	if parse(bytes.NewReader(content)) != nil {
		return fmt.Errorf("%w: the file of %s, %s, holds a line that is no age key (age-keygen makes one)", ErrNoKey, what, path)
	}
	return nil
}

// fingerprint names a public key: the first 16 hexadecimal digits of the SHA-256 of its written form.
func fingerprint(recipient any) string {
	hash := sha256.Sum256([]byte(fmt.Sprint(recipient)))
	return hex.EncodeToString(hash[:8])
}

// Fingerprints are those of the keys that backups are encrypted for; none where encryption is off.
func (k Keys) Fingerprints() []string {
	if !k.on {
		return nil
	}
	return slices.Clone(k.sealedFor)
}

func (k Keys) encryption() string {
	if k.on {
		return Encrypted
	}
	return Unencrypted
}

// Ready proves that a backup can be encrypted and that a drill will be able to decrypt it. It returns ErrNoKey and
// ErrWrongKey.
func (k Keys) Ready() error {
	if !k.on {
		return nil
	}
	const sample = "a backup that nobody can read is none"
	var sealed bytes.Buffer
	w, err := k.Seal(&sealed)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, sample); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	r, err := k.Open(&sealed, Encrypted, k.sealedFor)
	if err != nil {
		return err
	}
	if back, err := io.ReadAll(r); err != nil || string(back) != sample {
		return fmt.Errorf("%w: what was encrypted as a test could not be decrypted", ErrWrongKey)
	}
	return nil
}

// Seal encrypts what is written. Closing the writer makes the whole one that decrypts: after an error it must not be
// closed, so that what broke off stays unreadable.
func (k Keys) Seal(w io.Writer) (io.WriteCloser, error) {
	if !k.on {
		return plain{w}, nil
	}
	if len(k.recipients) == 0 {
		return nil, fmt.Errorf("%w: backups are encrypted, and BACKUP_RECIPIENTS_FILE names no public key", ErrNoKey)
	}
	sealed, err := age.Encrypt(w, k.recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed, nil
}

// Open decrypts what Seal has made, given what the manifest says of it. It returns ErrNoKey, ErrWrongKey and ErrTampered,
// the last also while it is read.
func (k Keys) Open(r io.Reader, encryption string, recipients []string) (io.Reader, error) {
	switch encryption {
	case Unencrypted:
		return r, nil
	case Encrypted:
	default:
		return nil, fmt.Errorf("%w: the manifest names an unknown encryption %q", ErrDamaged, encryption)
	}
	if err := k.Opens(encryption, recipients); err != nil {
		return nil, err
	}
	source := &noting{Reader: r}
	opened, err := age.Decrypt(source, k.identities...)
	if err != nil {
		if source.err != nil {
			return nil, source.err
		}
		return nil, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return &authenticated{opened, source}, nil
}

// Opens reports whether a backup can be decrypted, without reading it. It returns ErrNoKey and ErrWrongKey.
func (k Keys) Opens(encryption string, recipients []string) error {
	switch {
	case encryption == Unencrypted:
		return nil
	case len(k.identities) == 0:
		return fmt.Errorf("%w: the backup is encrypted for %s, and BACKUP_IDENTITIES_FILE names no secret key", ErrNoKey, strings.Join(recipients, ", "))
	case !slices.ContainsFunc(k.opens, func(f string) bool { return slices.Contains(recipients, f) }):
		return fmt.Errorf("%w: the backup is encrypted for %s, the secret keys are those of %s", ErrWrongKey,
			strings.Join(recipients, ", "), strings.Join(k.opens, ", "))
	}
	return nil
}

// authenticated tells a ciphertext that does not fit from a source that cannot be read.
type authenticated struct {
	io.Reader
	source *noting
}

func (a *authenticated) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err
	}
	if a.source.err != nil {
		return n, a.source.err
	}
	return n, fmt.Errorf("%w: %w", ErrTampered, err)
}

// plain writes unencrypted.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// NewKeyPair makes a secret key and its public one, in the form of the files that KeyFiles names.
func NewKeyPair() (identity, recipient string, err error) {
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("make a key for backups: %w", err)
	}
	return pair.String() + "\n", pair.Recipient().String() + "\n", nil
}
