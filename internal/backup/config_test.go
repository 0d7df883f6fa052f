package backup_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/settings"
)

func TestSourcesAreReadFromTheEnvironment(t *testing.T) {
	t.Parallel()
	cfg, err := settings.From[backup.Config](map[string]string{
		"BACKUP_DATABASES": "student_db=postgres://sms_backup@127.0.0.1:15432/student_db, temporal=postgresql://b@h/temporal?sslmode=disable",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Databases.Names(); !slices.Equal(got, []string{"student_db", "temporal"}) {
		t.Errorf("names %v", got)
	}
	if s, ok := cfg.Databases.Find("temporal"); !ok || s.URL != "postgresql://b@h/temporal?sslmode=disable" {
		t.Errorf("temporal: %+v, %t", s, ok)
	}
}

func TestSourcesNameEveryFaultAndNoSecret(t *testing.T) {
	t.Parallel()
	_, err := settings.From[backup.Config](map[string]string{
		"BACKUP_DATABASES": "a=postgres://u:canary@h/a,b=mysql://u@h/b,Student=postgres://u@h/c,d=postgres://u@h/,e=postgres://u@h/e?password=canary," +
			"f=postgres://u@h/f,f=postgres://u@h/f",
		"BACKUP_PARALLEL": "0",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"a: the URL holds a password", "b: not a PostgreSQL URL", "lower-case", "d: the URL names no user or no database",
		"e: the URL holds a password", "f: named twice", "BACKUP_PARALLEL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error holds a password: %v", err)
	}
}
