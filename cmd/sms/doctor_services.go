package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/settings"
	"github.com/school-sms/sms/internal/standalone"
	"github.com/school-sms/sms/internal/storage"
)

// servicesSettings are the services' own settings that `sms up` would hand on: all on whose tokens are taken, and what else is
// set.
func servicesSettings(passed []string) []settings.Setting {
	all := slices.DeleteFunc(settings.Describe[identity.Config](env.ToMap(passed)), func(s settings.Setting) bool {
		return !strings.HasPrefix(s.Name, "IDENTITY_OIDC_")
	})
	for _, entry := range passed {
		name, value, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(all, func(s settings.Setting) bool { return s.Name == name }) {
			all = append(all, settings.Setting{Name: name, Value: value, Source: "environment"})
		}
	}
	return all
}

// issuersInForce says whose tokens are taken. The error names the faults of the file.
func issuersInForce(file string) (string, error) {
	const own = "the platform's own"
	if file == "" {
		return own, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("IDENTITY_OIDC_ISSUERS_FILE: %w", err)
	}
	issuers, err := identity.ParseIssuers(string(content))
	if err != nil {
		return "", err
	}
	said := []string{own}
	for _, i := range issuers {
		said = append(said, fmt.Sprintf("those of %s for %q, whose users are %s/…", i.Issuer, i.Audience, i.Name))
	}
	return strings.Join(said, "; "), nil
}

// backupKeys says which keys backups are encrypted for, after a test that what is encrypted can be decrypted again.
func backupKeys(options standalone.Options) (string, error) {
	files := standalone.Layout{Root: options.DataDir}.BackupKeys(options.Services)
	if err := files.Check(); err != nil {
		return "", err
	}
	if !files.On() {
		return "none: backups are not encrypted (BACKUP_ENCRYPTION=off)", nil
	}
	_, noRecipients := os.Stat(files.Recipients)
	_, noIdentities := os.Stat(files.Identities)
	if errors.Is(noRecipients, os.ErrNotExist) && errors.Is(noIdentities, os.ErrNotExist) {
		return "made at the first start", nil
	}
	keys, err := files.Read()
	if err == nil {
		err = keys.Ready()
	}
	return strings.Join(keys.Fingerprints(), ", ") + "; what they encrypt can be decrypted", err
}

// backupStorage says where backups lie. The error names every fault of those settings; the storages are not asked.
func backupStorage(options standalone.Options) (string, error) {
	environ := env.ToMap(options.Services)
	environ["BACKUP_DIR"] = filepath.Join(options.DataDir, "backups")
	c, err := settings.From[storage.Config](environ)
	if err != nil {
		return "", err
	}
	first := c.Storage
	if first.IsZero() {
		first = storage.Location{Folder: c.Dir}
	}
	if c.CopyStorage.IsZero() {
		return first.String() + "; no second storage (BACKUP_COPY_STORAGE)", nil
	}
	return first.String() + ", copied to " + c.CopyStorage.String(), nil
}
