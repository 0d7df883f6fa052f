package backup

import (
	"context"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/backup"
)

// numberLimit bounds how long a proof waits for the second storage's proofs, well below the time of RecordProof.
const numberLimit = time.Minute

// ProofInput is what a drill has found.
type ProofInput struct {
	DrillInput
	BackupID string    `json:"backupId"`
	At       time.Time `json:"at"`
	// RestoreSeconds and CompareSeconds are how long it took to restore and to compare.
	RestoreSeconds float64 `json:"restoreSeconds,omitempty"`
	CompareSeconds float64 `json:"compareSeconds,omitempty"`
	Tables         int     `json:"tables,omitempty"`
	Rows           int64   `json:"rows,omitempty"`
	// Reason is why the backup is bad; of a disproof only.
	Reason string `json:"reason,omitempty"`
}

// RecordProof writes beside a backup that the drill has proven it: only then it is verified, wherever it is looked at.
func (a *Activities) RecordProof(ctx context.Context, in ProofInput) error {
	m, _, err := a.backup(ctx, in.DrillInput)
	if err != nil {
		return err
	}
	return failed(backup.WriteProof(ctx, a.Store, backup.Proof{BackupID: in.BackupID, Database: in.Database, Archive: in.Archive,
		DrillID: in.DrillID, Number: a.leastNumber(ctx, in.Database), VerifiedAt: in.At, RestoreSeconds: in.RestoreSeconds, CompareSeconds: in.CompareSeconds,
		Tables: in.Tables, Rows: in.Rows, ServerVersion: m.ServerVersion}))
}

// leastNumber goes on from the copies, so that what is proven in a first storage that is new, because the old one was lost, is
// newer there too. Without an answer of the second storage it is 0: a proof does not wait for it.
func (a *Activities) leastNumber(ctx context.Context, database string) int64 {
	if a.Copy == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, numberLimit)
	defer cancel()
	number, err := backup.NextNumber(ctx, a.Copy, database)
	if err != nil {
		a.Log.Warn("the number of a proof does not go on from the second storage", "database", database, "error", err.Error())
		return 0
	}
	return number
}

// RecordDisproof writes beside a backup that the drill has found it to be bad. Where nothing is left of the backup,
// nothing is written.
func (a *Activities) RecordDisproof(ctx context.Context, in ProofInput) error {
	base, _, _ := strings.Cut(in.Archive, ".")
	if left, err := a.Store.List(ctx, base+"."); err != nil || len(left) == 0 {
		return err
	}
	return failed(backup.WriteDisproof(ctx, a.Store, backup.Disproof{BackupID: in.BackupID, Database: in.Database, Archive: in.Archive,
		DrillID: in.DrillID, FoundAt: in.At, Reason: in.Reason}))
}
