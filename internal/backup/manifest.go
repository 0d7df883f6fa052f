// Package backup dumps databases, restores them, and compares what came back with what was there.
package backup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// FormatVersion is that of the manifests that this package writes.
const FormatVersion = 2

// Names of the objects of one backup, which all begin with its base. A name without encryption lacks the last part.
const (
	archiveSuffix  = ".dump.zst"
	globalsSuffix  = ".globals.sql.zst"
	sealedSuffix   = ".age"
	manifestSuffix = ".manifest.json"
)

// Manifest says what a backup holds. It lies beside the archive, unencrypted: it holds no secrets and no rows. The archive
// has its final name only when the manifest has.
type Manifest struct {
	FormatVersion int `json:"formatVersion"`
	// Checksum is the SHA-256 of the manifest as it is stored, but for this field, which is then empty.
	Checksum string `json:"checksum"`
	ID       string `json:"id"`
	Database string `json:"database"`
	// Archive is the name of the object beside the manifest: pg_dump's custom format, compressed, encrypted.
	Archive     string `json:"archive"`
	Compression string `json:"compression"`
	// Encryption is Encrypted or Unencrypted; Recipients are the fingerprints of the keys of which any can read the backup.
	Encryption string   `json:"encryption"`
	Recipients []string `json:"recipients,omitempty"`
	// Bytes and SHA256 are those of the archive as stored.
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// DumpBytes is what pg_dump wrote, before compression.
	DumpBytes int64 `json:"dumpBytes"`
	// Globals are the roles and tablespaces of the server, compressed and encrypted like the archive.
	Globals   *Globals  `json:"globals,omitempty"`
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	// ServerVersion and DumpVersion are those of PostgreSQL and pg_dump.
	ServerVersion string `json:"serverVersion"`
	DumpVersion   string `json:"dumpVersion"`
	// Owner, Encoding, Collate, CType and, other than libc's, LocaleProvider and Locale are what a database to restore into is
	// made with.
	Owner          string `json:"owner"`
	Encoding       string `json:"encoding"`
	Collate        string `json:"collate"`
	CType          string `json:"ctype"`
	LocaleProvider string `json:"localeProvider,omitempty"`
	Locale         string `json:"locale,omitempty"`
	// LSN is the place in the write-ahead log when the snapshot was taken.
	LSN string `json:"lsn,omitempty"`
	// SchemaHash is over all definitions, owners and grants.
	SchemaHash string `json:"schemaHash"`
	Contents
	// Warnings are what pg_dump said that was no error.
	Warnings []string `json:"warnings,omitempty"`
}

