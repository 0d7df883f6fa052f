package storage_test

import (
	"testing"
	"time"

	"github.com/school-sms/sms/internal/storage"
)

func TestALockedObjectSaysUntilWhen(t *testing.T) {
	t.Parallel()
	at, err := storage.ParseLocation("s3://backups?lock=30d")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := storage.NewS3(*at.S3, storage.S3Options{Stall: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	free, err := storage.NewDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := storage.Object{Name: "x", Modified: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	if until := storage.LockedUntil(locked, o); !until.Equal(o.Modified.AddDate(0, 0, 30)) {
		t.Errorf("in a bucket with a lock of 30 days: until %s", until)
	}
	if until := storage.LockedUntil(free, o); !until.IsZero() {
		t.Errorf("in a folder: until %s", until)
	}
}
