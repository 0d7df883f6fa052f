package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/storage"
)

// ProofVersion is the format version of the proofs and disproofs that this package writes.
const ProofVersion = 1

// Names of the words of drills in storage, after a backup's base and before the drill's id.
const (
	proofInfix    = ".proof-"
	disproofInfix = ".disproof-"
	wordSuffix    = ".json"
)

// maxSmallObject bounds what is read of a manifest or proof, in bytes: a manifest of 100,000 tables is about 20 MB.
const maxSmallObject = 64 << 20

// Proof says that a drill has restored a backup and found in it what its manifest says. It lies beside the backup, so
// that what is verified is known without ops_db.
type Proof struct {
	FormatVersion int    `json:"formatVersion"`
	BackupID      string `json:"backupId"`
	Database      string `json:"database"`
	Archive       string `json:"archive"`
	// ManifestSHA256 is that of the manifest as stored: a proof of another manifest proves nothing.
	ManifestSHA256 string `json:"manifestSha256"`
	DrillID        string `json:"drillId"`
	// Number counts the proofs and disproofs of a database: a later one has a higher number, whatever the clock says.
	Number     int64     `json:"number"`
	VerifiedAt time.Time `json:"verifiedAt"`
	// RestoreSeconds is the measured time to get the data back, CompareSeconds that to compare it.
	RestoreSeconds float64 `json:"restoreSeconds"`
	CompareSeconds float64 `json:"compareSeconds"`
	Tables         int     `json:"tables"`
	Rows           int64   `json:"rows"`
	ServerVersion  string  `json:"serverVersion"`
}

// Disproof says that a drill has found a backup to be bad. A later Proof, of a storage that has recovered, outweighs it.
type Disproof struct {
	FormatVersion int       `json:"formatVersion"`
	BackupID      string    `json:"backupId"`
	Database      string    `json:"database"`
	Archive       string    `json:"archive"`
	DrillID       string    `json:"drillId"`
	Number        int64     `json:"number"`
	FoundAt       time.Time `json:"foundAt"`
	// Reason is a sentence for operators.
	Reason string `json:"reason"`
}

// WriteProof stores a proof beside its backup. It fills in FormatVersion, Number and, where it is empty,
// ManifestSHA256; a Number that is given is the least. A proof that the same drill has written before stays, and is no error.
func WriteProof(ctx context.Context, store storage.Store, p Proof) error {
	base, err := checkWord(p.Archive, p.Database, p.BackupID, p.DrillID)
	if err != nil {
		return fmt.Errorf("write a proof: %w", err)
	}
	if p.ManifestSHA256 == "" {
		content, err := readSmall(ctx, store, base+manifestSuffix)
		if err != nil {
			return fmt.Errorf("write a proof: %w", err)
		}
		p.ManifestSHA256 = hashOf(content)
	}
	p.FormatVersion, p.VerifiedAt = ProofVersion, p.VerifiedAt.UTC()
	next, err := NextNumber(ctx, store, p.Database)
	if err != nil {
		return fmt.Errorf("write a proof: %w", err)
	}
	p.Number = max(p.Number, next)
	return writeWord(ctx, store, base+proofInfix+p.DrillID+wordSuffix, p)
}

// WriteDisproof stores a disproof beside its backup, as WriteProof does a proof.
func WriteDisproof(ctx context.Context, store storage.Store, d Disproof) error {
	base, err := checkWord(d.Archive, d.Database, d.BackupID, d.DrillID)
	if err != nil {
		return fmt.Errorf("write a disproof: %w", err)
	}
	d.FormatVersion, d.FoundAt = ProofVersion, d.FoundAt.UTC()
	if d.Number, err = NextNumber(ctx, store, d.Database); err != nil {
		return fmt.Errorf("write a disproof: %w", err)
	}
	return writeWord(ctx, store, base+disproofInfix+d.DrillID+wordSuffix, d)
}