// Globals is what `pg_dumpall --globals-only` has written.
type Globals struct {
	Object string `json:"object"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// Passwords says whether the hashes of the roles' passwords are in it: only where it is encrypted and the role may read them.
	Passwords bool `json:"passwords"`
}

// Contents is what a database holds, as far as a restored one must hold the same.
type Contents struct {
	// Tables are the rows of every table.
	Tables []Table `json:"tables"`
	// Sequences are their positions.
	Sequences []Sequence `json:"sequences,omitempty"`
	// LargeObjects is how many there are.
	LargeObjects int64 `json:"largeObjects,omitempty"`
	// Extensions are those that the database has, with their versions.
	Extensions []Extension `json:"extensions,omitempty"`
	// Objects are all others: schemas, tables, columns, constraints, indexes, views, functions, types and so on.
	Objects []Object `json:"objects,omitempty"`
}

// Rows is the sum over all tables.
func (m Manifest) Rows() int64 { return Rows(m.Tables) }

// Complete returns what a manifest lacks to stand for a backup; nil for a good one.
func (m Manifest) Complete() error {
	switch {
	case m.FormatVersion != FormatVersion:
		return fmt.Errorf("the manifest has format version %d, this program reads %d", m.FormatVersion, FormatVersion)
	case m.Encryption != Encrypted && m.Encryption != Unencrypted:
		return fmt.Errorf("the manifest names an unknown encryption %q", m.Encryption)
	case m.ID == "" || m.Database == "" || m.Archive == "" || m.Bytes <= 0 || len(m.SHA256) != 64 || m.EndedAt.IsZero():
		return fmt.Errorf("the manifest is incomplete")
	}
	return nil
}

// Encode writes a manifest as it is stored, with its checksum.
func (m Manifest) Encode() ([]byte, error) {
	m.Checksum = ""
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	content = append(content, '\n')
	return bytes.Replace(content, checksumField(""), checksumField(hashOf(content)), 1), nil
}

// decodeManifest reads what Encode has written. It returns ErrDamaged when that is not whole, or when a bit of it has changed.
func decodeManifest(content []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: its manifest cannot be read: %w", ErrDamaged, err)
	}
	if err := m.Complete(); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if hashOf(bytes.Replace(content, checksumField(m.Checksum), checksumField(""), 1)) != m.Checksum {
		return Manifest{}, fmt.Errorf("%w: its manifest is not what was written", ErrDamaged)
	}
	return m, nil
}

func checksumField(sum string) []byte { return fmt.Appendf(nil, `"checksum": "%s"`, sum) }

// Table is one table and its rows.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Rows is their exact number.
	Rows int64 `json:"rows"`
	// Hash is over the rows in any order: equal rows have an equal one.
	Hash string `json:"hash,omitempty"`
	// Bytes is about how much the rows take in the database, without indexes.
	Bytes int64 `json:"bytes,omitempty"`
}

// Sequence is where a sequence stood. Sequences move outside of transactions: while the dump was made it may have moved from
// Value to Until, and the archive holds something from the one to the other.
type Sequence struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Value  int64  `json:"value"`
	Until  int64  `json:"until"`
	// Called is whether Value was given out already; UntilCalled likewise.
	Called      bool `json:"called"`
	UntilCalled bool `json:"untilCalled"`
	// Cycles says that Until may be below Value after Value was passed, or be Value again: where it stands says nothing.
	Cycles bool `json:"cycles,omitempty"`
}

// Extension is an installed extension.
type Extension struct {
	Name    string `json:"name"`
	Schema  string `json:"schema"`
	Version string `json:"version"`
}

// Object is one object of the schema.
type Object struct {
	// Kind is what people call it: table, column, constraint, index, function and so on.
	Kind string `json:"kind"`
	// Name is unique in its kind, for example public.student or public.student.mobile.
	Name string `json:"name"`
	// On is the table that a constraint, an index, a trigger or a policy belongs to.
	On string `json:"on,omitempty"`
	// Definition is a hash.
	Definition string `json:"definition,omitempty"`
	Owner      string `json:"owner,omitempty"`
	// Grants are who may do what, empty where only the owner may what owners may.
	Grants string `json:"grants,omitempty"`
}

func (t Table) key() string    { return t.Schema + "." + t.Name }
func (s Sequence) key() string { return s.Schema + "." + s.Name }

// Rows is the sum over tables.
func Rows(tables []Table) int64 {
	var sum int64
	for _, t := range tables {
		sum += t.Rows
	}
	return sum
}

// Base is what the names of a backup's objects begin with. It is the same at every attempt.
func Base(database, id string, started time.Time) string {
	return fmt.Sprintf("%s/%s-%s", database, started.UTC().Format(nameTime), id)
}

// ArchiveName is the name of the archive of a backup.
func ArchiveName(base string, encrypted bool) string { return base + archiveSuffix + sealed(encrypted) }

// GlobalsName is the name of the globals of a backup.
func GlobalsName(base string, encrypted bool) string { return base + globalsSuffix + sealed(encrypted) }

// ManifestName is the name of the manifest of a backup, given its archive.
func ManifestName(archive string) string {
	return strings.TrimSuffix(strings.TrimSuffix(archive, sealedSuffix), archiveSuffix) + manifestSuffix
}

func sealed(encrypted bool) string {
	if encrypted {
		return sealedSuffix
	}
	return ""
}
