package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/school-sms/sms/internal/storage"
)

var (
	// ErrNoSpace says that the next backup would not fit into the storage.
	ErrNoSpace = errors.New("too little space for the next backup")
	// ErrRoles says that the role that restores lacks a right that it needs.
	ErrRoles = errors.New("the role " + RestoreRole + " cannot restore")
)

// ReadyToSave checks what a backup and its drill need, before anything is touched: keys, programs that fit the server, space
// for 1.2 times the last backup, and the rights of the role that restores. The error names every fault that was found:
// ErrNoKey, ErrWrongKey, ErrToolMissing, ErrServerNewer, ErrServerOlder, ErrNoSpace, ErrRoles, or what Refused knows.
func (t Tools) ReadyToSave(ctx context.Context, store storage.Store, source Source) error {
	keys, err := t.Keys.Read()
	if err == nil {
		err = keys.Ready()
	}
	return errors.Join(err, t.checkServer(ctx, source), checkSpace(ctx, store, source.Database))
}

// Readable reads all of a database as a backup would, and keeps nothing. Its error is why no backup can be made.
func (t Tools) Readable(ctx context.Context, source Source, meter *Meter) error {
	_, err := t.dump(ctx, source, Keys{}, io.Discard, meter)
	if errors.Is(err, ErrAltered) { // it could be read, and a backup begun anew
		return nil
	}
	return err
}

// checkServer looks for the programs that fit the source's server, and for the rights of the role that restores.
func (t Tools) checkServer(ctx context.Context, source Source) error {
	conn, err := connect(ctx, source.URL, "sms-backup")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	major, version, err := serverVersion(ctx, conn)
	if err != nil {
		return err
	}
	if major < oldestServer {
		return fmt.Errorf("%w: PostgreSQL %s, at least %d is needed", ErrServerOlder, version, oldestServer)
	}
	var faults []error
	for _, program := range []string{"pg_dump", "pg_dumpall", "pg_restore"} {
		_, err := t.fittingServer(ctx, program, major, version)
		faults = append(faults, err)
	}
	return errors.Join(append(faults, checkRoles(ctx, conn))...)
}

// fittingServer is fitting, with ErrServerNewer where every installed version is too old.
func (t Tools) fittingServer(ctx context.Context, program string, major int, version string) (installed, error) {
	found, err := t.fitting(ctx, program, major)
	if err == nil && found.major < major {
		err = fmt.Errorf("%w: PostgreSQL %s, %s %s; install postgresql-client-%d", ErrServerNewer, version, program, found.version, major)
	}
	return found, err
}

// checkRoles makes sure that the role that restores can give everything back to its owner.
func checkRoles(ctx context.Context, conn *pgx.Conn) error {
	const query = `
with owners as (
    select datdba as owner from pg_catalog.pg_database where datname = current_database()
    union select nspowner from pg_catalog.pg_namespace where nspname not like 'pg\_%' and nspname <> 'information_schema'
    union select relowner from pg_catalog.pg_class c where oid >= 16384
      and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    union select proowner from pg_catalog.pg_proc p where oid >= 16384
      and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
)
select coalesce(r.rolcreatedb or r.rolsuper, false), r.oid is not null,
       (select coalesce(array_agg(o.rolname::text order by o.rolname), '{}') from owners join pg_catalog.pg_roles o on o.oid = owners.owner
         where o.rolname <> 'pg_database_owner' and not pg_has_role(r.oid, o.oid, 'member'))
  from (select) as one
  left join pg_catalog.pg_roles r on r.rolname = $1`
	var creates, there bool
	var foreign []string
	if err := conn.QueryRow(ctx, query, RestoreRole).Scan(&creates, &there, &foreign); err != nil {
		return fmt.Errorf("look for the rights of %s: %w", RestoreRole, err)
	}
	switch {
	case !there:
		return fmt.Errorf("%w: there is no such role", ErrRoles)
	case !creates:
		return fmt.Errorf("%w: it may make no databases (alter role %s createdb)", ErrRoles, RestoreRole)
	case len(foreign) > 0:
		return fmt.Errorf("%w: it is no member of what owns parts of the database (grant %s to %s)", ErrRoles, strings.Join(foreign, ", "), RestoreRole)
	}
	return nil
}

// checkSpace compares the free space with the size of the last backup.
func checkSpace(ctx context.Context, store storage.Store, database string) error {
	free, known, err := storage.Free(ctx, store)
	if err != nil || !known {
		return err
	}
	objects, err := store.List(ctx, database+"/")
	if err != nil {
		return err
	}
	for _, o := range slices.Backward(objects) { // the latest last
		if partOf(o.Name) != partArchive {
			continue
		}
		if needed := o.Bytes + o.Bytes/5; free < needed {
			return fmt.Errorf("%w: %s are free, and the last one took %s (1.2 times that is needed)", ErrNoSpace, Size(free), Size(o.Bytes))
		}
		return nil
	}
	return nil
}

// ReadyToRestore checks whether a backup can be restored into the source's server, before anything is touched and without
// reading the archive. It returns ErrNoKey, ErrWrongKey, ErrToolMissing, ErrClientOlder, ErrServerNewer, ErrServerOlder.
func (t Tools) ReadyToRestore(ctx context.Context, m Manifest, source Source) error {
	if m.Encryption == Encrypted {
		keys, err := t.Keys.Read()
		if err == nil {
			err = keys.Opens(m.Encryption, m.Recipients)
		}
		if err != nil {
			return err
		}
	}
	conn, err := administer(ctx, source, "sms-restore")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = t.restorer(ctx, m, conn)
	return err
}

// restorer is the pg_restore that reads a backup and fits the server.
func (t Tools) restorer(ctx context.Context, m Manifest, conn *pgx.Conn) (installed, error) {
	server, version, err := serverVersion(ctx, conn)
	if err != nil {
		return installed{}, err
	}
	madeBy, errDump := majorOf(m.DumpVersion)
	madeOn, errServer := majorOf(m.ServerVersion)
	if errDump != nil || errServer != nil {
		return installed{}, fmt.Errorf("%w: its manifest names no versions", ErrDamaged)
	}
	if server < madeOn {
		return installed{}, fmt.Errorf("%w: the backup is of PostgreSQL %s, the server is %s", ErrServerOlder, m.ServerVersion, version)
	}
	program, err := t.fittingServer(ctx, "pg_restore", max(server, madeBy), version)
	if errors.Is(err, ErrServerNewer) && program.major < madeBy {
		err = fmt.Errorf("%w: pg_dump %s, pg_restore %s", ErrClientOlder, m.DumpVersion, program.version)
	}
	return program, err
}
