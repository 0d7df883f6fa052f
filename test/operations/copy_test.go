package operations

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/school-sms/sms/api/ops"
	engine "github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
	"github.com/school-sms/sms/internal/storage/storagetest"
	"github.com/school-sms/sms/workflows/backup"
)

func copyOf(t *testing.T, o ops.Operation) backup.CopyOutcome {
	t.Helper()
	var out backup.Outcome
	must(t, json.Unmarshal(o.Outcome, &out))
	if o.State != backup.StateVerified || out.Copy == nil {
		t.Fatalf("%s: %s", o.State, o.Summary)
	}
	return *out.Copy
}

// TestBackupsAreCopiedToASecondStorage: a backup counts though it cannot be copied, and the next one makes up for it, with
// what a drill has found meanwhile.
func TestBackupsAreCopiedToASecondStorage(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 20)
	second := storagetest.Serve(t, nil)
	place := second.URL("copies")
	p.again("BACKUP_S3_CREDENTIALS_FILE="+second.CredentialsFile, "BACKUP_COPY_STORAGE="+strings.Replace(place, storagetest.BucketName, "forgotten", 1))
	first := p.verified(p.start())
	if c := copyOf(t, first); c.Objects != 0 {
		t.Errorf("copied %+v", c)
	}
	contains(t, first.Summary, "The second storage lacks backups", "no such bucket")
	p.keepHistory(first, "backup/testdata/backup-not-copied.json")

	p.again("BACKUP_COPY_STORAGE=" + place)
	if again := p.until(backups+"/"+p.begin(backups+"/"+first.ID+"/verify", nil).ID, ended); again.State != operation.Succeeded {
		t.Fatalf("verified again: %s: %s", again.State, again.Summary)
	}
	next := p.until(backups+"/"+p.start().ID, ended)
	if c := copyOf(t, next); c.Fault != "" || c.Backups != 2 || c.Objects != 9 {
		t.Errorf("copied %+v, want two backups of four objects, and a second proof", c)
	}
	p.keepHistory(next, "backup/testdata/backup-copied.json")

	store := second.Store(t, "copies")
	entries, err := engine.Scan(t.Context(), store, "")
	must(t, err)
	if len(entries) != 2 || !entries[0].Verified() || !entries[1].Verified() || len(entries[0].Proofs) != 2 || entries[0].Manifest.ID != first.ID {
		t.Fatalf("in the second storage: %+v", entries)
	}
	for _, e := range entries {
		for _, o := range e.Objects {
			content, err := os.ReadFile(filepath.Join(p.dir, o.Name))
			must(t, err)
			if !bytes.Equal(content, storagetest.Get(t, store, o.Name)) {
				t.Errorf("%s differs", o.Name)
			}
		}
	}
}
