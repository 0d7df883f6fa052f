package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/backup"
	"github.com/school-sms/sms/internal/operation"
)

// RestoreRequest says what to restore, and where to. Of Into, InPlaceOf and Table exactly one is given.
type RestoreRequest struct {
	// Backup is the backup's id, or as much of its beginning as tells it from others.
	Backup string `json:"backup"`
	// From is the storage to look in, as storage.ParseLocation reads it; empty: the platform's own, and then its copy.
	From string `json:"from,omitempty"`
	// KeyFile is a file of the worker's machine with the age identities to read the backup with; empty: the platform's own.
	KeyFile string `json:"keyFile,omitempty"`
	// Into is the new database to restore into.
	Into string `json:"into,omitempty"`
	// InPlaceOf is the database to replace: the one that the backup is of.
	InPlaceOf string `json:"inPlaceOf,omitempty"`
	// Table is one table, schema.name, to restore beside the one in the database that the backup is of.
	Table string `json:"table,omitempty"`
	// NoSafetyBackup replaces a database without a backup of it, which must be impossible, and says why.
	NoSafetyBackup bool   `json:"noSafetyBackup,omitempty"`
	Reason         string `json:"reason,omitempty"`
}

// Found is the backup that a request means.
type Found struct {
	ID       string    `json:"id"`
	Database string    `json:"database"`
	Archive  string    `json:"archive"`
	SHA256   string    `json:"sha256"`
	TakenAt  time.Time `json:"takenAt"`
	Bytes    int64     `json:"bytes"`
	Tables   int       `json:"tables"`
	Rows     int64     `json:"rows"`
	// InCopy says that it lies in the storage of copies.
	InCopy bool `json:"inCopy,omitempty"`
	// VerifiedAt is when a drill last proved it; nil when none has.
	VerifiedAt *time.Time `json:"verifiedAt,omitempty"`
}

// RestoreWork is what the activities of one restore are told.
type RestoreWork struct {
	RestoreID string         `json:"restoreId"`
	Request   RestoreRequest `json:"request"`
	Found     Found          `json:"found"`
	// OID is that of the database that the restore works in, once it was made.
	OID uint32 `json:"oid,omitempty"`
}

func (w RestoreWork) beside() string { return backup.BesideName(w.Found.Database, w.RestoreID) }

// FindBackup looks for the backup by what lies in storage: ops_db is not asked.
func (a *Activities) FindBackup(ctx context.Context, in RestoreRequest) (Found, error) {
	stores, err := a.stores(in.From)
	if err != nil {
		return Found{}, failed(err)
	}
	var faults []error
	for i, store := range stores {
		entries, err := backup.Scan(ctx, store, "")
		if err != nil {
			faults = append(faults, err)
			continue
		}
		entry, err := pick(entries, in.Backup)
		if err == nil {
			err = entry.Fault
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		m := entry.Manifest
		found := Found{ID: m.ID, Database: m.Database, Archive: m.Archive, SHA256: m.SHA256, TakenAt: m.StartedAt, Bytes: m.Bytes,
			Tables: len(m.Tables), Rows: m.Rows(), InCopy: i > 0}
		if n := len(entry.Proofs); n > 0 && !entry.Disproven() {
			found.VerifiedAt = &entry.Proofs[n-1].VerifiedAt
		}
		return found, nil
	}
	return Found{}, failed(errors.Join(faults...))
}

// pick returns the one backup whose id is, or begins with, what was asked for.
func pick(entries []backup.Entry, id string) (found backup.Entry, err error) {
	n := 0
	for _, e := range entries {
		if e.Manifest.ID == id {
			return e, nil
		}
		if strings.HasPrefix(e.Manifest.ID, id) {
			found = e
			n++
		}
	}
	switch n {
	case 1:
		return found, nil
	case 0:
		return found, noBackup(id, len(entries))
	}
	return found, final(operation.ErrAmbiguous.Error(), SetupType, nil)
}

// CheckRestore reads the whole backup through with the key and looks at the server, so that what cannot be restored is
// refused before anything is touched: with the wrong key or none, when it was tampered with or is damaged, when the server
// is older than the one that was backed up, or the programs are too old; when a name is taken or an owner missing.
func (a *Activities) CheckRestore(ctx context.Context, in RestoreWork) error {
	r, err := a.restoring(ctx, in)
	if err != nil {
		return err
	}
	if err := a.checkTarget(ctx, in, r); err != nil {
		return failed(err)
	}
	if err := r.tools.ReadyToRestore(ctx, r.manifest, r.source); err != nil {
		return failed(err)
	}
	return failed(a.attended(ctx, in.Found.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) error {
		return r.tools.Check(ctx, r.store, r.manifest, meter)
	}))
}

