package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/standalone"
)

func TestDoctorSaysWhoseTokensAreTaken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "issuers.json")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := issuersInForce(""); err != nil || said != "the platform's own" {
		t.Errorf("%s %v", said, err)
	}
	write(`[{"name":"school","issuer":"https://login.school.example","audience":"sms","roles":{"office":"clerk"}}]`)
	if said, err := issuersInForce(file); err != nil || !strings.Contains(said, "https://login.school.example") || !strings.Contains(said, "school/") {
		t.Errorf("%s %v", said, err)
	}
	write(`[{"name":"school","issuer":"http://login.school.example","audience":"","roles":{"office":"king"}}]`)
	_, err := issuersInForce(file)
	for _, want := range []string{"https", "audience", "king"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := issuersInForce(file + ".gone"); err == nil || !strings.Contains(err.Error(), "IDENTITY_OIDC_ISSUERS_FILE") {
		t.Error(err)
	}

	shown := map[string]string{}
	for _, s := range servicesSettings([]string{"GATEWAY_USER_RATE=7", "IDENTITY_OIDC_REFRESH=1m"}) {
		shown[s.Name] = s.Value + " " + s.Source
	}
	for name, want := range map[string]string{"GATEWAY_USER_RATE": "7 environment", "IDENTITY_OIDC_REFRESH": "1m environment",
		"IDENTITY_OIDC_KEEP": "24h default"} {
		if shown[name] != want {
			t.Errorf("%s is shown as %q, want %q", name, shown[name], want)
		}
	}
}

func TestDoctorSaysWhereBackupsLie(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	credentials := filepath.Join(dir, "credentials")
	if err := os.WriteFile(credentials, []byte("[default]\naws_access_key_id = canary\naws_secret_access_key = canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	place := func(passed ...string) (string, error) {
		return backupStorage(standalone.Options{DataDir: dir, Services: passed})
	}
	if said, err := place(); err != nil || !strings.Contains(said, filepath.Join(dir, "backups")) || !strings.Contains(said, "no second storage") {
		t.Errorf("%s %v", said, err)
	}
	said, err := place("BACKUP_COPY_STORAGE=s3://copies/sms?endpoint=https://minio.example:9000", "BACKUP_S3_CREDENTIALS_FILE="+credentials)
	if err != nil || !strings.Contains(said, "copied to s3://copies/sms at https://minio.example:9000") || strings.Contains(said, "canary") {
		t.Errorf("%s %v", said, err)
	}
	_, err = place("BACKUP_STORAGE=s3://copies?endpoint=ftp://x", "BACKUP_COPY_STORAGE=s3://x:canary@copies?lock=soon", "BACKUP_S3_STALL=1ms")
	for _, want := range []string{"endpoint", "credentials", "lock", "BACKUP_S3_STALL"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