// checkWord returns the base of the backup that a drill speaks of.
func checkWord(archive, database, backupID, drillID string) (base string, err error) {
	name, ok := parseName(archive)
	switch {
	case !ok || name.database != database || name.id != backupID:
		return "", fmt.Errorf("%q is no archive of backup %s of %s", archive, backupID, database)
	case !drillName.MatchString(drillID):
		return "", fmt.Errorf("%q cannot be a drill's id", drillID)
	}
	return name.base, nil
}

func writeWord(ctx context.Context, store storage.Store, name string, word any) error {
	content, err := json.MarshalIndent(word, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	w, err := store.Create(ctx, name)
	if errors.Is(err, storage.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(append(content, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := w.Commit(ctx); err != nil && !errors.Is(err, storage.ErrExists) {
		return err
	}
	return nil
}

// NextNumber is one more than the highest number of a database's proofs and disproofs. Two drills at the same moment may
// get the same: then their times decide.
func NextNumber(ctx context.Context, store storage.Store, database string) (int64, error) {
	objects, err := store.List(ctx, database+"/")
	if err != nil {
		return 0, err
	}
	var highest int64
	for _, o := range objects {
		if name, ok := parseName(o.Name); !ok || name.part != partProof && name.part != partDisproof {
			continue
		}
		content, err := readSmall(ctx, store, o.Name)
		if errors.Is(err, storage.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return 0, err
		}
		var word struct {
			Number int64 `json:"number"`
		}
		if json.Unmarshal(content, &word) == nil { // a damaged one has no number
			highest = max(highest, word.Number)
		}
	}
	return highest + 1, nil
}

// part is what an object is to its backup.
type part int

const (
	partOther part = iota
	partArchive
	partGlobals
	partManifest
	partProof
	partDisproof
)

// objectName is the name of an object, taken apart.
type objectName struct {
	base, database, id string
	started            time.Time
	part               part
}

const nameTime = "20060102T150405Z"

var (
	backupObject = regexp.MustCompile(`^(([a-z][a-z0-9_]{0,39})/([0-9]{8}T[0-9]{6}Z)-([0-9a-z]+))(\.[a-z].*)$`)
	drillName    = regexp.MustCompile(`^[0-9a-z]+$`)
)

// parseName takes the name of a backup's object apart. It reports false for what is none.
func parseName(name string) (objectName, bool) {
	found := backupObject.FindStringSubmatch(name)
	if found == nil {
		return objectName{}, false
	}
	started, err := time.Parse(nameTime, found[3])
	if err != nil {
		return objectName{}, false
	}
	n := objectName{base: found[1], database: found[2], id: found[4], started: started}
	switch suffix := found[5]; {
	case strings.HasPrefix(suffix, ".dump."):
		n.part = partArchive
	case strings.HasPrefix(suffix, ".globals."):
		n.part = partGlobals
	case suffix == manifestSuffix:
		n.part = partManifest
	case strings.HasPrefix(suffix, proofInfix) && strings.HasSuffix(suffix, wordSuffix):
		n.part = partProof
	case strings.HasPrefix(suffix, disproofInfix) && strings.HasSuffix(suffix, wordSuffix):
		n.part = partDisproof
	}
	return n, true
}

func readSmall(ctx context.Context, store storage.Store, name string) ([]byte, error) {
	r, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(reader{ctx, r}, maxSmallObject))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, nil
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// sortProofs puts proofs in the order in which they were written.
func sortProofs(proofs []Proof) {
	slices.SortFunc(proofs, func(a, b Proof) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), a.VerifiedAt.Compare(b.VerifiedAt), cmp.Compare(a.DrillID, b.DrillID))
	})
}

func sortDisproofs(disproofs []Disproof) {
	slices.SortFunc(disproofs, func(a, b Disproof) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), a.FoundAt.Compare(b.FoundAt), cmp.Compare(a.DrillID, b.DrillID))
	})
}