// checkTarget looks whether the restore may go where it is to go.
func (a *Activities) checkTarget(ctx context.Context, in RestoreWork, r restoring) error {
	if target := in.Request.InPlaceOf; target != "" && target != in.Found.Database {
		return final(fmt.Sprintf("backup %s is of %s, not of %s: restore it into a new database", in.Found.ID, in.Found.Database, target), SetupType, nil)
	}
	if in.Request.Table != "" {
		_, err := r.manifest.Table(in.Request.Table)
		return err
	}
	if in.Request.Into == "" {
		return nil
	}
	admin, err := backup.Administer(ctx, r.source)
	if err != nil {
		return err
	}
	defer admin.Close()
	taken, err := admin.Find(ctx, in.Request.Into)
	if taken != nil {
		err = fmt.Errorf("%w: %s; choose another, or restore in place", backup.ErrTaken, in.Request.Into)
	}
	return err
}

// ProveUnreadable reads the database that is to be replaced as a backup would. That it can be read is an error: then the
// safety backup is not to be left out.
func (a *Activities) ProveUnreadable(ctx context.Context, in RestoreWork) (why string, err error) {
	source, err := a.source(in.Found.Database)
	if err != nil {
		return "", err
	}
	err = a.attended(ctx, in.Found.Database, stallLimit, func(ctx context.Context, meter *backup.Meter) error {
		return a.Tools.Readable(ctx, source, meter)
	})
	switch {
	case err == nil:
		return "", final(source.Database+" can be read, so it can be backed up first: leave out --no-safety-backup", SetupType, nil)
	case ctx.Err() != nil:
		return "", ctx.Err()
	}
	return err.Error(), nil
}

// RestoreBeside makes the database that the restore works in anew and restores into it; of a single table only the rows of
// that. What dead restores of this database left is dropped. It returns the database's OID.
func (a *Activities) RestoreBeside(ctx context.Context, in RestoreWork) (oid uint32, err error) {
	r, err := a.restoring(ctx, in)
	if err != nil {
		return 0, err
	}
	a.sweepBesides(ctx, r.source, in.RestoreID)
	err = a.attended(ctx, in.Found.Database, 0, func(ctx context.Context, meter *backup.Meter) error {
		made, err := a.makeBeside(ctx, in, r)
		if err != nil {
			return err
		}
		oid = made.OID
		if in.Request.Table == "" {
			return r.tools.Fill(ctx, r.store, r.manifest, r.source, made.Name, meter)
		}
		table, err := r.manifest.Table(in.Request.Table)
		if err != nil {
			return err
		}
		return r.tools.FillTable(ctx, r.store, r.manifest, r.source, made.Name, table, meter)
	})
	return oid, failed(err)
}

// makeBeside makes the empty database. One that is to replace another gets the owner and the rights of that.
func (a *Activities) makeBeside(ctx context.Context, in RestoreWork, r restoring) (backup.Placed, error) {
	admin, err := backup.Administer(ctx, r.source)
	if err != nil {
		return backup.Placed{}, err
	}
	defer admin.Close()
	owner := r.manifest.Owner
	var like *backup.Placed
	if in.Request.InPlaceOf != "" {
		if like, err = admin.Find(ctx, in.Request.InPlaceOf); err != nil {
			return backup.Placed{}, err
		}
		if like != nil {
			owner = like.Owner
		}
	}
	return admin.Create(ctx, r.manifest, in.beside(), owner, like)
}

// Compared is what was found in a restored database.
type Compared struct {
	Tables int   `json:"tables"`
	Rows   int64 `json:"rows"`
}

// CompareBeside compares the restored database, or the one table of it, with what was backed up. A difference is a
// DifferentType error.
func (a *Activities) CompareBeside(ctx context.Context, in RestoreWork) (Compared, error) {
	r, err := a.restoring(ctx, in)
	if err != nil {
		return Compared{}, err
	}
	var differences []string
	var compared Compared
	err = a.attended(ctx, in.Found.Database, 0, func(ctx context.Context, meter *backup.Meter) (err error) {
		if in.Request.Table != "" {
			var table backup.Table
			if table, err = r.manifest.Table(in.Request.Table); err == nil {
				differences, err = backup.CompareTable(ctx, r.source, in.beside(), table)
				compared = Compared{Tables: 1, Rows: table.Rows}
			}
			return err
		}
		found, err := backup.Examine(ctx, r.source, in.beside(), meter)
		differences = backup.Compare(r.manifest.Contents, found)
		compared = Compared{Tables: len(found.Tables), Rows: backup.Rows(found.Tables)}
		return err
	})
	if err != nil {
		return Compared{}, failed(err)
	}
	if len(differences) > 0 {
		return Compared{}, different(differences)
	}
	return compared, nil
}

