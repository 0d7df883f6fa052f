package backup_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/backup"
)

// keyFiles writes key pairs: recipients of all, identities of those that are named.
func keyFiles(t *testing.T, pairs int, identities ...int) backup.KeyFiles {
	t.Helper()
	var recipients, secrets string
	for i := range pairs {
		identity, recipient, err := backup.NewKeyPair()
		if err != nil {
			t.Fatal(err)
		}
		recipients += recipient
		for _, wanted := range identities {
			if wanted == i {
				secrets += identity
			}
		}
	}
	files := backup.KeyFiles{Recipients: filepath.Join(t.TempDir(), "recipients"), Encryption: "on"}
	write(t, files.Recipients, recipients)
	if len(identities) > 0 {
		files.Identities = filepath.Join(t.TempDir(), "identities")
		write(t, files.Identities, "# kept elsewhere too\n"+secrets)
	}
	return files
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readKeys(t *testing.T, files backup.KeyFiles) backup.Keys {
	t.Helper()
	keys, err := files.Read()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func seal(t *testing.T, keys backup.Keys, text string) []byte {
	t.Helper()
	var sealed bytes.Buffer
	w, err := keys.Seal(&sealed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sealed.Bytes()
}

func open(keys backup.Keys, sealed []byte, recipients []string) (string, error) {
	r, err := keys.Open(bytes.NewReader(sealed), backup.Encrypted, recipients)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

func TestAnyOfSeveralRecipientsReadsABackup(t *testing.T) {
	t.Parallel()
	for _, one := range []int{0, 1, 2} {
		keys := readKeys(t, keyFiles(t, 3, one))
		if err := keys.Ready(); err != nil || len(keys.Fingerprints()) != 3 {
			t.Errorf("key %d of 3: %v, fingerprints %v", one, err, keys.Fingerprints())
		}
		if text, err := open(keys, seal(t, keys, "Meera"), keys.Fingerprints()); err != nil || text != "Meera" {
			t.Errorf("key %d of 3 reads %q, %v", one, text, err)
		}
	}
}

func TestWhatIsWrongWithKeysIsSaidAndShowsNone(t *testing.T) {
	t.Parallel()
	good := keyFiles(t, 1, 0)
	garbled := keyFiles(t, 1, 0)
	secret, err := os.ReadFile(garbled.Identities)
	if err != nil {
		t.Fatal(err)
	}
	write(t, garbled.Identities, strings.Replace(string(secret), "AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q", 1))
	empty := keyFiles(t, 1, 0)
	write(t, empty.Identities, "\n")
	for name, test := range map[string]struct {
		files backup.KeyFiles
		want  error
	}{
		"no file of recipients":     {backup.KeyFiles{Recipients: "/nowhere", Identities: good.Identities}, backup.ErrNoKey},
		"recipients not configured": {backup.KeyFiles{Identities: good.Identities}, backup.ErrNoKey},
		"identities not configured": {backup.KeyFiles{Recipients: good.Recipients}, backup.ErrNoKey},
		"an empty file":             {empty, backup.ErrNoKey},
		"a garbled key":             {garbled, backup.ErrNoKey},
		"a secret key of another":   {backup.KeyFiles{Recipients: good.Recipients, Identities: keyFiles(t, 1, 0).Identities}, backup.ErrWrongKey},
		"all well":                  {good, nil},
		"switched off":              {backup.KeyFiles{Encryption: "off"}, nil},
	} {
		keys, err := test.files.Read()
		if err == nil {
			err = keys.Ready()
		}
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
	if err := (backup.KeyFiles{Encryption: "maybe"}).Check(); err == nil {
		t.Error("BACKUP_ENCRYPTION=maybe was accepted")
	}
}

func TestWrongKeyNoKeyAndTamperedAreToldApart(t *testing.T) {
	t.Parallel()
	keys, stranger := readKeys(t, keyFiles(t, 1, 0)), readKeys(t, keyFiles(t, 1, 0))
	sealed, recipients := seal(t, keys, strings.Repeat("Meera Patil\n", 20000)), keys.Fingerprints()
	if _, err := open(stranger, sealed, recipients); !errors.Is(err, backup.ErrWrongKey) || errors.Is(err, backup.ErrDamaged) {
		t.Errorf("another's key: %v", err)
	}
	if _, err := open(readKeys(t, keyFiles(t, 1)), sealed, recipients); !errors.Is(err, backup.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	for i := 0; i < len(sealed); i += 997 { // the header with its wrapped key too
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1 << (i % 8)
		if _, err := open(keys, flipped, recipients); !errors.Is(err, backup.ErrTampered) || !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("flipped at %d: %v, want tampered", i, err)
		}
		if _, err := open(keys, sealed[:i], recipients); !errors.Is(err, backup.ErrTampered) {
			t.Errorf("cut at %d: %v, want tampered", i, err)
		}
	}
}
