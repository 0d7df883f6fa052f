// Package backup dumps databases, restores them, and compares what came back with what was there.
package backup

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FormatVersion is that of the manifests that this package writes.
const FormatVersion = 1

// Names of the parts of a backup in storage.
const (
	archiveSuffix  = ".dump.zst"
	manifestSuffix = ".manifest.json"
)

// Manifest says what a backup holds. It lies beside the archive; the archive has its final name only when it does.
type Manifest struct {
	FormatVersion int    `json:"formatVersion"`
	ID            string `json:"id"`
	Database      string `json:"database"`
	// Archive is the name of the object beside the manifest: pg_dump's custom format, compressed.
	Archive     string `json:"archive"`
	Compression string `json:"compression"`
	// Bytes and SHA256 are those of the archive as stored.
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// DumpBytes is what pg_dump wrote, before compression.
	DumpBytes int64     `json:"dumpBytes"`
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	// ServerVersion and DumpVersion are those of PostgreSQL and pg_dump.
	ServerVersion string `json:"serverVersion"`
	DumpVersion   string `json:"dumpVersion"`
	// Encoding, Collate and CType are what a database to restore into is made with.
	Encoding string `json:"encoding"`
	Collate  string `json:"collate"`
	CType    string `json:"ctype"`
	// LSN is the place in the write-ahead log when the snapshot was taken.
	LSN string `json:"lsn,omitempty"`
	// Tables are the rows of every table in the snapshot that was dumped.
	Tables []Table `json:"tables"`
	// Warnings are what pg_dump said that was no error.
	Warnings []string `json:"warnings,omitempty"`
}

// Rows is the sum over all tables.
func (m Manifest) Rows() int64 { return Rows(m.Tables) }

// Complete returns what a manifest lacks to stand for a backup; nil for a good one.
func (m Manifest) Complete() error {
	switch {
	case m.FormatVersion != FormatVersion:
		return fmt.Errorf("the manifest has format version %d, this program reads %d", m.FormatVersion, FormatVersion)
	case m.ID == "" || m.Database == "" || m.Archive == "" || m.Bytes <= 0 || len(m.SHA256) != 64 || m.EndedAt.IsZero():
		return fmt.Errorf("the manifest is incomplete")
	}
	return nil
}

// Table is one table and its exact number of rows.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
}

func (t Table) key() string { return t.Schema + "." + t.Name }

// Rows is the sum over tables.
func Rows(tables []Table) int64 {
	var sum int64
	for _, t := range tables {
		sum += t.Rows
	}
	return sum
}

// Compare returns how what was found differs from what was expected, a sentence a difference, in the order of table
// names. Nothing means equal.
func Compare(expected, found []Table) []string {
	var differences []string
	want, got := byName(expected), byName(found)
	for len(want) > 0 || len(got) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0].key() < got[0].key():
			differences = append(differences, fmt.Sprintf("table %s is missing, %d rows expected", want[0].key(), want[0].Rows))
			want = want[1:]
		case len(want) == 0 || got[0].key() < want[0].key():
			differences = append(differences, fmt.Sprintf("table %s was not in the database", got[0].key()))
			got = got[1:]
		default:
			if want[0].Rows != got[0].Rows {
				differences = append(differences, fmt.Sprintf("table %s has %d rows, %d expected", want[0].key(), got[0].Rows, want[0].Rows))
			}
			want, got = want[1:], got[1:]
		}
	}
	return differences
}

func byName(tables []Table) []Table {
	sorted := slices.Clone(tables)
	slices.SortFunc(sorted, func(a, b Table) int { return strings.Compare(a.key(), b.key()) })
	return sorted
}

// ArchiveName is the name of a backup's archive in storage. It is the same at every attempt.
func ArchiveName(database, id string, started time.Time) string {
	return fmt.Sprintf("%s/%s-%s%s", database, started.UTC().Format("20060102T150405Z"), id, archiveSuffix)
}

// ManifestName is the name of the manifest beside an archive.
func ManifestName(archive string) string {
	return strings.TrimSuffix(archive, archiveSuffix) + manifestSuffix
}