// Reconcile finds out what the database that is to be replaced knows and the restored one does not.
func (a *Activities) Reconcile(ctx context.Context, in RestoreWork) (backup.Aftermath, error) {
	source, err := a.source(in.Found.Database)
	if err != nil {
		return backup.Aftermath{}, err
	}
	after, err := backup.Reconcile(ctx, source, in.Request.InPlaceOf, in.beside())
	return after, failed(err)
}

// Put says where restored data is now.
type Put struct {
	// Name is the database, or the table as schema.name.
	Name string `json:"name"`
	// Before is what the database is called that had the name; empty when none had it.
	Before string `json:"before,omitempty"`
	// DropCommand is what drops what is left to the operator to drop.
	DropCommand string `json:"dropCommand,omitempty"`
	// WindowSeconds is how long nobody could connect.
	WindowSeconds float64 `json:"windowSeconds,omitempty"`
}

// PutRestored gives the restored database its final name, in place of another one or not. When an earlier attempt has done
// so already, it says the same again.
func (a *Activities) PutRestored(ctx context.Context, in RestoreWork) (Put, error) {
	source, err := a.source(in.Found.Database)
	if err != nil {
		return Put{}, err
	}
	admin, err := backup.Administer(ctx, source)
	if err != nil {
		return Put{}, failed(err)
	}
	defer admin.Close()
	var renamed backup.Renamed
	if target := in.Request.InPlaceOf; target != "" {
		renamed, err = admin.Swap(ctx, in.OID, target, backup.BeforeName(target, in.RestoreID))
	} else {
		renamed, err = admin.Rename(ctx, in.OID, in.Request.Into)
	}
	if err != nil {
		return Put{}, failed(err)
	}
	put := Put{Name: renamed.Name, Before: renamed.Before, WindowSeconds: renamed.Window.Seconds()}
	if put.Before != "" {
		put.DropCommand = admin.Command("drop database " + put.Before)
	}
	return put, nil
}

// CopyTable copies the restored table beside the one that serves.
func (a *Activities) CopyTable(ctx context.Context, in RestoreWork) (Put, error) {
	r, err := a.restoring(ctx, in)
	if err != nil {
		return Put{}, err
	}
	table, err := r.manifest.Table(in.Request.Table)
	if err != nil {
		return Put{}, failed(err)
	}
	admin, err := backup.Administer(ctx, r.source)
	if err != nil {
		return Put{}, failed(err)
	}
	defer admin.Close()
	serving, err := admin.Find(ctx, in.Found.Database)
	if err == nil && serving == nil {
		err = final("there is no database "+in.Found.Database+" to put the table into: restore the whole backup", SetupType, nil)
	}
	if err != nil {
		return Put{}, failed(err)
	}
	name := backup.RestoredTable(table.Name, in.RestoreID)
	err = a.attended(ctx, in.Found.Database, 0, func(ctx context.Context, _ *backup.Meter) error {
		return backup.CopyTable(ctx, r.source, in.beside(), *serving, table, name)
	})
	if err != nil {
		return Put{}, failed(err)
	}
	return Put{Name: table.Schema + "." + name, DropCommand: admin.CommandIn(serving.Name, "drop table "+table.Schema+"."+name)}, nil
}

// DropBeside drops the database that the restore worked in, and reads back that it is gone. Where an attempt that was not
// heard of any more has given it its final name, that is done, and returned.
func (a *Activities) DropBeside(ctx context.Context, in RestoreWork) (*Put, error) {
	source, err := a.source(in.Found.Database)
	if err != nil {
		return nil, err
	}
	if in.OID != 0 && in.Request.Table == "" {
		admin, err := backup.Administer(ctx, source)
		if err != nil {
			return nil, failed(err)
		}
		defer admin.Close()
		placed, err := admin.FindOID(ctx, in.OID)
		if err != nil {
			return nil, failed(err)
		}
		if placed != nil && placed.Name != in.beside() {
			put, err := a.PutRestored(ctx, in)
			return &put, err
		}
		return nil, failed(admin.DropBeside(ctx, in.beside()))
	}
	admin, err := backup.Administer(ctx, source)
	if err != nil {
		return nil, failed(err)
	}
	defer admin.Close()
	return nil, failed(admin.DropBeside(ctx, in.beside()))
}
