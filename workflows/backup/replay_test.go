package backup_test

import (
	"testing"

	"github.com/school-sms/sms/internal/temporalclient/temporaltest"
	"github.com/school-sms/sms/workflows/backup"
)

// The histories are those of real runs, recorded with `go test ./test/operations -record`.
func TestRecordedHistoriesReplay(t *testing.T) {
	t.Parallel()
	temporaltest.Replay(t, "testdata", backup.Backup, backup.RestoreDrill, backup.Retention, backup.Restore)
}
